# make all, make demo, make test: see README.md.  B=dir builds elsewhere, CC=clang-19 with another compiler, -jN in parallel.
B       ?= build
CC      ?= gcc
LLVM    ?= llvm-config-19
PREFIX  ?= /usr/local
OPT     ?= -O2
JOBS    ?= $(shell nproc)
WARN     = -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wmissing-prototypes -Wstrict-prototypes -Werror
CFLAGS  += -std=c11 -g $(OPT) $(WARN) -ffp-contract=off -D_GNU_SOURCE -I. -I$(B)/gen $(SAN)
LLVM_CFLAGS := $(shell $(LLVM) --cflags 2>/dev/null | tr ' ' '\n' | grep -E '^-I' | sed 's/^-I/-isystem /')
LDLIBS  += $(shell $(LLVM) --ldflags --libs 2>/dev/null) -lprotobuf-c -lcrypto -lcjson -lsqlite3 -lzip -lyaml -lm -lpthread -ldl

SRC     := $(sort $(shell find zenithc frontends codegen targets -name '*.c'))
LIBSRC  := $(filter-out zenithc/driver/main.c,$(SRC))
OBJ     := $(SRC:%.c=$(B)/obj/%.o)
LIBOBJ  := $(LIBSRC:%.c=$(B)/obj/%.o)
UNIT    := $(patsubst tests/unit/%.c,$(B)/unit/%,$(sort $(wildcard tests/unit/test_*.c)))
all: $(B)/zenithc
-include mk/*.mk
# ^ generated sources, and programs that only tests need

# ---- the compiler -----------------------------------------------------------------------------------------------------
ifeq ($(shell command -v $(LLVM)),)
$(B)/zenithc: ; @echo "$(LLVM) is missing: run tools/install_deps.sh, then make again" >&2; exit 1
else
$(B)/zenithc: $(OBJ) $(GENOBJ)
	$(CC) $(SAN) -o $@ $^ $(LDLIBS)
endif

# Objects go to $(B)/obj: the folder zenithc/ must not meet the program $(B)/zenithc. mk/*.mk may ask for $(B)/<path>.o.
COMPILE  = @mkdir -p $(@D) && $(CC) $(CFLAGS) $(LLVM_CFLAGS) -MMD -MP -c -o $@ $<
$(B)/obj/%.o: %.c | $(GENHDR)
	$(COMPILE)
$(B)/%.o: %.c | $(GENHDR)
	$(COMPILE)

$(B)/libzenithc.a: $(LIBOBJ) $(GENOBJ)
	rm -f $@ && ar rcsD $@ $^

# ---- see it work ------------------------------------------------------------------------------------------------------
demo:
	@tools/install_deps.sh demo
	@$(MAKE) --no-print-directory -s -j$(JOBS) all
	@examples/digits/run.sh $(abspath $(B))/zenithc $(abspath $(B))/demo

install: all
	install -D -m 755 $(B)/zenithc $(DESTDIR)$(PREFIX)/bin/zenithc
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/include/zenith runtime/*.h
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/zenith/runtime runtime/*.c
	if [ -f docs/zenithc.1 ]; then install -D -m 644 docs/zenithc.1 $(DESTDIR)$(PREFIX)/share/man/man1/zenithc.1; fi

# ---- tests: every suite is a script tests/suites/NAME.sh that ends with "N passed, N failed, N skipped" ----------------
$(B)/unit/%: tests/unit/%.c $(B)/libzenithc.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LLVM_CFLAGS) -MMD -MP -o $@ $< $(B)/libzenithc.a $(LDLIBS) -lcmocka

SUITES  ?= unit golden cli layout models conformance contrib embed firmware reproduce docs fuzz cuda
RUN      = CC='$(CC)' B='$(abspath $(B))' JOBS='$(JOBS)' MODELS='$(abspath $(MODELS))' tests/run_all.sh
TESTERS  = $(B)/make_model $(UNIT) $(B)/golden/run_golden $(B)/fuzz/corrupt $(B)/fuzz/load_onnx $(B)/fuzz/graphs/fuzz_graphs \
  $(FUZZERS:%=$(B)/fuzz/corpus_%)

test:
	@tools/install_deps.sh test
	@$(MAKE) --no-print-directory -s -j$(JOBS) all $(TESTERS)
	@$(RUN) $(SUITES)

# One suite alone: make unit, make golden, make models ... (mk/golden.mk has `golden`, for `make rebase` beside it)
unit: $(UNIT)
	@$(RUN) unit
models embed firmware reproduce docs cuda: all
	@$(RUN) $@
conformance contrib: all
	@tools/install_deps.sh test
	@$(RUN) $@

# Longer jobs.
conformance-full: all
	@tools/install_deps.sh test
	@TARGETS='cpu:0 cpu:2 cpu:3 c:2:gcc c:2:clang-19 interp' $(RUN) conformance
models-full: all
	@tools/install_deps.sh test
	@TARGETS='cpu:0 cpu:2 cpu:3 c:0 c:2' $(RUN) models
sizes: all
	@tools/install_deps.sh test
	@$(RUN) sizes
cuda-full: all
	@tools/install_deps.sh test
	@CUDA_FULL=1 $(RUN) cuda
conformance-rebase: all
	@tools/install_deps.sh test
	@REBASE=1 TARGETS='$(or $(TARGETS),cpu)' $(RUN) conformance
asan:
	@$(MAKE) -s -j$(JOBS) B=$(B)-asan OPT=-O1 SAN='-fsanitize=address,undefined -fno-omit-frame-pointer -Wno-error -w' asan-run
asan-run: all $(TESTERS)
	@ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 $(RUN) unit golden models
valgrind: all $(TESTERS)
	@$(RUN) valgrind
# BENCH="resnet50 kws_dscnn" selects; bench-docs writes the figures of the last runs into docs/PERFORMANCE.md.
bench: all
	@MODELS='$(abspath $(MODELS))' bench/run.sh $(abspath $(B))/zenithc $(abspath $(B))/bench $(BENCH)
bench-docs:
	@python3 bench/tables.py $(B)/bench/results.json docs/PERFORMANCE.md docs/performance.svg

generated: $(GENHDR)
lint:
	@tools/install_deps.sh lint
	@tools/lint.sh

format:
	clang-format-19 -i $$(git ls-files '*.c' '*.h')

clean:
	rm -rf $(B) $(B)-asan
.PHONY: all demo install test unit models embed firmware reproduce docs conformance contrib conformance-full conformance-rebase \
  models-full sizes cuda cuda-full asan asan-run valgrind bench bench-docs generated lint format clean
-include $(OBJ:.o=.d) $(UNIT:=.d)

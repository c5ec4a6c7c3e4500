# Differential fuzzing of graphs: make fuzz [N=2000] [SEED=1]. What differs lies in build/fuzz/graphs, shrunk.
FUZZ_SRC := $(sort $(wildcard tests/fuzz/graphs/*.c))
FUZZ_OBJ := $(FUZZ_SRC:%.c=$(B)/obj/%.o)
SEED     ?= 1
$(B)/fuzz/graphs/fuzz_graphs: $(FUZZ_OBJ) $(B)/libzenithc.a
	@mkdir -p $(@D)
	$(CC) $(SAN) -o $@ $^ $(LDLIBS)
fuzz: $(B)/fuzz/graphs/fuzz_graphs
	$< -n $(N) -s $(SEED) -o $(B)/fuzz/graphs
# A second opinion: the same by ONNX Runtime, where it knows the operators.
fuzz-ort: $(B)/fuzz/graphs/fuzz_graphs
	@tools/install_deps.sh test
	rm -rf $(B)/fuzz/onnx && mkdir -p $(B)/fuzz/onnx
	$< -n $(N) -s $(SEED) -o $(B)/fuzz/graphs --c 0 --onnx $(B)/fuzz/onnx 1
	$(B)/venv/bin/python tests/fuzz/graphs/ort_check.py $(B)/fuzz/onnx
.PHONY: fuzz fuzz-ort
-include $(FUZZ_OBJ:.o=.d)

# libFuzzer on what reads files: make fuzz-reader fuzz-zg fuzz-zk [SECONDS=600]. The programs need nothing but libc: carry
# build/fuzz-static/fuzz_* and tests/fuzz/corpus/* to a larger machine.
FB       := $(B)/fuzz-static
CLANG    ?= clang-19
CLANGXX  ?= clang++-19
SECONDS  ?= 600
FUZZERS  := reader zg zk
FUZZ_SAN := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
LF_SRC   := $(filter zenithc/base/% zenithc/graph/% zenithc/ops/% zenithc/eval/% zenithc/passes/% frontends/% \
              codegen/kir/%,$(SRC))
LF_OBJ   := $(LF_SRC:%.c=$(FB)/obj/%.o) $(FB)/obj/onnx_min.pb-c.o
LF_FLAGS := -std=c11 -g -O1 -D_GNU_SOURCE -I. -I$(B)/gen -w
$(FB)/obj/%.o: %.c | $(GENHDR)
	@mkdir -p $(@D)
	$(CLANG) $(LF_FLAGS) $(FUZZ_SAN) -fsanitize=fuzzer-no-link -MMD -MP -c -o $@ $<
$(FB)/obj/onnx_min.pb-c.o: $(B)/gen/onnx_min.pb-c.h
	@mkdir -p $(@D)
	$(CLANG) $(LF_FLAGS) $(FUZZ_SAN) -fsanitize=fuzzer-no-link -c -o $@ $(B)/gen/onnx_min.pb-c.c
$(FB)/libread.a: $(LF_OBJ)
	rm -f $@ && ar rcsD $@ $^
$(FB)/fuzz_%: $(FB)/obj/tests/fuzz/text/fuzz_%.o $(FB)/libread.a
	$(CLANGXX) $(FUZZ_SAN) -fsanitize=fuzzer -static-libstdc++ -static-libgcc -o $@ $^ -Wl,--gc-sections \
	  -l:libprotobuf-c.a -l:libz.a -lm -lpthread
fuzz-build:
	@tools/install_deps.sh fuzz
	@$(MAKE) --no-print-directory -s -j$(JOBS) $(FUZZERS:%=$(FB)/fuzz_%)
$(FUZZERS:%=fuzz-%): fuzz-%: fuzz-build
	@mkdir -p $(B)/fuzz/corpus/$* $(B)/fuzz/found
	$(FB)/fuzz_$* -max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
	  -artifact_prefix=$(B)/fuzz/found/$*- $(B)/fuzz/corpus/$* tests/fuzz/corpus/$*
# The same harnesses over the stored corpora, without libFuzzer.
$(B)/fuzz/corpus_%: tests/fuzz/text/fuzz_%.c tests/fuzz/text/corpus_main.c $(B)/libzenithc.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LLVM_CFLAGS) -o $@ $^ $(LDLIBS)
.PHONY: fuzz-build $(FUZZERS:%=fuzz-%)
.SECONDARY: $(FUZZERS:%=$(FB)/obj/tests/fuzz/text/fuzz_%.o)
-include $(LF_OBJ:.o=.d)

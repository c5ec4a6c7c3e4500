# zenithc: `make all`, `make demo`, `make test`; see README.md. B=dir builds elsewhere, CC=clang-19 with another compiler.
B       ?= build
CC      ?= gcc
LLVM    ?= llvm-config-19
PREFIX  ?= /usr/local
OPT     ?= -O2
WARN     = -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wmissing-prototypes -Wstrict-prototypes -Werror
CFLAGS  += -std=c11 -g $(OPT) $(WARN) -ffp-contract=off -D_GNU_SOURCE -I. -I$(B)/gen $(SAN)
LLVM_CFLAGS := $(shell $(LLVM) --cflags 2>/dev/null | tr ' ' '\n' | grep -E '^-I' | sed 's/^-I/-isystem /')
LDLIBS  += $(shell $(LLVM) --ldflags --libs 2>/dev/null) -lprotobuf-c -lcjson -lzip -lyaml -lz -lm -lpthread -ldl

SRC     := $(sort $(shell find zenithc frontends codegen targets -name '*.c'))
LIBSRC  := $(filter-out zenithc/driver/main.c,$(SRC))
OBJ     := $(SRC:%.c=$(B)/obj/%.o)
LIBOBJ  := $(LIBSRC:%.c=$(B)/obj/%.o)
UNIT    := $(patsubst tests/unit/%.c,$(B)/unit/%,$(sort $(wildcard tests/unit/test_*.c)))
-include mk/*.mk

all: $(B)/zenithc

$(B)/zenithc: $(OBJ) $(GENOBJ)
	$(CC) $(SAN) -o $@ $^ $(LDLIBS)

# Objects go to $(B)/obj: the folder zenithc/ must not meet the program $(B)/zenithc. mk/*.mk may ask for $(B)/<path>.o.
COMPILE  = @mkdir -p $(@D) && $(CC) $(CFLAGS) $(LLVM_CFLAGS) -MMD -MP -c -o $@ $<
$(B)/obj/%.o: %.c | $(GENHDR)
	$(COMPILE)
$(B)/%.o: %.c | $(GENHDR)
	$(COMPILE)

$(B)/libzenithc.a: $(LIBOBJ) $(GENOBJ)
	rm -f $@ && ar rcsD $@ $^

$(B)/unit/%: tests/unit/%.c $(B)/libzenithc.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LLVM_CFLAGS) -MMD -MP -o $@ $< $(B)/libzenithc.a $(LDLIBS) -lcmocka

unit: $(UNIT)
	@set -e; for t in $(UNIT); do $$t; done

clean:
	rm -rf $(B)
.PHONY: all unit clean
-include $(OBJ:.o=.d)

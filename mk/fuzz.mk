# Differential fuzzing of graphs: make fuzz [N=2000] [SEED=1]. What differs lies in build/fuzz/graphs, shrunk.
FUZZ_SRC := $(sort $(wildcard tests/fuzz/graphs/*.c))
FUZZ_OBJ := $(FUZZ_SRC:%.c=$(B)/obj/%.o)
SEED     ?= 1
$(B)/fuzz/graphs/fuzz_graphs: $(FUZZ_OBJ) $(B)/libzenithc.a
	@mkdir -p $(@D)
	$(CC) $(SAN) -o $@ $^ $(LDLIBS)
fuzz: $(B)/fuzz/graphs/fuzz_graphs
	$< -n $(N) -s $(SEED) -o $(B)/fuzz/graphs
.PHONY: fuzz
-include $(FUZZ_OBJ:.o=.d)

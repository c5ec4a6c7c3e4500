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

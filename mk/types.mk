# Every operator with every type that its schema allows, and its older versions, against onnx.reference and ONNX Runtime:
# make type-sweep [ONLY=Add,Cast]; the table is $(B)/types/table.txt, every case a line of results.tsv.
SWEEP_TYPES = OMP_NUM_THREADS=1 $(B)/venv/bin/python -W ignore tests/sweep/types/sweep_types.py \
  $(B)/fuzz/graphs/fuzz_graphs $(B)/onnx-data
type-sweep: $(B)/fuzz/graphs/fuzz_graphs $(B)/onnx-data/.done
	-$(SWEEP_TYPES) $(B)/types $(if $(ONLY),--only $(ONLY))
	-$(SWEEP_TYPES) $(B)/types-versions --versions --seeds 4 $(if $(ONLY),--only $(ONLY))
	cd tests/sweep/types && $(abspath $(B))/venv/bin/python coverage.py \
	  $(patsubst %,$(abspath $(B))/%,onnx-data types types-versions)
.PHONY: type-sweep

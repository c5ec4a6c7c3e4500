# Every operator with every type that its schema allows, and its older versions, against onnx.reference and ONNX Runtime:
# make type-sweep [ONLY=Add,Cast] [WAYS=0x1]; the table is $(B)/types/table.txt, every case a line of results.tsv. WAYS are the
# bits of fz_check: 0x29 interp, cpu -O2 and c (an hour), 0x1 interp alone (five minutes). Fails on a difference, and on what
# is disputed or refused without a row in tests/sweep/types/verdicts.txt.
WAYS = 0x29
SWEEP_TYPES = OMP_NUM_THREADS=1 $(B)/venv/bin/python -W ignore tests/sweep/types/sweep_types.py \
  $(B)/fuzz/graphs/fuzz_graphs $(B)/onnx-data
type-sweep: $(B)/fuzz/graphs/fuzz_graphs $(B)/onnx-data/.done
	rc=0; $(SWEEP_TYPES) $(B)/types --ways $(WAYS) $(if $(ONLY),--only $(ONLY)) || rc=1; \
	$(SWEEP_TYPES) $(B)/types-versions --versions --seeds 4 --ways $(WAYS) $(if $(ONLY),--only $(ONLY)) || rc=1; \
	rm -rf $(B)/types-contrib; $(B)/venv/bin/python tests/contrib/make_cases.py $(B)/types-contrib > /dev/null 2>&1; \
	cd tests/sweep/types && $(abspath $(B))/venv/bin/python coverage.py \
	  $(patsubst %,$(abspath $(B))/%,onnx-data types types-versions types-contrib) || rc=1; exit $$rc
.PHONY: type-sweep

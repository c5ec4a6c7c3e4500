# The reference evaluator's contractions are its hot loops: let the compiler vectorise them.
$(B)/obj/zenithc/eval/eval_contract.o $(B)/obj/zenithc/eval/eval_gemm.o $(B)/obj/zenithc/eval/eval_math.o: OPT += -O3

# Conformance of the evaluator: the ONNX node tests (written by make_data.py) and the models at hand.
$(B)/eval_check: tests/conformance/eval_check.c $(B)/libzenithc.a
	$(CC) $(CFLAGS) $(LLVM_CFLAGS) -MMD -MP -o $@ $< $(B)/libzenithc.a $(LDLIBS)
$(B)/onnx-data/.done: tests/conformance/make_data.py
	$(B)/venv/bin/python $< $(B)/onnx-data && touch $@
eval-check: $(B)/eval_check $(B)/onnx-data/.done
	$< --xfail tests/conformance/eval_xfail.txt $(B)/onnx-data/*/
.PHONY: eval-check
-include $(B)/eval_check.d

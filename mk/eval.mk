# The reference evaluator's contractions are its hot loops: let the compiler vectorise them.
$(B)/obj/zenithc/eval/eval_contract.o $(B)/obj/zenithc/eval/eval_gemm.o $(B)/obj/zenithc/eval/eval_math.o: OPT += -O3

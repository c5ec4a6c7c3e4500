# Exhaustive measurement of the mathematical functions (minutes to hours): make sweep [STRIDE=997] [ARCH=x86-64-v3]
STRIDE ?= 1
$(B)/sweep_math: tests/sweep/sweep_math.c tests/sweep/math_ref.h $(B)/libzenithc.a
	$(CC) $(CFLAGS) -O2 -o $@ $< $(B)/libzenithc.a $(LDLIBS)
sweep: $(B)/sweep_math
	$(B)/sweep_math $(STRIDE) $(ARCH)
.PHONY: sweep

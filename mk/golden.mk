# Golden tests: tests/golden/**/*.zg through the passes named in their first line. `make rebase` rewrites the expectations.
GOLDEN := $(sort $(wildcard tests/golden/*.zg tests/golden/*/*.zg))

$(B)/golden/run_golden: tests/golden/run_golden.c $(B)/libzenithc.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -MMD -MP -o $@ $< $(B)/libzenithc.a $(LDLIBS)

golden: $(B)/golden/run_golden
	$< $(GOLDEN)
rebase: $(B)/golden/run_golden
	$< --rebase $(GOLDEN)
.PHONY: golden rebase

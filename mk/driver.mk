# docs/CLI.md and docs/zenithc.1 come from the option tables: `make cli-docs`. The suite runs every example of the page.
cli-docs: $(B)/zenithc
	$(B)/zenithc help --markdown > docs/CLI.md
	$(B)/zenithc help --man > docs/zenithc.1
# docs/OPS.md from the operator tables; op-tests looks anew for what proves each operator (node tests, texts, real models).
ops-docs: $(B)/zenithc
	$(B)/zenithc ops --markdown > docs/OPS.md
op-tests:
	$(B)/venv/bin/python tools/op_tests.py $(B)/onnx-data $(MODELS)/index.json
$(B)/make_model: tests/cli/make_model.c tests/cli/tiny_model.h
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $< -lm
cli: $(B)/zenithc $(B)/make_model
	@B='$(abspath $(B))' tests/suites/cli.sh
.PHONY: cli-docs cli ops-docs op-tests

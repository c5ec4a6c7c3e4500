# docs/CLI.md and docs/zenithc.1 come from the option tables: `make cli-docs`. The suite runs every example of the page.
cli-docs: $(B)/zenithc
	$(B)/zenithc help --markdown > docs/CLI.md
	$(B)/zenithc help --man > docs/zenithc.1
$(B)/make_model: tests/cli/make_model.c tests/cli/tiny_model.h
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $< -lm
cli: $(B)/zenithc $(B)/make_model
	@B='$(abspath $(B))' tests/suites/cli.sh
.PHONY: cli-docs cli

# docs/CLI.md and the manual page come from the option tables; the tests run every example of the page.
docs: $(B)/zenithc
	$(B)/zenithc help --markdown > docs/CLI.md
$(B)/zenithc.1: $(B)/zenithc
	$(B)/zenithc help --man > $@
$(B)/make_model: tests/cli/make_model.c tests/cli/tiny_model.h
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $< -lm
cli-test: $(B)/zenithc $(B)/make_model
	tests/cli/cli.sh $(B)/zenithc $(B)/make_model docs/CLI.md
.PHONY: docs cli-test

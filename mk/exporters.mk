# make test-exporters: models of the usual exporters against their frameworks, in a virtual environment of its own. The table
# goes to docs/EXPORTERS.md.
EXPORTERS := $(B)/exporters-venv
$(EXPORTERS)/requirements.txt: tools/requirements-exporters.txt
	[ -x $(EXPORTERS)/bin/pip ] || python3 -m venv $(EXPORTERS)
	$(EXPORTERS)/bin/pip -q install --disable-pip-version-check -r $<
	cp $< $@
test-exporters: $(B)/zenithc $(EXPORTERS)/requirements.txt
	$(EXPORTERS)/bin/python tests/exporters/run.py $(B)/zenithc $(B)/exporters docs/EXPORTERS.md $(ONLY)
.PHONY: test-exporters

# make quickstart   install, and run the whole road on the Human Phenotype Ontology (half an hour on one core)
# make test         install what tests need, and run them
# make quality      check format and lint; make style mends them
.PHONY: quickstart test quality style clean

PYTHON ?= python3
VENV ?= .venv
RECIPE ?= recipes/quickstart/config.yaml
CODE = umls_reranker scripts tests benchmarks

quickstart: $(VENV)/.with-quickstart
	PYTHON=$(VENV)/bin/python scripts/run_full_training.sh $(RECIPE)

test: $(VENV)/.with-test
	$(VENV)/bin/python -m pytest

quality: $(VENV)/.with-quality
	$(VENV)/bin/ruff format --check $(CODE)
	$(VENV)/bin/ruff check $(CODE)

style: $(VENV)/.with-quality
	$(VENV)/bin/ruff format $(CODE)
	$(VENV)/bin/ruff check --fix $(CODE)

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed; set PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp per set of extras: a changed setup.cfg installs again.
$(VENV)/.with-%: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --editable ".[$*]"
	touch $@

# make quickstart   install, and run the full pipeline on the Human Phenotype Ontology (umls-reranker run quickstart)
# make test         install what tests need, and run them on all cores
# make test-extra   what takes long or needs more: a wheel, the image's steps, Spark, Ray; says what it leaves out
# make test-kernels the same tests as on another processor: kernels of AVX2, one thread, the files in reverse order
# make test-lowest  the same tests on the lowest versions that setup.cfg allows; PYTHON=python3.10 for the lowest Python
# make golden       compare what the package gives with recorded numbers: hours, alone on the machine; golden-fast: minutes
# make peers        compare with other linkers, each in an environment of its own (benchmarks/peers/README.md)
# make docs         build the guides and the API reference in build/docs; warnings are errors, and so are broken links between pages
# make links        check the links to other sites, which needs a network
# make dist         build what is released: an archive of the sources and a wheel
# make quality      check format, lint, one statement a line, expressions, types, who imports whom and requirements; make style mends the first two
.PHONY: quickstart test test-kernels test-extra test-lowest golden golden-fast peers docs links dist quality style clean

# Nothing is compiled at installation, so that each process would compile torch again.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV ?= .venv
# Windows has its own name for it.
BIN = $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
RECIPE ?= quickstart
# The folder that benchmarks/peers/export.py wrote.
EXPORT ?= runs/peers
CODE = umls_reranker scripts tests benchmarks examples docs/*.py docs/tests
# A crashed process ends the tests at once: those left in its file would be waited for forever.
PARALLEL = -n auto --dist loadfile --max-worker-restart 0
TESTS = tests benchmarks docs examples
SHIPPED = umls_reranker scripts
# The most of what must be read twice, of each kind (tests/expressions.py): these numbers only fall.
DENSE = 0 0 13 0
DENSE_IN_TESTS = 3 0 82 0
# Extras of developers: what only these ask for must not be imported by what is shipped.
DEVELOPERS = test|docs|quality|lowest|hosting|notebook|benchmarks|readers|adapters|demo
INSTALL_LOWEST = $(BIN)/uv pip install --quiet --python $(VENV)-lowest --resolution lowest-direct --editable ".[test]"
REQUIREMENTS = import importlib.metadata; print(*importlib.metadata.requires('umls_reranker'), sep='\n')
EXTRAS = quickstart spark ray demo readers adapters docs hosting notebook

quickstart: $(VENV)/.with-quickstart
	$(BIN)/umls-reranker run $(RECIPE)

test: $(VENV)/.with-test
	$(BIN)/python -m pytest $(PARALLEL)

# Of PyTorch, oneDNN and OpenBLAS. A processor without AVX2 has its own.
test-kernels: export ATEN_CPU_CAPABILITY = avx2
test-kernels: export ONEDNN_MAX_CPU_ISA = AVX2
test-kernels: export OPENBLAS_CORETYPE = Haswell
test-kernels: export OMP_NUM_THREADS = 1
test-kernels: $(VENV)/.with-test
	$(BIN)/python -m pytest $(PARALLEL) --no-loadscope-reorder $$(find $(TESTS) -name "test_*.py" | sort -r)

# One by one where not all can be installed, so that it is named what cannot, and the rest is tested all the same.
test-extra: $(VENV)/.with-test
	@$(BIN)/python -m pip install --quiet --editable ".[$$(echo $(EXTRAS) | tr ' ' ,)]" || for extra in $(EXTRAS); do \
		$(BIN)/python -m pip install --quiet --editable ".[$$extra]" \
			|| echo "cannot be installed here, its tests are left out: $$extra"; \
	done
	$(BIN)/python -m pytest -rs -m extra --timeout 900 $(PARALLEL)

# PyTorch without CUDA, a tenth of the download, where PyTorch's own index can be reached.
test-lowest: $(VENV)/.with-lowest
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) $(VENV)-lowest
	$(INSTALL_LOWEST) --torch-backend cpu 2>/dev/null || $(INSTALL_LOWEST)
	$(VENV)-lowest/bin/python -m pytest $(PARALLEL)

golden golden-fast: $(VENV)/.with-test,quickstart
	$(BIN)/python benchmarks/golden.py $(if $(findstring fast,$@),--fast)

peers:
	$(PYTHON) benchmarks/peers/run.py $(EXPORT)

docs: $(VENV)/.with-test $(VENV)/.with-docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --conf-dir docs . build/docs

links: $(VENV)/.with-test $(VENV)/.with-docs
	$(BIN)/python -m sphinx --builder linkcheck --conf-dir docs . build/links

dist: | $(BIN)/python
	$(BIN)/python -m pip install --quiet "build>=1.2,<2"
	$(BIN)/python -m build

quality: $(VENV)/.with-quality build/requirements.txt
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/python tests/packed_assignments.py $(SHIPPED) benchmarks
	$(BIN)/python tests/expressions.py $(DENSE) $(SHIPPED)
	$(BIN)/python tests/expressions.py $(DENSE_IN_TESTS) tests
	$(BIN)/python tests/surface.py
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/deptry $(SHIPPED)

style: $(VENV)/.with-quality
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

clean:
	rm -rf $(VENV) $(VENV)-lowest build dist *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed; set PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp per set of extras: a changed setup.cfg installs again. Only what is imported is compiled, at its first import: more than half of the time.
$(VENV)/.with-%: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-compile --editable ".[$*]"
	touch $@

# What deptry compares the imports with; it cannot read setup.cfg.
build/requirements.txt: $(VENV)/.with-quality Makefile
	@mkdir -p build
	$(BIN)/python -c "$(REQUIREMENTS)" | grep -vE "extra == .($(DEVELOPERS))" > $@

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
JOBS ?= 2
# CPU-only Linux: TORCH_INDEX=https://download.pytorch.org/whl/cpu avoids gigabytes of CUDA libraries.
TORCH_INDEX ?=
LABFLAGS ?=
TESTFLAGS ?=
FILES ?=

# `make test-gpu PY=python3` uses that Python as it is and sets nothing up.
ifeq ($(origin PY),command line)
READY :=
else
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
endif

# One thread per process: two torch processes with two threads each fight over two cores.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest

.PHONY: help setup lab test test-processors test-kernels test-threads test-lowest test-newest test-versions test-gpu lint bench mutants student teacher site notebooks clean

help:
	@echo "make lab       set up .venv and open the course in JupyterLab"
	@echo "make test      set up .venv, lint, run every test and every notebook"
	@echo "make test-processors  the tests as on other processors: test-kernels, then test-threads"
	@echo "make test-lowest | test-newest  the tests with the lowest or newest versions that pyproject.toml allows"
	@echo "make test-gpu  the same tests and notebooks on CUDA"
	@echo "make mutants   which changes of the core no test notices (about an hour; FILES=mvp_lite/schedule.py: a minute)"
	@echo "make student   write build/student: the notebooks without answers and outputs"
	@echo "make teacher   write build/teacher: the guide, answers included"
	@echo "make site      write build/site: notebooks and pages as a website that works offline"
	@echo "make notebooks run the notebooks in place, as they are committed"
	@echo "make setup | lint | bench | clean"

setup: $(READY)

$(VENV)/.ready: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c "import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else \
	'mvp_lite needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is %d.%d. Name another one: make setup PYTHON=python3.11' % v)"
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
ifneq ($(TORCH_INDEX),)
	$(VENV)/bin/python -m pip install --index-url $(TORCH_INDEX) "$$(grep '^torch[=>]' $(CONSTRAINTS))"
endif
	$(VENV)/bin/python -m pip install --constraint $(CONSTRAINTS) --editable ".[test]"
	@touch $@

lab: $(READY)
	$(PY) -m jupyterlab --ServerApp.root_dir=. notebooks/00_start_here.ipynb $(LABFLAGS)

test: lint
	$(PYTEST) --nbval -n $(JOBS) --dist loadfile $(TESTFLAGS)

# What a sum rounds to depends on the kernel and on the number of threads; no test may depend on that.
# Tests of figures, of files and of text do not depend on them anyway, and of threads only tests of numbers may.
TEXT := $(addprefix --ignore=,$(wildcard tests/test_figures*.py) $(addprefix tests/test_,$(addsuffix .py,api browser \
checkpoints contributing data elsewhere language latency mutants onnx project readme replay robustness saving shrunk_files site sliders sparse \
targets widgets)))
NUMBERS := $(addprefix tests/test_,$(addsuffix .py,anatomy budgets csr diagnosis distill equations gradient_free groups \
hold mask_search masks matrices methods oracle penalty_control precision_compile properties pruner pruning_callback schedule \
scores shrink swaps synchronization train trainer traps))

test-processors: test-kernels test-threads
test-kernels: $(READY)
	ATEN_CPU_CAPABILITY=default $(PYTEST) --nbval -m "not slow" -n $(JOBS) --dist loadfile $(TEXT) $(TESTFLAGS)
test-threads: $(READY)
	OMP_NUM_THREADS=2 $(PY) -m pytest $(NUMBERS) -m "not slow" $(TESTFLAGS)

# Constraints for pip: the ranges of pyproject.toml, and their lower bounds.
build/newest.txt: pyproject.toml
	@mkdir -p build
	sed -n 's/^ *"\([A-Za-z0-9_-]*>=.*,<.*\)",$$/\1/p' $< > $@
build/lowest.txt: build/newest.txt
	sed 's/>=\(.*\),.*/==\1/' $< > $@

# Printed outputs belong to the pins, so they are not compared. The environment is new each time: "newest" changes.
test-lowest test-newest: test-%: build/%.txt
	rm -rf build/$*
	$(MAKE) test-versions VENV=build/$* CONSTRAINTS=build/$*.txt

test-versions: $(READY)
	$(PYTEST) --nbval-lax -m "not slow" -n $(JOBS) --dist loadfile $(TESTFLAGS)

test-gpu: $(READY)
	@$(PY) -c "import sys, torch; sys.exit(None if torch.cuda.is_available() else \
	'make test-gpu: torch %s sees no CUDA device' % torch.__version__)"
	@$(PY) -c "import torch; print('CUDA device:', torch.cuda.get_device_name())"
	MVP_LITE_DEVICE=cuda $(PYTEST) --nbval-lax $(TESTFLAGS)

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: $(READY)
	OMP_NUM_THREADS=1 $(PY) benchmarks/run.py
	OMP_NUM_THREADS=1 $(PY) benchmarks/smaller.py
	$(PY) benchmarks/gradient_free.py
	OMP_NUM_THREADS=1 $(PY) benchmarks/zeros.py
	OMP_NUM_THREADS=1 $(PY) benchmarks/sparse_files.py

mutants: $(READY)
	$(PY) -m pip install --quiet --constraint constraints.txt "$$(grep '^mutmut==' constraints.txt)"
	$(PY) tests/mutants.py --processes $(JOBS) $(FILES)

student teacher: $(READY)
	$(PY) -m mvp_lite $@

# The sliders of the website, drawn in advance; this runs notebooks, about a minute in all.
SLIDERS := $(sort $(wildcard notebooks/0[1-5]_*.ipynb))
build/sliders/.drawn: $(SLIDERS) $(READY)
	rm -rf build/sliders
	OMP_NUM_THREADS=1 MVP_LITE_DEVICE=cpu $(PY) -m mvp_lite sliders $(SLIDERS)
	@touch $@

# Warnings, of links that lead nowhere for instance, are errors.
site: build/sliders/.drawn
	rm -rf build/site build/doctrees
	$(PY) -m sphinx -q -W --keep-going -c docs -d build/doctrees . build/site
	@echo "build/site/index.html; over http: $(PY) -m http.server --directory build/site"

notebooks: $(READY)
	MVP_LITE_DEVICE=cpu $(PY) -m mvp_lite execute $(sort $(wildcard notebooks/*.ipynb))

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

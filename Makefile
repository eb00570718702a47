# Everything from a clone: needs Python 3.11+, git and make. On Windows, or without make: see docs/install.md.
PYTHON ?= python3
BIN := .venv/bin
RUN := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python
# JupyterLab refuses to run as root unless told; in a container that is who one is
AS_ROOT := $(if $(filter 0,$(shell id -u 2>/dev/null)),--allow-root)
NOTEBOOKS ?= $(sort $(wildcard notebooks/*.ipynb))

.PHONY: lab test claims bench execute lint unit notebooks browser docs install install-dev install-bench portable

lab: install  ## set up, and open the start page in JupyterLab
	$(RUN) -m jupyterlab $(AS_ROOT) notebooks/00_start_here.ipynb

test: MARKED := not browser
test: install-dev lint unit notebooks browser  ## set up, and run every test

install:
	@$(PYTHON) tools/bootstrap.py

install-dev:
	@$(PYTHON) tools/bootstrap.py dev geo gpu

install-bench:
	@$(PYTHON) tools/bootstrap.py dev geo gpu bench

lint: install-dev  ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# neighbours share what they compute: each of the two processes takes one half of the tests, not every other one
unit: install-dev  ## unit and property tests, doctests, explorers, stored notebooks; without what takes many seconds
	$(RUN) -m pytest -q -n 2 --dist worksteal -m "$(or $(MARKED),not browser and not slow)" --durations=8

notebooks: install-dev  ## every notebook, cell by cell, against its stored outputs
	$(RUN) -m pytest -q -n 2 --dist loadfile -o addopts="-p no:cacheprovider" --nbval --nbval-current-env \
	  --nbval-cell-timeout=300 --nbval-sanitize-with=tests/nbval_sanitize.cfg notebooks

browser: install-dev  ## every notebook in a real JupyterLab
	$(RUN) -m pytest -q -n 2 --dist load -rP -m browser tests/browser

claims: install  ## the scoreboard
	$(RUN) -m lib claims --jobs 2

bench: install-bench  ## speed against the peers that the chapters name
	$(RUN) -m pytest tests/benchmarks -o addopts="-p no:cacheprovider" -m "" --benchmark-only \
	  --benchmark-group-by=group --benchmark-columns=min,median,rounds --benchmark-sort=name -s

execute: install-dev  ## run the notebooks on clean kernels and store their outputs
	$(RUN) tools/execute.py $(NOTEBOOKS)

portable: install-dev  ## show that stored outputs do not depend on threads or processor
	$(RUN) tools/portable.py $(NOTEBOOKS)

slides: install-dev  ## slides of the core path of chapters, from their stored notebooks
	$(RUN) tools/slides.py $(filter-out notebooks/00%,$(NOTEBOOKS))

docs: install-dev  ## what the code knows of README.md, docs/ and CITATION.cff
	$(RUN) tools/docs.py

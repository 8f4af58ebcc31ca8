# make demo: edit photos on the CPU.   make test: run all tests.   make fuzz: thousands of malformed inputs.
# make gpu: the tests and measurements that need CUDA, in nine minutes, with the torch that this machine has; results in
# OUT/gpu. It installs only what is missing, from wheels in .whl/, and a second call goes on where the first one ended.
# make docs: build the documentation into build/site. All but gpu create .venv and install first, demo only what
# it runs; Python 3.11, make and git are needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

RUN ?= python3
OUT ?= results

.PHONY: demo test fuzz gpu docs install clean

demo: $(VENV)/installed
	$(BIN)/python scripts/demo.py

# Each process takes one thread and up to 1.5 GB.
test: install
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

fuzz: install
	$(BIN)/python -m tests.fuzz

gpu:
	$(RUN) scripts/benchmark_gpu.py --resume --out $(OUT)/gpu $(OPTIONS)

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

install: $(VENV)/installed-dev

$(VENV)/installed: requirements.txt constraints.txt setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is required; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info

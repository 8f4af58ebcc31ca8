# make demo: the main job on generated faces, on the CPU.   make test: all tests.
# Both make .venv and install first; nothing but Python 3.11, make and git is needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test install clean

# Torch threads that spin while they wait for each other slow a busy machine tenfold.
export OMP_WAIT_POLICY ?= PASSIVE

demo: install
	$(BIN)/python scripts/demo.py

test: install
	$(BIN)/python -m pytest

install: $(VENV)/installed

$(VENV)/installed: requirements.txt requirements-dev.txt setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is wanted; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info

# make demo: from a fresh machine to report/index.html.  make test: from a fresh machine to a verdict.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: demo install lint test test-slow clean

install: $(VENV)/installed

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

demo: install
	$(PY) -m pipeline.doctor --quiet
	$(PY) -m dvc repro
	$(PY) train/run.py --shards shards/scannet-*.tar --config tiny
	$(PY) eval/run.py --checkpoint runs/latest --shards shards/val/scannet-*.tar
	$(PY) -m pipeline.run report
	@echo "Done. Open report/index.html in a browser."

lint: install
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

test: lint
	$(PY) -m pytest

test-slow: install
	$(PY) -m pytest -m slow

clean:
	rm -rf work shards report runs dvc.lock .dvc/cache .dvc/tmp

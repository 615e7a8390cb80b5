# Every target sets up what it needs: a virtual environment in .venv with the pinned requirements. Python 3.11 or newer.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: help demo app site browser coinrun test lint bench results clean
.DEFAULT_GOAL := help

help:  ## what the targets do
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(VENV)/.installed: requirements.txt requirements-dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

demo: $(VENV)/.installed  ## train GoToObj for a minute, evaluate it, draw its routing
	$(RUN) train_mop.py --task_id BabyAI-GoToObj-v0 --trial 99 --num_updates 200 --resume
	$(RUN) batch_eval.py --task BabyAI-GoToObj-v0 --trial 99 --final_only --plots

app: $(VENV)/.installed  ## look at the trained policies of results/zoo, and at what you evaluated
	MALLOC_ARENA_MAX=1 $(RUN) -m marimo run routing_viz.py  # one arena: memory of visitors who left is given back

site: $(VENV)/.installed  ## the policies of results/zoo as pages that need no server: site/index.html
	$(RUN) batch_eval.py --checkpoint_dir results/zoo --final_only --cache_dir site/cache --results_path site/results.csv
	$(RUN) gallery.py --checkpoint_dir results/zoo --cache_dir site/cache --results_path site/results.csv results/tasks.csv results/linear/tasks.csv

browser:  # Debian's chromium for the tests of the apps; without it, they are skipped
	@command -v chromium >/dev/null || \
		{ command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; } || \
		echo "no chromium, and it cannot be installed here: the tests in a browser will be skipped"

coinrun: $(VENV)/.installed  ## envpool and the Qt 5 that it needs, for the games of generative.train_agent
	@$(RUN) -c 'import ctypes; ctypes.CDLL("libQt5Gui.so.5")' 2>/dev/null || \
		{ command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq libqt5gui5 >/dev/null; } || \
		echo "the run-time of Qt 5 is missing, and it cannot be installed here: install libqt5gui5, or what it is called on this system"
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-coinrun.txt

test: $(VENV)/.installed browser  ## run every test
	$(RUN) -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed  ## check style and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m ty check --python $(VENV)

bench: $(VENV)/.installed  ## every benchmark but time_to_mastery.py: how long things take, as ratios (half an hour)
	$(RUN) benchmarks/bench.py

results: $(VENV)/.installed  ## the tables of tasks, settings, alphas and collapse (about a day; goes on where it was stopped)
	$(RUN) studies/experiments.py settings --jobs 2
	$(RUN) studies/tasks.py --jobs 2
	$(RUN) studies/experiments.py alpha --jobs 2
	$(RUN) studies/collapse.py --jobs 2

clean:  ## remove the virtual environment and caches of tools (no results)
	rm -rf $(VENV) .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# Every target does its own set-up, in .venv; a second run is quick.
#   make demo    pack, fly and localise over a made-up landscape (no torch, no download of data)
#   make test    the tests        make lint   ruff        make types   mypy --strict
#   make wheel   dist/*.whl       make docs   docs/commands.md from --help
#   make lock    pin versions     make clean  remove what the others made
# Another interpreter or place: make test PYTHON=python3.12 VENV=.venv312

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DONE := $(VENV)/.done
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	--constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint types wheel docs lock clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \{0,1\}//p' $(MAKEFILE_LIST) | head -6

# ---- set-up ------------------------------------------------------------------------------------

define CHECK_HOST
import os, shutil, sys, sysconfig
def refuse(seen, remedy):
    sys.exit("error: " + seen + "; " + remedy)
here = "%d.%d" % sys.version_info[:2]
if sys.version_info < (3, 10):
    refuse("$(PYTHON) is Python " + here + ", s4g needs 3.10 or newer", "name another: make PYTHON=python3.12")
try:
    import ensurepip, venv
except ImportError:
    refuse("$(PYTHON) cannot make virtual environments", "sudo apt install python3-venv (or python" + here + "-venv)")
# hnswlib comes as source code only.
if not (shutil.which("c++") or shutil.which("g++")):
    refuse("no C++ compiler (c++ or g++), which hnswlib is built with", "sudo apt install build-essential python3-dev")
header = os.path.join(sysconfig.get_path("include"), "Python.h")
if not os.path.exists(header):
    refuse("no " + header + ", which hnswlib is built with", "sudo apt install build-essential python3-dev (or python" + here + "-dev)")
endef
export CHECK_HOST

$(DONE)/venv:
	@$(PYTHON) -c '' 2>/dev/null || { \
	  echo "error: $(PYTHON) does not run here; sudo apt install python3 python3-venv," \
	       "or name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c "$$CHECK_HOST"
	@echo "Setting up $(VENV) (a minute or two, once) …" >&2
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(DONE) && touch $@

# What the demo, a drone and an operator need: no torch.
$(DONE)/pack: $(DONE)/venv pyproject.toml constraints.txt
	@$(PIP_INSTALL) --editable '.[pack]'
	@touch $@

# What the tests and the linters need.
$(DONE)/dev: $(DONE)/pack
	@echo "Adding torch, timm and the test tools to $(VENV) (a minute or two, once) …" >&2
	@$(PIP_INSTALL) --editable '.[pack,train,export,dev]'
	@touch $@

# ---- targets -----------------------------------------------------------------------------------

# The same made-up ground twice: packed as it looks in one summer, flown over in the autumn a year
# later. Truth is read to score the fixes, never to make them.
DEMO_GROUND := landscape:seed=11,size_m=1500

demo: $(DONE)/pack
	@mkdir -p demo
	$(BIN)/s4g-pack --source '$(DEMO_GROUND),season=summer,year=0' --levels 80 \
	  --out demo/region.s4gpack --overwrite
	$(BIN)/s4g-sim --source '$(DEMO_GROUND),season=autumn,year=1' --route docs/demo-route.csv \
	  --agl 150 --speed 50 --fps 2 --out demo/flight --overwrite
	$(BIN)/s4g-run --camera demo/flight/frames --telemetry demo/flight/telemetry.csv \
	  --intrinsics demo/flight/camera.json --truth demo/flight/truth.csv \
	  --pack demo/region.s4gpack --realtime \
	  --out demo/fixes.jsonl --plot demo/track.png --overwrite

test: $(DONE)/dev
	$(BIN)/python -m pytest -rs

lint: $(DONE)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The checkout's folder may have any name; mypy sees it as the package s4g through a link.
types: $(DONE)/dev
	@mkdir -p $(VENV)/types && ln -sfn "$(CURDIR)" $(VENV)/types/s4g
	MYPYPATH=$(VENV)/types $(BIN)/mypy

docs: $(DONE)/dev
	$(BIN)/python docs/make_commands.py

wheel: $(DONE)/dev
	rm -rf build ./*.egg-info
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

# Keeps the pins that still fit; `make lock UPGRADE=--upgrade` takes the newest of everything.
# CUDA packages are left out: the CPU needs none, and elsewhere torch itself pins its own.
lock: $(DONE)/venv
	$(PIP_INSTALL) uv
	cp constraints.txt $(VENV)/lock.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 $(UPGRADE) \
	  --extra pack --extra train --extra export --extra dev \
	  --constraint .ci/torch-pins.txt --no-header --no-annotate --no-emit-index-url \
	  --output-file $(VENV)/lock.txt pyproject.toml
	{ sed -n 's/^#= /# /p' .ci/torch-pins.txt; \
	  grep -vE '^(nvidia-|cuda-|triton=)' $(VENV)/lock.txt; } > constraints.txt

clean:
	rm -rf $(VENV) build dist demo ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

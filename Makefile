# make demo: one run of Concat-ID on two people, scored and reported. make test: all checks.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= runs/demo
LIMIT ?=
CORES := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
export OMP_NUM_THREADS ?= $(CORES)

.PHONY: setup demo gate gate-update long-training test pytest lint clean

setup: $(STAMP)

# A copy of this stamp's inputs decides: a second call installs nothing.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "$(PYTHON) was not found: install Python 3.11, or name one: make PYTHON=python3.12"; exit 2; }
	@echo "Installing idbench and its packages into $(VENV): about 7 GB and several minutes, once."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: setup
	$(BIN)/idbench run --model concat_id --split multi --out $(OUT) $(if $(LIMIT),--limit $(LIMIT))
	$(BIN)/idbench report $(OUT)

# The embedded weights against the committed reference; after a change on purpose: make gate-update.
GATE := references/concat_id-multi
gate gate-update: setup
	rm -rf runs/gate
	$(BIN)/idbench run --model concat_id --split multi --limit $(or $(LIMIT),8) --out runs/gate
	$(BIN)/idbench check runs/gate $(if $(filter gate-update,$@),--update $(GATE).json --embeddings,\
	  --against $(GATE).json --markdown runs/gate.md --junit runs/gate.xml)

# Everything of the long recipes, about a day on two cores; a second call continues.
LONG := long_data long_latents long_base long_single long_continued long_stage2 long_stage3 \
  long_multi long_multi_scratch long_multi3 long_tryon long_background
long-training: setup
	@for recipe in $(LONG); do \
	  state=.training/$$recipe; resume=; \
	  if [ -e $$state/finished ]; then continue; fi; \
	  if [ -d $$state/checkpoints ]; then resume=--resume; fi; \
	  $(BIN)/idbench train $$recipe $$resume && touch $$state/finished || exit; \
	done

# The checks of the code run beside the tests: they take one core for half a minute.
test: setup
	@$(MAKE) --no-print-directory -j 2 lint pytest

# Processes of one thread each: quicker than one process with all threads; one more than there are
# cores, as many tests wait for the commands that they start. Python keeps what it compiled, or
# every worker and every command that a test starts compiles it again.
pytest: setup
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest \
	  -n $$(($(CORES) + 1)) --dist worksteal

lint: setup
	$(BIN)/ruff check .
	@# mypy follows folders, not package-dir: show it the import layout through links.
	@rm -rf build/mypy && mkdir -p build/mypy/idbench
	@for f in idbench/*; do ln -s ../../../$$f build/mypy/$$f; done
	@for d in metrics baselines models prompts reports weights; do \
	  ln -s ../../../$$d build/mypy/idbench/$$d; done
	cd build/mypy && MYPYPATH=. ../../$(BIN)/mypy --cache-dir ../../.mypy_cache \
	  --config-file ../../pyproject.toml -p idbench

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache

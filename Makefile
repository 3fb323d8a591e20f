# make venv     everything into .venv, with the pinned versions of constraints.txt
# make demo     compare schedulers on a production trace, and write a report to open (a minute, once installed)
# make test     ruff, mypy and pytest, on two cores
# make docs     the documentation site, into site/: open site/index.html
# make bounds   random calls of the environments, compiled code checking every index (compiles anew: three minutes)
# make test-vllm   the plug-in inside the real vLLM; makes its environment in $INFERMAX_VLLM_HOME first (3 GB)
# make demo-vllm   a vLLM server with a tiny random model: first come, first served against policies
# make packages what is published: built twice, installed afresh with each extra (needs the index; minutes)
# make audit     known vulnerabilities of the pinned versions; make sbom: what is installed, as CycloneDX (sbom.json)
# make faults    a hundred runs killed or out of disk at random moments
# make lint | type | format | bench | clean

SYSTEM_PYTHON ?= python3
VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check --quiet --quiet
CORE := $(VENV)/.core-installed
DEV := $(VENV)/.dev-installed

# Traffic shaped like Azure's conversation trace, near what llama-3.1-8b on one H100 carries: what engines do by default
# today, and what others would do.
DEMO := --cost llama-3.1-8b@h100 --workload azure-conv --first 5000 --rate 20 --slo ttft=2.0,tpot=0.05
DEMO_POLICIES := vllm,sglang-fcfs,trt-no-evict,lightllm,vllm-0.13,sarathi,orca,hrrn,spf-share,hrrn-share,sjf-oracle,mc-sf-oracle
SOURCES := pyproject.toml constraints.txt

INFERMAX_VLLM_HOME ?= $(HOME)/.cache/infermax-gym/vllm

.PHONY: packages audit sbom faults venv demo test docs bounds test-vllm demo-vllm vllm-environment lint type format bench clean
.DELETE_ON_ERROR:

venv: $(DEV)

$(CORE): $(SOURCES)
	@test -x $(PYTHON) || $(SYSTEM_PYTHON) -m venv $(VENV)
	@echo "installing infermax-gym into $(VENV) ..."
	@$(PIP) install --constraint constraints.txt --editable .
	@$(VENV)/bin/infermax bench --workload azure-conv --first 20 --policies vllm,sglang-fcfs >/dev/null
	@touch $@

# torch comes first and by its exact version, so that no other package pulls another build of it.
$(DEV): $(CORE)
	@echo "installing the extras for agents, the optimum, pictures and tests ..."
	@$(PIP) install --constraint constraints.txt torch==2.13.0
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(CORE)
	$(VENV)/bin/infermax bench $(DEMO) --policies $(DEMO_POLICIES) --out runs/demo
	@$(VENV)/bin/infermax report runs/demo

test: lint type
	$(PYTHON) -m pytest -n 2 --dist loadfile

docs: $(DEV)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
	@echo "open site/index.html"

bounds: $(DEV)
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=.bounds-cache $(PYTHON) -m tests.envs.fuzz --calls 2000

vllm-environment:
	@SYSTEM_PYTHON=$(SYSTEM_PYTHON) scripts/vllm_environment.sh $(INFERMAX_VLLM_HOME)

test-vllm: $(DEV) vllm-environment
	INFERMAX_TEST_VLLM=$(INFERMAX_VLLM_HOME) $(PYTHON) -m pytest tests/vllm

demo-vllm: vllm-environment
	$(INFERMAX_VLLM_HOME)/venv/bin/python -m experiments.vllm.demo

packages: $(DEV)
	$(PYTHON) scripts/packages.py

audit: $(DEV)
	@PYTHON=$(PYTHON) scripts/audit.sh

sbom: $(DEV)
	@$(PYTHON) scripts/sbom.py > sbom.json && echo "sbom.json"

faults: $(DEV)
	$(PYTHON) -m tests.faults --rounds 100

lint: $(DEV)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

type: $(DEV)
	$(VENV)/bin/mypy

format: $(DEV)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(DEV)
	@for script in $(wildcard benchmarks/*.py); do echo "== $$script"; $(PYTHON) $$script || exit 1; done

clean:
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .bounds-cache
	find infermax_gym baselines agents experiments tests -name __pycache__ -prune -exec rm -rf {} +

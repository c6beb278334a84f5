# `make demo` and `make test` each do everything from nothing: environment, dependencies, build, run.
# Needed on the machine: python3 (3.11 or later), cargo, g++, make.

PYTHON ?= python3
VENV := $(CURDIR)/.venv
WHEEL_VENV := $(CURDIR)/target/wheel-venv

export VIRTUAL_ENV := $(VENV)
export PATH := $(VENV)/bin:$(PATH)
# torch-sys links against the torch that is installed in the environment.
export LIBTORCH_USE_PYTORCH := 1
# No path of the building machine in what is built.
export RUSTFLAGS := --remap-path-prefix=$(HOME)/.cargo/registry/src= --remap-path-prefix=$(CURDIR)=.
export CXXFLAGS := -ffile-prefix-map=$(CURDIR)/=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

RUST := Cargo.toml Cargo.lock build.rs $(shell find src csrc -type f)

.PHONY: demo test test-slow fuzz bench notebooks lint format wheel wheel-check gpu-check build lock clean

demo: build
	mmiln demo

test: build
	pytest -q

# What the default run leaves out, and the tests for a card by the same kernels compiled for the CPU.
test-slow: build
	pytest -q -m slow
	pytest -q --emulate-cuda tests/gpu

# Hostile and broken files for everything that reads files; each run has others.
fuzz: build
	pytest -q --fuzz 100000 tests/fuzz

# The tables of the README and of benchmarks/README.md.
bench: build
	python benchmarks/run.py

notebooks: build
	pytest -q --nbmake --override-ini testpaths=notebooks --override-ini addopts= notebooks

lint: build
	cargo fmt --check
	cargo clippy --release --locked -- -D warnings
	ruff check .
	ruff format --check .
	mypy
	python -m mypy.stubtest mmiln._core

format:
	cargo fmt
	ruff format .
	ruff check --fix .

# dist/: an abi3 wheel for CPython 3.11 and later, and a source distribution.
wheel: build
	rm -rf dist
	maturin build --release --locked --out dist
	maturin sdist --out dist

# The wheel in an empty environment, away from the sources.
wheel-check: wheel
	rm -rf $(WHEEL_VENV)
	$(PYTHON) -m venv $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/pip install -q -c requirements.lock dist/*.whl
	cd / && env -u VIRTUAL_ENV -u PYTHONPATH $(WHEEL_VENV)/bin/python -I $(CURDIR)/.ci/smoke.py
	rm -rf $(WHEEL_VENV)

# All that needs a card, with the wheel: tests, benchmarks beside PyTorch, compute-sanitizer. Takes python3's own
# torch, and needs no network where dist/ holds the wheel. ARGS="--quick" for three minutes; --help says more.
gpu-check:
	$(PYTHON) .ci/gpu-check $(ARGS)

build: $(VENV)/built

$(VENV)/built: $(VENV)/installed $(RUST) pyproject.toml
	pip install -q --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/installed: requirements.lock
	$(PYTHON) -m venv $(VENV)
	pip install -q -r requirements.lock
	@touch $@

# Renews requirements.lock from pyproject.toml.
lock:
	$(PYTHON) -m venv target/lock-venv
	target/lock-venv/bin/pip install -q uv
	target/lock-venv/bin/uv pip compile -q pyproject.toml --all-extras --universal --python-version 3.11 \
		--no-header --no-annotate --upgrade --output-file requirements.lock

clean:
	rm -rf target dist $(VENV) runs
	find . -name __pycache__ -o -name '*.so' -path './python/*' | xargs rm -rf

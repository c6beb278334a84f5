# `make demo` and `make test` each set up everything they need: environment, dependencies, build.
# Required on the machine: python3 (3.11 or later), cargo, g++, make.

PYTHON ?= python3
VENV := $(CURDIR)/.venv
WHEEL_VENV := $(CURDIR)/target/wheel-venv
LOWEST_VENV := $(CURDIR)/target/lowest-venv
TORCH_VENV := $(CURDIR)/target/torch/venv
TOOLS := $(CURDIR)/target/tools

export VIRTUAL_ENV := $(VENV)
export PATH := $(VENV)/bin:$(TOOLS)/bin:$(PATH)
# torch-sys links against the torch that is installed in the environment, and compiles again if the last variable
# changes: with torch's version and with the header that is included into it.
export LIBTORCH_USE_PYTORCH := 1
export LIBTORCH_BYPASS_VERSION_CHECK := $(shell sed -n 's/^torch==//p' requirements.lock; cksum < csrc/torch/mmiln_torch.h)
# Keeps paths of the building machine out of what is built.
export RUSTFLAGS := --remap-path-prefix=$(HOME)/.cargo/registry/src= --remap-path-prefix=$(CURDIR)=.
export CXXFLAGS := -ffile-prefix-map=$(CURDIR)/=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# One worker for each core; a file's tests run in one worker, as some share what takes long to build.
PYTEST := pytest -q -rs -n logical --maxprocesses 8 --dist loadfile

RUST := Cargo.toml Cargo.lock build.rs .cargo/config.toml build_backend/mmiln_build.py $(shell find src csrc crates -type f)

.PHONY: demo test test-slow test-lowest test-torch cuda check-all fuzz sanitize bench notebooks browser docs lint lint-rust \
	lint-python audit format wheel wheel-check wheel-all wheel-all-check wheel-beside sdist gpu-check build lock clean

demo: build
	mmiln demo

test: build
	$(PYTEST) --mpl

# The slow tests, except those of the CUDA kernels, and the tests of the crate that CPU kernels are written with.
test-slow: build
	$(PYTEST) -m slow
	cargo test -q --locked -p mmiln-numeric

# The full check of the CUDA kernels, compiled for the CPU: under ThreadSanitizer, launched with many sizes, and all
# tests for a card. CI runs it unless .ci/unchanged says that nothing has changed since it last passed.
cuda: build
	mkdir -p target && .ci/unchanged cuda --state > target/cuda-state
	$(PYTEST) -m kernels tests/cuda
	$(PYTEST) --emulate-cuda tests/gpu
	.ci/unchanged cuda --record $$(cat target/cuda-state)

# Everything that CI runs, including what it skips if nothing has changed.
check-all:
	.ci/run --all

# The tests with the lowest versions that pyproject.toml allows, torch's included; requirements.lock holds the highest.
# mmiln is installed from the source distribution, so that its core is compiled against that torch. Warnings are not errors
# here, as old releases raise many. Left out: tests of the sources, and long ones of kernels or of PyTorch code alone.
OLD := --override-ini filterwarnings=default --disable-warnings
LEFT_OUT := $(addprefix --ignore=tests/,cuda gpu parallel project reference model/test_stress.py baselines/test_all.py \
	ops/test_instruction_sets.py)
ifeq ($(shell $(PYTHON) -c 'import sys; print(sys.version_info < (3, 13))'),True)
test-lowest: build sdist
	$(call over,$(LOWEST_VENV),-r requirements.lowest)
	$(call from-source,$(LOWEST_VENV))
	$(LOWEST_VENV)/bin/python -m $(PYTEST) $(OLD) $(LEFT_OUT) tests
else
test-lowest:
	@echo "not tested: the lowest versions have no wheels for Python 3.13 and later"
endif

# The tests with any other torch, VERSION=2.12.1, and a core that is compiled against it.
test-torch: build sdist
	$(call over,$(TORCH_VENV),torch==$(VERSION))
	$(call from-source,$(TORCH_VENV))
	$(TORCH_VENV)/bin/python -m $(PYTEST) $(OLD) --ignore=tests/project tests
	rm -rf $(TORCH_VENV)

# An environment $(1) on top of the packages of the main one, with others $(2).
PURELIB := import sysconfig; print(sysconfig.get_path("purelib"))
define over
	$(PYTHON) -m venv --clear $(1)
	python -c '$(PURELIB)' > $$($(1)/bin/python -c '$(PURELIB)')/over.pth
	$(1)/bin/pip install -q --no-deps $(2)
endef
# Installs mmiln from the source distribution, as a user does: pip is told nothing of torch.
define from-source
	env -u LIBTORCH_USE_PYTORCH CARGO_TARGET_DIR=$(CURDIR)/target/torch/build \
		$(1)/bin/pip install -q --no-deps --no-cache-dir --force-reinstall target/torch/sdist/*.tar.gz
endef

# Gives hostile and broken files to everything that reads files; each run generates new ones.
fuzz: build
	pytest -q --fuzz 100000 tests/fuzz

# Runs tests under miri, ThreadSanitizer and AddressSanitizer; needs rustup's nightly with miri and rust-src.
sanitize: build
	.ci/sanitize

# The tables of the README and of benchmarks/README.md.
bench: build
	python benchmarks/run.py

# Runs the notebooks from a copy, as users do: they need no file beside them.
notebooks: build
	rm -rf target/notebooks && mkdir -p target/notebooks && cp notebooks/*.ipynb target/notebooks
	$(PYTEST) --nbmake --override-ini testpaths=target/notebooks --override-ini addopts= target/notebooks

# Tests the HTML pages, and notebooks in JupyterLab, in a real browser.
browser: build
	-.ci/chromium
	pytest -q -rs -m browser tests/browser

# Builds the manual into site/; a dead link is an error. Needs neither the core nor a network. Without -q, which would
# hide the warnings from --strict.
docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

lint: lint-rust lint-python docs

lint-rust: build
	cargo fmt --all --check
	cargo clippy --release --locked --workspace -- -D warnings
	cargo clippy -q --locked -p mmiln-numeric --tests -- -D warnings

lint-python: build
	ruff check .
	ruff format --check .
	mypy
	python -m mypy.stubtest mmiln._core
	python -m jactionlint --shellcheck= --pyflakes=
	.ci/licences
	pip-licenses > /dev/null

# Looks for known vulnerabilities of our dependencies, and checks all rules of deny.toml; asks PyPI and RustSec.
audit: build $(TOOLS)/bin/cargo-deny
	cargo deny --locked check
	$(PYTHON) -m venv target/audit-venv
	target/audit-venv/bin/pip install -q pip-audit
	target/audit-venv/bin/pip-audit --no-deps --disable-pip -r requirements.lock

format:
	cargo fmt --all
	ruff format .
	ruff check --fix .

# Builds into dist/ an abi3 wheel for CPython 3.11 and later, and a source distribution. The interpreter has the name that
# pip passed to maturin, so that nothing is compiled again.
wheel: build
	rm -rf dist
	maturin build --release --locked --interpreter $(VENV)/bin/python3 --out dist
	maturin sdist --out dist

sdist: build
	rm -rf target/torch/sdist
	maturin sdist --out target/torch/sdist

# Builds into dist/ the wheel that is published: with a core for each supported version of torch. Takes half an hour.
wheel-all: wheel
	.ci/wheel-all

# Tests that wheel beside each of these versions, or beside the torch VERSION alone.
wheel-all-check: build
	set -e; for version in $$(.ci/wheel-all --list); do $(MAKE) wheel-beside VERSION=$$version.*; done
wheel-beside: build
	$(call over,$(TORCH_VENV),"torch==$(VERSION)" dist/*.whl)
	cd / && env -u VIRTUAL_ENV -u PYTHONPATH $(TORCH_VENV)/bin/python -I $(CURDIR)/.ci/smoke.py
	rm -rf $(TORCH_VENV)

# Tests the wheel in an environment of its own, away from the sources. Torch and its dependencies, some gigabytes, are
# hard links to those of the other environment.
wheel-check: wheel
	rm -rf $(WHEEL_VENV)
	$(PYTHON) -m venv $(WHEEL_VENV)
	cd $(VENV)/lib/python3*/site-packages && \
		cp -al torch* functorch triton* nvidia* $(WHEEL_VENV)/lib/python3*/site-packages/
	$(WHEEL_VENV)/bin/pip install -q -c requirements.lock dist/*.whl
	cd / && env -u VIRTUAL_ENV -u PYTHONPATH $(WHEEL_VENV)/bin/python -I $(CURDIR)/.ci/smoke.py
	rm -rf $(WHEEL_VENV)

# Everything that needs a card, with the wheel: tests, benchmarks beside PyTorch, compute-sanitizer. Uses python3's own
# torch, and needs no network if dist/ holds the wheel. ARGS="--quick" takes three minutes; --help says more.
gpu-check:
	$(PYTHON) .ci/gpu-check $(ARGS)

build: $(VENV)/built

$(VENV)/built: $(VENV)/installed $(RUST) pyproject.toml
	pip install -q --no-build-isolation --no-deps --editable .
	@touch $@

# While pip downloads packages, cargo compiles the crates that need no torch. It fails at torch-sys; the build compiles
# the rest.
$(VENV)/installed: requirements.lock
	$(PYTHON) -m venv $(VENV)
	mkdir -p target && (cargo build --release --locked --keep-going > target/without-torch.log 2>&1 &)
	pip install -q -r requirements.lock
	@touch $@

$(TOOLS)/bin/cargo-deny:
	cargo install -q --locked --root $(TOOLS) cargo-deny@0.20.2

# Renews requirements.lock and requirements.lowest from pyproject.toml.
UV_COMPILE := target/lock-venv/bin/uv pip compile -q pyproject.toml --universal --python-version 3.11 \
	--no-header --no-annotate --upgrade
# The extras of users; development tools stay as in requirements.lock.
USERS := --extra demo --extra search --extra baselines --extra csd --extra parquet --extra onnx --extra testing
lock:
	$(PYTHON) -m venv target/lock-venv
	target/lock-venv/bin/pip install -q uv
	$(UV_COMPILE) --all-extras --output-file requirements.lock
	$(UV_COMPILE) $(USERS) --resolution lowest-direct --output-file requirements.lowest

clean:
	rm -rf target dist $(VENV) runs
	find . -name __pycache__ -o -name '*.so' -path './python/*' | xargs rm -rf

# `make demo` and `make test` each do everything from nothing: environment, dependencies, build, run.
# Needed on the machine: python3 (3.11 or later), cargo, g++, make.

PYTHON ?= python3
VENV := $(CURDIR)/.venv
WHEEL_VENV := $(CURDIR)/target/wheel-venv
LOWEST_VENV := $(CURDIR)/target/lowest-venv
TOOLS := $(CURDIR)/target/tools

export VIRTUAL_ENV := $(VENV)
export PATH := $(VENV)/bin:$(TOOLS)/bin:$(PATH)
# torch-sys links against the torch that is installed in the environment.
export LIBTORCH_USE_PYTORCH := 1
# No path of the building machine in what is built.
export RUSTFLAGS := --remap-path-prefix=$(HOME)/.cargo/registry/src= --remap-path-prefix=$(CURDIR)=.
export CXXFLAGS := -ffile-prefix-map=$(CURDIR)/=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# A worker a core; the tests of a file stay together, as some files share what took long to make.
PYTEST := pytest -q -rs -n logical --maxprocesses 8 --dist loadfile

RUST := Cargo.toml Cargo.lock build.rs $(shell find src csrc crates -type f)

.PHONY: demo test test-slow test-lowest cuda check-all fuzz sanitize bench notebooks browser docs lint lint-rust lint-python \
	audit format wheel wheel-check gpu-check build lock clean

demo: build
	mmiln demo

test: build
	$(PYTEST) --mpl

# What the default run leaves out, but for the kernels for CUDA, and the crate that kernels are written in by itself.
test-slow: build
	$(PYTEST) -m slow
	cargo test -q --locked -p mmiln-numeric

# The kernels for CUDA in full, compiled for the CPU: under ThreadSanitizer, launched on any sizes, and all tests for a
# card. Run by CI unless .ci/unchanged says otherwise.
cuda: build
	mkdir -p target && .ci/unchanged cuda --state > target/cuda-state
	$(PYTEST) -m kernels tests/cuda
	$(PYTEST) --emulate-cuda tests/gpu
	.ci/unchanged cuda --record $$(cat target/cuda-state)

# All that CI does, and what it leaves out where nothing has changed.
check-all:
	.ci/run --all

# With the lowest versions that pyproject.toml allows; requirements.lock holds the highest. Old releases warn of
# much that is no concern of ours, and have no wheels for later Pythons. Left out is what is the core's and torch's
# alone, which are the same as in `make test`.
CORE_ALONE := cuda gpu parallel reference model/test_padding.py model/test_stress.py baselines/test_all.py \
	$(addprefix ops/test_,functional.py autograd.py instruction_sets.py) \
	$(addprefix training/test_,interruptions.py nonfinite.py processes.py steps.py training.py ulgm.py)
ifeq ($(shell $(PYTHON) -c 'import sys; print(sys.version_info < (3, 13))'),True)
test-lowest: build $(LOWEST_VENV)/installed
	$(LOWEST_VENV)/bin/python -m $(PYTEST) --override-ini filterwarnings=default \
		$(addprefix --ignore=tests/,$(CORE_ALONE))
else
test-lowest:
	@echo "not tested: the lowest versions have no wheels for Python 3.13 and later"
endif

# Hostile and broken files for everything that reads files; each run has others.
fuzz: build
	pytest -q --fuzz 100000 tests/fuzz

# Under miri, ThreadSanitizer and AddressSanitizer; needs rustup's nightly with miri and rust-src.
sanitize: build
	.ci/sanitize

# The tables of the README and of benchmarks/README.md.
bench: build
	python benchmarks/run.py

notebooks: build
	$(PYTEST) --nbmake --override-ini testpaths=notebooks --override-ini addopts= notebooks

# Pages, and notebooks in JupyterLab, in a real browser.
browser: build
	-.ci/chromium
	pytest -q -rs -m browser tests/browser

# site/, the documentation: every link leads somewhere. Needs neither the core nor a network.
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
	.ci/licences
	pip-licenses > /dev/null

# Known faults of what we depend on, and all that deny.toml says; asks PyPI and RustSec.
audit: build $(TOOLS)/bin/cargo-deny
	cargo deny --locked check
	$(PYTHON) -m venv target/audit-venv
	target/audit-venv/bin/pip install -q pip-audit
	target/audit-venv/bin/pip-audit --no-deps --disable-pip -r requirements.lock

format:
	cargo fmt --all
	ruff format .
	ruff check --fix .

# dist/: an abi3 wheel for CPython 3.11 and later, and a source distribution. With the interpreter's name that pip
# gave to maturin nothing is compiled again.
wheel: build
	rm -rf dist
	maturin build --release --locked --interpreter $(VENV)/bin/python3 --out dist
	maturin sdist --out dist

# The wheel in an environment of its own, away from the sources. Torch and what it brings, some gigabytes, are not
# unpacked again: they are links to those of the other environment.
wheel-check: wheel
	rm -rf $(WHEEL_VENV)
	$(PYTHON) -m venv $(WHEEL_VENV)
	cd $(VENV)/lib/python3*/site-packages && \
		cp -al torch* functorch triton* nvidia* $(WHEEL_VENV)/lib/python3*/site-packages/
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

# While pip loads packages cargo compiles what needs no torch: it fails at torch-sys, and goes on by itself below.
$(VENV)/installed: requirements.lock
	$(PYTHON) -m venv $(VENV)
	mkdir -p target && (cargo build --release --locked --keep-going > target/without-torch.log 2>&1 &)
	pip install -q -r requirements.lock
	@touch $@

# Over the environment's own, which has torch already.
PURELIB := import sysconfig; print(sysconfig.get_path("purelib"))
$(LOWEST_VENV)/installed: requirements.lowest $(VENV)/installed
	$(PYTHON) -m venv --clear $(LOWEST_VENV)
	(python -c '$(PURELIB)'; echo $(CURDIR)/python) > $$($(LOWEST_VENV)/bin/python -c '$(PURELIB)')/over.pth
	$(LOWEST_VENV)/bin/pip install -q --no-deps -r requirements.lowest
	@touch $@

$(TOOLS)/bin/cargo-deny:
	cargo install -q --locked --root $(TOOLS) cargo-deny@0.20.2

# Renews requirements.lock and requirements.lowest from pyproject.toml.
UV_COMPILE := target/lock-venv/bin/uv pip compile -q pyproject.toml --universal --python-version 3.11 \
	--no-header --no-annotate --upgrade
# What users have; the tools of development are as in requirements.lock.
USERS := --extra demo --extra search --extra baselines --extra testing
lock:
	$(PYTHON) -m venv target/lock-venv
	target/lock-venv/bin/pip install -q uv
	$(UV_COMPILE) --all-extras --output-file requirements.lock
	$(UV_COMPILE) $(USERS) --resolution lowest-direct --output-file requirements.lowest

clean:
	rm -rf target dist $(VENV) runs
	find . -name __pycache__ -o -name '*.so' -path './python/*' | xargs rm -rf

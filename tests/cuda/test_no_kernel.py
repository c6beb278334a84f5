"""The operation that CONTRIBUTING.md adds: one file, no kernel for CUDA. Compiles the core once more."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cuda import shim

ROOT = Path(__file__).parents[2]
BINDING = """
#[pyfunction]
fn square(py: Python<'_>, x: PyTensor) -> PyResult<PyTensor> {
    entry::run_as_is(py, move || {
        check_kinds(&[("x", &x)])?;
        Ok(PyTensor(ops::square::square(&x)))
    })
}
"""
SCRIPT = """
import importlib.util, sys, torch
import mmiln.errors
spec = importlib.util.spec_from_file_location("_core", sys.argv[1])
core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
x = torch.linspace(-3, 3, 40000, dtype=torch.float64, requires_grad=True)
y = core.square(x)
y.sum().backward()
assert torch.equal(y, x * x) and torch.equal(x.grad, 2 * x)
core.emulate_kernels(sys.argv[2])
try:
    core.square(x)
except mmiln.errors.DeviceError as error:
    print(error)
"""


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{old!r} is not there, or several times"
    file.write_text(text.replace(old, new))


@pytest.mark.slow
def test_an_operation_of_one_file_is_refused_on_a_device(tmp_path: Path):
    for name in (".cargo", "Cargo.toml", "Cargo.lock", "build.rs", "src", "csrc", "crates"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        if (ROOT / name).exists():
            copy(ROOT / name, tmp_path / name)
    own = re.search(r"```rust\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert own is not None
    (tmp_path / "src/ops/square.rs").write_text(own[1])
    functional = "src/python/functional.rs"
    replace(tmp_path / "src/ops/mod.rs", "pub mod ulgm;", "pub mod square;\npub mod ulgm;")
    replace(tmp_path / functional, "pub fn register(", f"{BINDING}\npub fn register(")
    cmd, square = (f"module.add_function(wrap_pyfunction!({name}, module)?)?;" for name in ("cmd", "square"))
    replace(tmp_path / functional, cmd, f"{cmd}\n{square}")
    # Another name than the core's in the same target folder, whose compiled dependencies serve this one, too.
    replace(tmp_path / "Cargo.toml", 'name = "_core"', 'name = "square_core"')
    # The Makefile's flags, as the dependencies would be compiled again with others.
    flags = f"--remap-path-prefix={Path.home()}/.cargo/registry/src= --remap-path-prefix={ROOT}=."
    settings = {
        "LIBTORCH_USE_PYTORCH": "1",
        "VIRTUAL_ENV": sys.prefix,
        "RUSTFLAGS": flags,
        "CXXFLAGS": f"-ffile-prefix-map={ROOT}/=",
    }
    path = f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"
    build = ["cargo", "build", "--release", "--locked", "--target-dir", ROOT / "target"]
    subprocess.run(build, cwd=tmp_path, env=settings | os.environ | {"PATH": path}, check=True)
    core = ROOT / "target/release/libsquare_core.so"
    run = [sys.executable, "-c", SCRIPT, core, shim.build()]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Square has no CUDA kernel: call it with tensors on the CPU\n"

"""A driver, a library or a card that is wrong or not there: one sentence, and the CPU keeps working."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mmiln
from mmiln import _core
from mmiln.errors import DeviceError
from mmiln.training import device

SCRIPT = """
import warnings
warnings.simplefilter("error")
import numpy as np, torch, mmiln
from mmiln.errors import DeviceError, StateWarning
warnings.simplefilter("ignore", StateWarning)
try:
    mmiln.Model("mosi", device="cuda", text_dim=4, audio_dim=3, vision_dim=0)
except DeviceError as error:
    print(error)
model = mmiln.Model(text_dim=4, audio_dim=3, vision_dim=0, d_model=4, num_heads=1, num_layers=1)
batch = {"text": [np.ones((2, 4), "f")], "audio": [np.ones((3, 3), "f")]}
assert np.isfinite(model.predict(batch).score).all()
print("the CPU works")
"""
# A libcuda that answers everything alike: https://docs.nvidia.com/cuda/cuda-driver-api, CUresult.
DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return ANSWER; }
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
static int refuse(void) { return ANSWER; }
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags,
                        int *status) {
  *function = !strcmp(name, "cuInit") ? (void *)cuInit
            : !strcmp(name, "cuDriverGetVersion") ? (void *)cuDriverGetVersion
            : !strcmp(name, "cuGetProcAddress") ? (void *)cuGetProcAddress_v2 : (void *)refuse;
  if (status) *status = 0;
  return 0;
}
int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags) {
  return cuGetProcAddress_v2(name, function, version, flags, 0);
}
"""


def run(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    sentence, works = done.stdout.strip().split("\n")
    assert works == "the CPU works"
    assert sentence.startswith("device 'cuda' is not available: ") and 'device="cpu"' in sentence
    return sentence


def test_a_driver_that_is_no_library(tmp_path: Path):
    (tmp_path / "libcuda.so.1").write_text("what is left of an update that broke off")
    assert "Found no NVIDIA driver" in run(LD_LIBRARY_PATH=str(tmp_path))


@pytest.mark.parametrize(
    ("answer", "version", "said"),
    [
        (100, 13000, "No CUDA GPUs are available"),
        (35, 11000, "driver on your system is too old"),
        (803, 13000, "Error 803: system has unsupported display driver"),
        (802, 13000, "Error 802: system not yet initialized"),
        (999, 13000, "CUDA unknown error"),
    ],
)
def test_with_a_driver_that_refuses(answer: int, version: int, said: str, tmp_path: Path):
    (tmp_path / "driver.c").write_text(DRIVER)
    values = [f"-DANSWER={answer}", f"-DVERSION={version}"]
    library = ["-shared", "-fPIC", "-w", "-o", tmp_path / "libcuda.so.1"]
    subprocess.run(["gcc", *values, *library, tmp_path / "driver.c"], check=True)
    assert said in run(LD_LIBRARY_PATH=str(tmp_path))


def test_a_torch_without_cuda(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    minor = ".".join(torch.__version__.split(".")[:2])
    install = re.escape(f'`pip install --force-reinstall "torch=={minor}.*"`')
    with pytest.raises(DeviceError, match=f"built without CUDA: install the build with it, {install}"):
        mmiln.Model(device="cuda")


def test_a_torch_for_other_cards(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", "7.1")
    with pytest.raises(
        DeviceError, match="built for ROCm, and the kernels are for NVIDIA cards and CUDA: inst"
    ):
        mmiln.Model(device="cuda")


def test_a_card_that_is_not_there_or_too_old(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "NVIDIA GeForce GTX 1080")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: (6, 1))
    with pytest.raises(DeviceError, match="torch sees 2 CUDA devices, cuda:0, cuda:1"):
        mmiln.Model(device="cuda:2")
    with pytest.raises(DeviceError, match=r"GTX 1080 of compute capability 6\.1.* need 8\.0 or later"):
        mmiln.Model(device="cuda:1")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: (9, 0))
    device.check_device("cuda:1")


def test_an_architecture_that_the_compiler_does_not_know():
    with pytest.raises(DeviceError, match=r"does not compile for sm_10"):
        _core.compile_kernels(10, "float32")


def test_kernels_for_the_cpu_that_are_not_there(tmp_path: Path):
    with pytest.raises(DeviceError, match="no kernels for the CPU in"):
        _core.emulate_kernels(tmp_path)

"""Which devices a model can run on, and what to do if one is not available."""

from __future__ import annotations

import re
import warnings

import torch

from ..errors import DeviceError

# The oldest cards that the kernels are compiled for.
CAPABILITY = (8, 0)


def device_name(device: str | torch.device) -> str:
    """The name of a device, such as ``"cuda:0"``."""
    return str(device) if isinstance(device, torch.device) else device


def check_device(device: object) -> None:
    """Refuses an unknown or unavailable device.

    Raises:
        DeviceError: What is missing, and what to do about it.
    """
    if not isinstance(device, str) or not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise DeviceError(f'device must be "cpu", "cuda" or "cuda:<n>", got {device!r}')
    if device == "cpu":
        return
    missing = _missing_cuda()
    if missing:
        raise DeviceError(f'device {device!r} is not available: {missing}; device="cpu" works everywhere')
    number, count = int(device.partition(":")[2] or 0), torch.cuda.device_count()
    if number >= count:
        raise DeviceError(
            f"device {device!r} is not available: torch sees {count} CUDA devices, "
            f"{', '.join(f'cuda:{n}' for n in range(count))}"
        )
    capability = torch.cuda.get_device_capability(number)
    if capability < CAPABILITY:
        raise DeviceError(
            f"device {device!r} is a {torch.cuda.get_device_name(number)} of compute capability "
            f"{'.'.join(map(str, capability))}; the kernels need {'.'.join(map(str, CAPABILITY))} or later "
            '(Ampere, 2020): use device="cpu"'
        )


def _missing_cuda() -> str:
    """Why torch has no CUDA device; empty if it has one."""
    minor = ".".join(torch.__version__.split(".")[:2])
    install = f'install the build with it, `pip install --force-reinstall "torch=={minor}.*"`'
    if torch.version.hip is not None:
        return f"this torch was built for ROCm, and the kernels are for NVIDIA cards and CUDA: {install}"
    if torch.version.cuda is None:
        return f"this torch was built without CUDA: {install}"
    with warnings.catch_warnings(action="ignore"):
        if torch.cuda.is_available():
            return ""
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
        except (RuntimeError, AssertionError) as error:
            text = " ".join(str(error).split())
            numbered = re.search(r"Error \d+: .*", text)
            return f'torch says "{(numbered[0] if numbered else text).rstrip(".")}"'
    return "torch sees no CUDA device"

"""Time, launches, memory and bounds of a card; on the CPU, to try the benchmarks, those that exist there."""

from __future__ import annotations

import gc
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks import common
from benchmarks.common import Call, seconds

T = TypeVar("T")

# Functions by which the CPU starts work on a card.
LAUNCH = re.compile(r"(cuda|cu)(LaunchKernel\w*|LaunchCooperativeKernel\w*|GraphLaunch|Memcpy\w*|Memset\w*)")


def describe(device: str) -> str:
    """Names and versions of card, driver, torch and Python."""
    card = "the CPU"
    if device != "cpu":
        card = f"{torch.cuda.get_device_name(device)}, driver {driver()}, CUDA {torch.version.cuda}"
    return f"{card}; torch {torch.__version__}, Python {platform.python_version()}"


def driver() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown"
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True).stdout.split()
    return found[0] if found else "unknown"


def exact_float32() -> None:
    """Turns off TF32 for float32, as mmiln does not use it."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def elapsed_on(device: str) -> Callable[[Call, int], float]:
    """A function that times repeated calls on a device, by the device's own events."""
    if device == "cpu":
        return common.elapsed

    def elapsed(call: Call, loops: int) -> float:
        with torch.cuda.device(device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(loops):
                call()
            end.record()
            end.synchronize()
        return start.elapsed_time(end) / 1e3

    return elapsed


class Launches(NamedTuple):
    """Calls that start work; kernels, copies and fills that run on the card, and the seconds of these."""

    calls: float
    kernels: float
    busy: float

    def each(self, of: int) -> Launches:
        """The average for one of several repetitions."""
        return Launches(*(value / of for value in self))


def launches(call: Call, device: str) -> Launches | None:
    """The launches of one call, by torch.profiler; None if it recorded none."""
    if device == "cpu":
        return None
    synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as profiler:
        call()
        synchronize(device)
    events = profiler.events() or []
    marks = [event for event in events if not event.is_user_annotation]
    return counted(
        (event.name, event.device_type == DeviceType.CUDA, event.time_range.elapsed_us() / 1e6)
        for event in marks
    )


def counted(events: Iterable[tuple[str, bool, float]]) -> Launches | None:
    """For each event of a profile: its name, whether it happened on the card, and its seconds."""
    calls, kernels, busy = 0, 0, 0.0
    for name, on_card, took in events:
        if on_card and not name.startswith("mmiln::"):  # a range that spans its kernels
            kernels, busy = kernels + 1, busy + took
        elif not on_card and LAUNCH.fullmatch(name):
            calls += 1
    return Launches(calls, kernels, busy) if kernels else None


def with_memory(work: Callable[[], T], device: str) -> tuple[T, int | None]:
    """The result of some work, and the peak of additional card memory that torch held during it."""
    if device == "cpu":
        return work(), None
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(device)
    torch.cuda.reset_peak_memory_stats(device)
    result = work()
    synchronize(device)
    return result, torch.cuda.max_memory_reserved(device) - before


class Bounds(NamedTuple):
    """The peak rates of a device."""

    bandwidth: float  # bytes a second, read and written
    flops: float  # float32 operations a second

    def least(self, bytes: float, flops: float) -> tuple[float, str]:
        """The least time that some work takes, and which rate bounds it."""
        memory, arithmetic = bytes / self.bandwidth, flops / self.flops
        return max((memory, "memory"), (arithmetic, "float32"))


def bounds(device: str, *, quick: bool) -> Bounds:
    """The rates of a large copy and of a large product without TF32."""
    exact_float32()
    small = device == "cpu"
    numbers = (1 << 22) if small else (1 << 28)
    n = 512 if small else 8192
    with torch.device(device):
        source, target = torch.zeros(numbers), torch.zeros(numbers)
        a, b = torch.randn(n, n), torch.randn(n, n)
        times = seconds(
            {"copy": lambda: target.copy_(source), "product": lambda: a @ b},
            quick=quick,
            elapsed=elapsed_on(device),
        )
    return Bounds(2 * 4 * numbers / times["copy"], 2 * n**3 / times["product"])

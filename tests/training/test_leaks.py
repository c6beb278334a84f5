"""Memory and open files stay as they are, however long one works."""

import ctypes
import gc
import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

import mmiln
from support.small_runs import build, ragged

pytestmark = pytest.mark.slow
STEPS = 10_000
ROUNDS = 500


def resident() -> float:
    """MiB of memory in use, without freed pages that the C library keeps for later."""
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("threads", [1, 2])
def test_training_does_not_grow(threads):
    """Ten thousand steps over batches of ever new shapes; the slope of what is in use after a warm-up."""
    torch.set_num_threads(threads)
    try:
        model = mmiln.Model("mosi", num_layers=1, d_model=8, num_heads=2, accumulate=2, seed=1)
        used = []
        for block in range(20):
            batches = [ragged(block * 500 + number, 1 + number % 6) for number in range(500)]
            model.fit(batches, batches[:20], epochs=1, progress=False)
            del batches
            gc.collect()
            used.append(resident())
    finally:
        torch.set_num_threads(1)
    settled = np.array(used[5:])
    per_step = np.polyfit(np.arange(len(settled)), settled, 1)[0] / 500 * 2**20
    assert per_step < 64, f"{per_step:.0f} bytes a step: {used}"
    assert settled.max() - settled.min() < 8, used


def test_predicting_does_not_grow():
    model = build()
    batches = [ragged(number, 1 + number % 6) for number in range(200)]
    used = []
    for _ in range(20):
        for _ in range(5):
            model.predict(batches)
            model.forward(batches[0], intermediates=True)
            model.gradients(batches[1])
        gc.collect()
        used.append(resident())
    assert max(used[5:]) - min(used[5:]) < 8, used


def test_saving_and_loading_leaves_no_file_open(tmp_path):
    data = mmiln.data.synthetic(8, 8, 8)
    model = build()
    used, files = [], []
    for number in range(ROUNDS):
        model.fit(data.train, epochs=1, progress=False, checkpoint_dir=tmp_path / f"kept {number}")
        model.save_pretrained(tmp_path / "model")
        model = mmiln.Model.from_pretrained(tmp_path / "model")
        if number % 25 == 24:
            gc.collect()
            used.append(resident())
            files.append(open_files())
    assert len(set(files)) == 1, files
    assert max(used[5:]) - min(used[5:]) < 16, used


def test_failed_calls_do_not_grow():
    """Resources of a failed call are released."""
    model = build()
    good, wrong = ragged(0, 4), ragged(1, 4)
    wrong["audio"] = [1e30 * frames for frames in wrong["audio"]]
    wrong["text"] = [1e30 * frames for frames in wrong["text"]]
    model.fit([good], epochs=1, progress=False)
    used = []
    for _ in range(20):
        for _ in range(30):
            with pytest.raises(mmiln.errors.NonFiniteError):
                model.fit([good, wrong], epochs=1, progress=False)
            with pytest.raises(mmiln.errors.BatchError):
                model.predict([good, {**good, "audio": None}])
        gc.collect()
        used.append(resident())
    assert max(used[5:]) - min(used[5:]) < 8, used

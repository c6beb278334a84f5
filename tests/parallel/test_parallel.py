"""Training by two processes: the same result as by one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from .script import CASES
from .start import HERE, finished, torchrun


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of what two processes made, and one."""
    two, one = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    for out, processes in ((two, 2), (one, 1)):
        _, err, status = finished(torchrun(HERE / "script.py", out, processes=processes))
        assert status == 0, err
    return two, one


def read(folder, name, rank):
    return json.loads((folder / f"{name}.{rank}.json").read_text())


@pytest.mark.parametrize("name", [*CASES, "gathered", "weighted"])
def test_two_processes_come_to_what_one_comes_to(trained, name):
    two, one = trained
    ours, alone = read(two, name, 0), read(one, name, 0)
    assert np.abs(np.array(ours["weights"]) - alone["weights"]).max() < 1e-9
    assert ours["labels"].keys() == alone["labels"].keys()
    for modality, labels in alone["labels"].items():
        np.testing.assert_allclose(ours["labels"][modality], labels, atol=1e-9)
    if name == "weighted":  # the history's mean of a loss is over micro-batches of another size
        return
    assert ours["history"].keys() == alone["history"].keys()
    for measure, values in alone["history"].items():
        np.testing.assert_allclose(ours["history"][measure], values, atol=1e-6, err_msg=measure)


@pytest.mark.parametrize("name", [*CASES, "gathered", "weighted"])
def test_every_process_has_the_same_to_the_bit(trained, name):
    assert read(trained[0], name, 0) == read(trained[0], name, 1)


def test_labels_moved(trained):
    """The compared labels differ from the initial ones."""
    labels = read(trained[1], "as_is", 0)
    moved = np.array(labels["history"]["pseudo_shift_audio"])
    assert moved[-1] > 0.01


def test_what_will_not_do_is_refused_in_every_process(trained):
    first, second = (read(trained[0], "refusals", rank) for rank in (0, 1))
    for said in (first, second):
        assert said["accumulate"].startswith(
            "ConfigError: accumulate=3 micro-batches an optimiser step can't"
        )
        assert "set it to a multiple of 2" in said["accumulate"]
        assert said["baseline"].startswith("ConfigError: a Baseline trains in one process")
        assert said["other batches"].startswith(
            "DistributedError: epoch 1, about micro-batch 2: the processes"
        )
        assert said["not finite"].startswith("NonFiniteError: epoch 1, micro-batch 2: the loss of this batch")
        assert said["skipped"].startswith("[2] ")  # with its round
    assert "skipped: epoch 1, micro-batch 2" in first["skipped"]
    assert second["skipped"].endswith("[]")

"""Processes that are killed, data that differ, two machines."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from safetensors.numpy import load_file

from support.waiting import until

from .start import HERE, finished, popen, torchrun

LONG = HERE / "long.py"


def ranks_of(torchrun_: subprocess.Popen[str], out: Path) -> dict[int, psutil.Process]:
    """The processes by rank, once one of them has stopped in the middle of an epoch."""

    def stopped() -> bool:
        assert torchrun_.poll() is None, "ended before one had stopped"
        return (out / "stopped").exists()

    until(stopped, "a process stops")
    assert len(list((out / "checkpoints").glob("checkpoint-*"))) >= 2
    children = psutil.Process(torchrun_.pid).children(recursive=True)
    return {int(child.environ()["RANK"]): child for child in children if "RANK" in child.environ()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The weights of a run that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed")
    _, err, status = finished(torchrun(LONG, out))
    assert status == 0, err
    return load_file(out / "model" / "model.safetensors")


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert (weight == other[name]).all(), name


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_all_stop_and_say_why_where_one_is_killed(tmp_path, rank):
    process = torchrun(LONG, tmp_path, rank)
    ranks = ranks_of(process, tmp_path)
    # torchrun ends the others a tenth of a second after one, on a busy machine before they have said why.
    process.send_signal(signal.SIGSTOP)
    ranks[rank].kill()
    try:
        until(lambda: ranks[1 - rank].status() == psutil.STATUS_ZOMBIE, "the other process ends")
    finally:
        process.send_signal(signal.SIGCONT)
    _, err, status = finished(process)
    assert status != 0
    assert f"DistributedError: process {1 - rank} of 2" in err
    assert "one of them has ended" in err
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_a_restart_comes_to_the_same_bits(tmp_path, undisturbed):
    process = torchrun(LONG, tmp_path, 1, restarts=1)
    ranks_of(process, tmp_path)[1].kill()
    (tmp_path / "go on").touch()  # for the next one of this rank
    _, err, status = finished(process)
    assert status == 0, err
    assert_same(load_file(tmp_path / "model" / "model.safetensors"), undisturbed)


@pytest.mark.slow
def test_the_command_writes_and_prints_once(tmp_path):
    arguments = ["--epochs", "1", "--set", "num_layers=1", "--json", "--out", tmp_path / "run"]
    out, err, status = finished(torchrun("-m", "mmiln", "train", *arguments))
    assert status == 0, err
    measured = json.loads(out)
    record = json.loads((tmp_path / "run" / "seed-1111" / "run.json").read_text())
    assert record["metrics"]["test"]["mae"] == measured["test"]["mae"]["mean"]
    assert record["metrics"]["valid"]["n"] == 150
    assert len(list((tmp_path / "run").rglob("run.json"))) == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ip") is None, reason="needs the command ip (Debian: iproute2)")
def test_two_machines(tmp_path, undisturbed):
    """Two network namespaces with a cable between them; checkpoints of the first alone."""
    try:
        with two_hosts() as hosts:
            processes = [
                popen(
                    "ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run",
                    "--nnodes=2", "--nproc-per-node=1", f"--node-rank={i}", "--master-addr=10.77.0.1",
                    "--master-port=29400", LONG, tmp_path / f"host{i}",
                    GLOO_SOCKET_IFNAME=f"cable{i}",
                )
                for i, host in enumerate(hosts)
            ]  # fmt: skip
            ended = [finished(process) for process in processes]
    except subprocess.CalledProcessError as error:
        pytest.skip(f"may make no network namespaces: {error.stderr}")
    assert [status for _, _, status in ended] == [0, 0], ended
    assert_same(load_file(tmp_path / "host0" / "model" / "model.safetensors"), undisturbed)
    assert not (tmp_path / "host1").exists()


@contextmanager
def two_hosts() -> Iterator[list[str]]:
    """Names of two network namespaces, 10.77.0.1 and 10.77.0.2 on cable0 and cable1."""

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)

    hosts = [f"mmiln-test-{os.getpid()}-{i}" for i in (0, 1)]
    try:
        for host in hosts:
            ip("netns", "add", host)
        ends = ("type", "veth", "peer", "name", "cable1", "netns", hosts[1])
        ip("link", "add", "cable0", "netns", hosts[0], *ends)
        for i, host in enumerate(hosts):
            ip("-n", host, "addr", "add", f"10.77.0.{i + 1}/24", "dev", f"cable{i}")
            ip("-n", host, "link", "set", f"cable{i}", "up")
            ip("-n", host, "link", "set", "lo", "up")
        yield hosts
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "delete", host], check=False, capture_output=True)

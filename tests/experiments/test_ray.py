"""Experiments on a Ray cluster: the numbers of local runs, whatever dies; the errors without Ray."""

import contextlib
import secrets
import socket
import sys

import psutil
import pytest
import torch

from mmiln import experiments
from mmiln.errors import ConfigError, ExperimentError, StateError
from mmiln.experiments import ray_pool
from mmiln.experiments.pool import Failure, Job
from mmiln.experiments.progress import Display
from mmiln.experiments.ray_pool import Events, RayPool
from mmiln.experiments.runs import RECORD, Record
from mmiln.experiments.worker import attempt
from support.waiting import HANG_S, until

DESCRIPTION = {
    "name": "small",
    "datasets": {"made": {"path": "synthetic", "n_train": 200, "n_valid": 16, "n_test": 24}},
    "models": ["full", "text"],
    "seeds": [1, 2],
    "epochs": 40,
    "settings": {"d_model": 8, "num_heads": 2, "num_layers": 1, "patience": 40},
}


def jobs_of(description, folder):
    experiment = experiments.Experiment.of(description)
    return [Job(experiment, task, folder / task.folder) for task in experiment.tasks()]


# Without a cluster


def test_without_ray_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    for begin, description in (
        (experiments.run, DESCRIPTION),
        (
            experiments.search,
            {"name": "s", "dataset": {"path": "synthetic"}, "space": {"alpha": {"low": 0, "high": 1}}},
        ),
    ):
        with pytest.raises(ConfigError, match=r'pip install "mmiln\[ray\]"'):
            begin(description, tmp_path / "out", backend="ray")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({"backend": "slurm"}, '"local" or "ray", got \'slurm\''),
        ({"address": "10.0.0.1:6379"}, 'give backend="ray" too'),
        ({"backend": "ray", "jobs": 0}, "jobs must be at least 1, got 0"),
        ({"jobs": 0}, "jobs must be at least 1, got 0"),
    ],
)
def test_a_wrong_place_is_told_before_anything_is_written(place, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        experiments.run(DESCRIPTION, tmp_path / "out", **place)
    assert not (tmp_path / "out").exists()


def test_the_record_is_placed_last(tmp_path, monkeypatch):
    written = []

    def write(path, fill):
        written.append(path.name)
        fill(path)

    monkeypatch.setattr(ray_pool, "write", write)
    files = {"run.json": b"{}", "sub/a.txt": b"a", "z.csv": b"\x00\xff", "run.jsonl": b""}
    ray_pool.place(files, tmp_path / "run")
    assert written == ["run.jsonl", "a.txt", "z.csv", "run.json"]
    assert {str(p.relative_to(tmp_path / "run")): p.read_bytes() for p in tmp_path.rglob("*.*")} == files


def test_events_are_taken_once_and_in_order():
    events = Events()
    for number in range(3):
        events.add("a", {"epoch": number})
    assert events.take() == [("a", {"epoch": number}) for number in range(3)]
    assert events.take() == []


def test_a_run_that_begins_anew_keeps_one_bar(tmp_path):
    job = jobs_of(DESCRIPTION, tmp_path)[0]
    display = Display(1, show=True)
    for event in ({"event": "loaded"}, {"event": "epoch", "epoch": 1, "mae": 0.5}) * 2:
        display.on_event(job, event)
    assert len(display._progress.tasks) == 2  # of all runs and of this one


# With one


def node():
    """The arguments of a node; by default Ray waits only 15 seconds for its agents to choose ports."""
    names = ("metrics_agent_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in names]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}
    return {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_log_monitor": False, **ports}


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of two nodes of one core each on this machine."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'mmiln[ray]'")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else they starve beside a busy process
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex())  # else Ray leaves one in the home directory
        before = set(psutil.Process().children(recursive=True))
        cluster = begun(Cluster)
        started = set(psutil.Process().children(recursive=True)) - before
        try:
            yield cluster.address
        finally:
            cluster.shutdown()
        assert psutil.wait_procs(started, timeout=HANG_S)[1] == []


def begun(cluster_class):
    """A cluster of two nodes. The seconds that Ray gives its parts to start are too few on a busy machine."""
    before = set(psutil.Process().children(recursive=True))
    for _ in range(10):
        cluster = cluster_class()
        try:
            cluster.add_node(**node(), no_monitor=True, include_dashboard=False)
            cluster.add_node(**node())
            return cluster
        except Exception as error:
            said = error
            cluster.shutdown()
            # A node that came up in part is not the cluster's, which leaves its processes.
            for process in set(psutil.Process().children(recursive=True)) - before:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
    pytest.skip(f"Ray starts no cluster on this machine: {said}")


def performing():
    """Processes of Ray that perform a run."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[0].startswith("ray::perform"):
                found.append(process)
        except (psutil.Error, IndexError):
            continue
    return found


@pytest.mark.slow
def test_a_worker_is_killed_and_every_run_is_finished_once_with_the_same_bits(cluster, tmp_path, monkeypatch):
    loaded, ended, killed = [], [], []
    on_event, on_end = Display.on_event, Display.ended

    def kill_one_of_two(display, job, event):
        on_event(display, job, event)
        if event["event"] == "loaded":
            loaded.append(job.folder)
        if not killed and len(loaded) - len(ended) == 2 and (running := performing()):
            killed.append(running[0])
            killed[0].kill()

    def count(display, result):
        on_end(display, result)
        ended.append(result)

    monkeypatch.setattr(Display, "on_event", kill_one_of_two)
    monkeypatch.setattr(Display, "ended", count)
    report = experiments.run(
        DESCRIPTION, tmp_path / "ray", jobs=2, progress=False, backend="ray", address=cluster
    )
    monkeypatch.undo()

    assert len(killed) == 1
    assert not any(isinstance(result, Failure) for result in ended)
    folders = [job.folder for job in jobs_of(DESCRIPTION, tmp_path / "ray")]
    assert sorted(job.folder for job in ended) == sorted(folders)
    assert sorted(path.parent for path in (tmp_path / "ray").rglob(RECORD)) == sorted(folders)
    assert sorted(loaded.count(folder) for folder in folders) == [1, 1, 1, 2]  # one began anew

    for job in jobs_of(DESCRIPTION, tmp_path / "local"):
        job.folder.mkdir(parents=True)
        # What a local run's process does, without the seconds that each takes to start.
        assert attempt(job.message(torch.get_num_threads()), lambda event: None) == {"event": "done"}
        other = tmp_path / "ray" / job.task.folder
        names = {path.name for path in job.folder.iterdir()}
        assert {path.name for path in other.iterdir()} == names | {"log.txt"}
        for name in names - {RECORD}:
            assert (other / name).read_bytes() == (job.folder / name).read_bytes()
        mine, its = Record.read(job.folder), Record.read(other)
        for field in ("row", "fingerprint", "protocol", "config", "metrics", "best_epoch", "code"):
            assert getattr(its, field) == getattr(mine, field)
        assert its.peak_memory_mib > 100
    assert len(report.to_pandas()) == 4
    assert report.to_markdown() == experiments.Report.read(tmp_path / "ray").to_markdown()


@pytest.mark.slow
def test_a_file_that_a_machine_lacks_is_told_with_the_log(cluster, tmp_path):
    wrong = DESCRIPTION | {"datasets": {"made": {"path": "none.pkl"}}, "models": ["text"], "seeds": [1]}
    with pytest.raises(ExperimentError, match=r"none\.pkl.*every machine of the cluster needs") as caught:
        experiments.run(wrong, tmp_path, progress=False, backend="ray", address=cluster)
    log = tmp_path / "made/text/seed-1/log.txt"
    assert str(log) in str(caught.value)
    assert "Traceback" in log.read_text()
    assert not log.with_name(RECORD).exists()


@pytest.mark.slow
def test_stopped_runs_are_cancelled_and_what_is_finished_stays(cluster, tmp_path):
    endless = DESCRIPTION | {"epochs": 100_000, "models": ["text"]}
    endless["settings"] = DESCRIPTION["settings"] | {"patience": 100_000}
    supply = iter([*jobs_of(DESCRIPTION, tmp_path / "few")[:1], *jobs_of(endless, tmp_path / "endless")])
    said = []
    runs = RayPool(2, cluster).run(supply, lambda job, event: said.append((job.folder, event["event"])))
    first = next(runs)
    assert isinstance(first, Job)
    assert (first.folder, "epoch") in said
    runs.close()
    until(lambda: not performing(), "no process performs a run")
    assert [path.parent for path in tmp_path.rglob(RECORD)] == [first.folder]


@pytest.mark.slow
def test_a_second_address_is_refused(cluster, tmp_path):
    import ray

    ray.init(cluster, log_to_driver=False)
    try:
        with pytest.raises(StateError, match="connected to Ray already"):
            next(RayPool(1, cluster).run([], lambda job, event: None))
    finally:
        ray.shutdown()

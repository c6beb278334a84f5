"""No file makes its reader crash, run code, write elsewhere, take memory without bound or fail with a foreign
error."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from hypothesis import HealthCheck, Phase, given, settings

from mmiln.errors import InternalError, MmilnError

from .guard import bounded_memory, watched
from .mutate import DAMAGE, Damage, damaged, write
from .readers import READERS, Reader

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="limits memory by RLIMIT_AS and /proc"),
    # Said of damaged checkpoints, and of few utterances, in any case.
    pytest.mark.filterwarnings("ignore:(?s).*trying the one before", "ignore:corr is NaN"),
    pytest.mark.filterwarnings("ignore::mmiln.errors.DataWarning"),
]

INPUTS, SLOW_INPUTS = 300, 5_000  # for each reader


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names in a file must not be looked up on the network."""

    def refuse(*_: object, **__: object) -> None:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)


@pytest.mark.parametrize("name", READERS)
def test_what_the_corpus_holds_is_read(name: str, tmp_path: Path) -> None:
    """Otherwise mutations would not get far: write it anew by make_corpus.py."""
    for files in READERS[name].cases():
        write(tmp_path, files)
        for option in range(8):
            READERS[name].read(tmp_path, option)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_refused_or_read(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    wanted = request.config.getoption("--fuzz")
    fuzz(READERS[name], tmp_path, wanted or INPUTS, the_same=not wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_damaged_files_are_refused_or_read(name: str, tmp_path: Path) -> None:
    """The same files each time, so that a change fails by its own fault alone; ``make fuzz`` has others."""
    fuzz(READERS[name], tmp_path, SLOW_INPUTS, the_same=True)


def fuzz(reader: Reader, folder: Path, inputs: int, *, the_same: bool) -> None:
    """Reads ``inputs`` damaged cases; ``the_same`` in every run."""
    cases = reader.cases()
    for files in cases:  # what is imported, cached or compiled once, is so before anything is watched
        write(folder, files)
        reader.read(folder, 0)

    @settings(
        max_examples=inputs,
        derandomize=the_same,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(DAMAGE)
    def read(damage: Damage) -> None:
        files = damaged(cases[damage.case % len(cases)], reader.formats, damage)
        write(folder, reader.mend(files) if damage.mend else files)
        error = None
        with watched(folder):
            try:
                reader.read(folder, damage.option)
            except MmilnError as refusal:
                error = refusal
        assert not isinstance(error, InternalError)
        assert "MemoryError" not in str(error), "more memory was asked for than a small file may"

    with bounded_memory():
        read()

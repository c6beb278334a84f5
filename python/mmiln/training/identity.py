"""The identity of a training run: all that must be the same to resume its checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from ..config import differing, is_rate
from ..data import Split
from ..errors import StateError
from ..results.history import BEST_BY
from .learner import Learner
from .loaders import Loader, batches_of, source

# What, beside rates, a resumed run may change on request: its further course differs, but remains sound.
ADOPTABLE: Final = ("train.patience", "device", "mmiln", "torch")
# What checkpoints lack that were written before a run could have another value.
USUAL: Final = {
    "monitor": BEST_BY,
    "model.exclude_zero": True,
    "model.freeze_audio": False,
    "model.freeze_vision": False,
}


def identity(
    model: Learner, loader: Iterable[Any], valid: Loader, samples: int | None, monitor: str
) -> dict[str, Any]:
    """Config, data and versions of a run, flat, by name."""
    return {
        **{f"model.{name}": value for name, value in model.config.model.items()},
        **{f"train.{name}": value for name, value in model.config.train.items()},
        "dtype": model.dtype,
        "precision": model.precision,
        "device": model.device.partition(":")[0],
        "text_encoder": model.text_encoder_fingerprint(),
        "data.fingerprint": _fingerprint(loader),
        "valid.fingerprint of the validation part": _fingerprint(valid),
        "monitor": monitor,
        "data.samples": samples,
        "data.batches": batches_of(loader),
        "mmiln": version("mmiln"),
        "torch": release(torch.__version__),
    }


def release(installed: str) -> str:
    """A version of torch without the name of its build.

    >>> release("2.15.0+cu130")
    '2.15.0'
    """
    return installed.partition("+")[0]


def _fingerprint(loader: Loader) -> str | None:
    """The fingerprint of the :class:`Split` that a loader reads; ``None`` if it reads none."""
    dataset = source(loader)
    return dataset.fingerprint() if isinstance(dataset, Split) else None


def check_same(was: dict[str, Any], now: dict[str, Any], folder: Path, *, adopt: bool) -> None:
    """Refuses the checkpoints of another run; ``adopt`` permits other rates and what is ``ADOPTABLE``.

    Raises:
        StateError: Lists what differs.
    """
    was = {name: value for name, value in USUAL.items() if name in now} | was
    texts = {
        name: f"{name.partition('.')[2] or name} {before!r} (now {after!r})"
        for name, (before, after) in differing(was, now).items()
    }
    if not all(name in ADOPTABLE or is_rate(name.rpartition(".")[2]) for name in texts):
        raise StateError(
            f"the checkpoints in {folder} are of another run, with {', '.join(texts.values())}: "
            "name another folder, or delete them to begin anew"
        )
    if texts and not adopt:
        raise StateError(
            f'the checkpoints in {folder} are of a run with {", ".join(texts.values())}: resume="adopt" '
            "goes on with what is given now; or name another folder, or delete them to begin anew"
        )

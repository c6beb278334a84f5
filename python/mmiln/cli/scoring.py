"""The results of ``mmiln predict``: a table with a score an utterance, and a page about them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import files, pretrained
from ..auto import load_pretrained
from ..data import Split
from ..data.formats.sentences import Sentences
from ..data.names import MODALITIES
from ..errors import ConfigError, DataError
from ..model import Model
from ..pages.prediction_report import PredictionReport
from ..training.estimator import Estimator
from .options import STDIN, prepared

if TYPE_CHECKING:
    import pandas as pd

SCORE = "score"


def of_dataset(
    model: Path,
    data: str,
    split: str | None,
    labels: str | None,
    clamp: bool,
    target: str | None,
    missing: Any,
) -> tuple[pd.DataFrame, PredictionReport]:
    """The scores of a part of a dataset, and a page about them."""
    loaded, part = prepared(model, data, split, labels, clamp, target)
    where = f", {split}" if split else ""
    predictions = loaded.predict(part, missing=missing)
    lengths, unit = _lengths(part)
    report = PredictionReport(
        predictions,
        f"Predictions for {Path(data).name}{where}",
        _facts(loaded, pretrained.find(model), f"{data}{where}", part.fingerprint()),
        texts=part.raw_text,
        lengths=lengths,
        unit=unit,
    )
    return predictions.to_pandas(), report


def of_sentences(model: Path, data: str, column: str | None) -> tuple[pd.DataFrame, PredictionReport]:
    """The same for a CSV file of sentences, which keeps its columns, or for lines on standard input."""
    if data == STDIN:
        if column is not None:
            raise ConfigError("--column is for CSV files, and standard input has one sentence a line")
        sentences = Sentences.of_lines(sys.stdin.buffer.read())
    else:
        sentences = Sentences.of_csv(data, column)
    if SCORE in sentences.frame:
        raise DataError(f"{data} has a column {SCORE!r} already, which the scores would replace: rename it")
    model = pretrained.find(model)
    loaded = load_pretrained(model)
    _check_reads_sentences(loaded)
    source = "standard input" if data == STDIN else data
    batches = list(sentences.batches(loaded.config.train["batch_size"]))
    predictions = loaded.predict(batches)
    report = PredictionReport(
        predictions,
        f"Predictions for {Path(source).name}",
        _facts(loaded, model, source, sentences.fingerprint),
        texts=sentences.texts,
    )
    return sentences.frame.assign(**{SCORE: predictions.score}), report


def _lengths(part: Split) -> tuple[npt.NDArray[np.int64], str]:
    """Lengths of utterances and their unit: tokens, words where those are not known, or frames."""
    if "text" in part.sequences:
        return part.lengths("text"), "tokens"
    if part.raw_text is not None:
        return np.array([len(text.split()) for text in part.raw_text]), "words"
    return part.lengths(part.sequences[0]), f"frames of {part.sequences[0]}"


def _facts(model: Estimator, folder: Path, data: str, read: str) -> dict[str, str]:
    """The origin of a page's numbers: model and data."""
    kind = f"MMILN, {model.kind}" if isinstance(model, Model) else model.kind
    reads = ", ".join(name for name in MODALITIES if model.config.model[f"{name}_dim"])
    digest = files.sha256(folder / "model.safetensors")
    size = model.summary().total
    return {
        "model": f"{folder}: {kind}; reads {reads}; {size:,} parameters; SHA-256 {digest[:12]}",
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

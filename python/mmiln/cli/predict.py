"""``mmiln predict``: scores of a dataset's utterances or of sentences, as CSV, JSON or a page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
import typer

from .. import files
from ..auto import load_pretrained
from ..data import Split
from ..data.formats.sentences import Sentences
from ..data.split import MODALITIES
from ..errors import ConfigError, DataError
from ..model import Model
from ..pages.prediction_report import PredictionReport
from ..training.estimator import Estimator
from .options import Json, Saved, out, prepared

if TYPE_CHECKING:
    import pandas as pd

STDIN = "-"
SCORE = "score"


def predict(
    model: Saved,
    data: Annotated[
        str,
        typer.Option(
            help="A dataset: a pickle of MMSA's or MISA's format, a folder, or 'synthetic'. For a model of "
            "text alone also a CSV file with sentences, or - for sentences on standard input, one a line."
        ),
    ],
    split: Annotated[
        str | None, typer.Option(help="Which part of a dataset: train, valid or test; default test.")
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(help="The column of a CSV file with sentences; default text, raw_text or sentence."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--out", help="A CSV file; without it or --html, the screen.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="A page with scores and, where truth is known, plots.")
    ] = None,
    json_: Json = False,
) -> None:
    """Score utterances: a part of a dataset, or sentences. A CSV file keeps its columns and gets a score."""
    if data == STDIN or Path(data).suffix.lower() == ".csv":
        if split is not None:
            raise ConfigError(f"--split is for datasets, and {data} holds sentences: leave it out")
        frame, report = _sentences(model, data, column)
    else:
        if column is not None:
            raise ConfigError(f"--column is for CSV files, got {data}: leave it out")
        frame, report = _dataset(model, data, split or "test")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        files.write(output, lambda path: frame.to_csv(path, index=False))
    if html is not None:
        report.save(html)
    if json_:
        print(frame.to_json(orient="records"))
    elif output is None and html is None:
        print(frame.to_csv(index=False), end="")
    else:
        for path in (output, html):
            if path is not None:
                out.print(f"{len(frame)} scores: {path}", highlight=False)


def _dataset(model: Path, data: str, split: str) -> tuple[pd.DataFrame, PredictionReport]:
    loaded, part = prepared(model, data, split)
    predictions = loaded.predict(part)
    lengths, unit = _lengths(part)
    report = PredictionReport(
        predictions,
        f"Predictions for {Path(data).name}, {split}",
        _facts(loaded, model, f"{data}, {split}", part.fingerprint()),
        texts=part.raw_text,
        lengths=lengths,
        unit=unit,
    )
    return predictions.to_pandas(), report


def _sentences(model: Path, data: str, column: str | None) -> tuple[pd.DataFrame, PredictionReport]:
    if data == STDIN:
        if column is not None:
            raise ConfigError("--column is for CSV files, and standard input has one sentence a line")
        sentences = Sentences.of_lines(sys.stdin.buffer.read())
    else:
        sentences = Sentences.of_csv(data, column)
    if SCORE in sentences.frame:
        raise DataError(f"{data} has a column {SCORE!r} already, which the scores would replace: rename it")
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
    """How long utterances are, and in what: tokens, words where those are not known, or frames."""
    if "text" in part.sequences:
        return part.lengths("text"), "tokens"
    if part.raw_text is not None:
        return np.array([len(text.split()) for text in part.raw_text]), "words"
    return part.lengths(part.sequences[0]), f"frames of {part.sequences[0]}"


def _facts(model: Estimator, folder: Path, data: str, read: str) -> dict[str, str]:
    """What a page says of where its numbers come from."""
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

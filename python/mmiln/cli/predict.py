"""``mmiln predict``: scores of a dataset's utterances or of sentences, as CSV, JSON or a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .. import files
from ..errors import ConfigError
from .options import DATA, STDIN, Clamp, Json, Labels, Saved, Target, out


def predict(
    model: Saved,
    data: Annotated[
        str,
        typer.Option(
            help=f"{DATA} A CSV file without --split holds sentences, for a model of text alone, as does - "
            "(standard input, one a line)."
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(help="Which part of a dataset: train, valid or test; default test, or the only one."),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(help="The column of a CSV file with sentences; default text, raw_text or sentence."),
    ] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Of a folder of seeds: the mean of their scores.")
    ] = False,
    classes: Annotated[
        int | None,
        typer.Option(
            help="Adds each utterance's class, of 2, 5 or 7 (CH-SIMS: 2, 3 or 5), and how probable each is."
        ),
    ] = None,
    interval: Annotated[
        float | None,
        typer.Option(help="Adds an interval, low to high, that holds a label with this probability, as 0.9."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--out", help="A CSV file; without it or --html, the screen.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="A page with scores and, where truth is known, plots.")
    ] = None,
    labels: Labels = None,
    clamp: Clamp = False,
    target: Target = None,
    missing: Annotated[
        Literal["raise", "zeros"],
        typer.Option(help="If the data lack audio or vision that the model reads: raise, or give zeros."),
    ] = "raise",
    json_: Json = False,
) -> None:
    """Score utterances: a part of a dataset, or sentences. A CSV file keeps its columns and gets a score."""
    if data == STDIN and split is not None:
        raise ConfigError("--split is for datasets, and standard input holds sentences: leave it out")
    is_table = Path(data).suffix.lower() in (".csv", ".tsv")
    if column is not None and not (data == STDIN or (is_table and split is None)):
        raise ConfigError(f"--column is for CSV files, got {data}: leave it out")
    from . import scoring

    are_sentences = data == STDIN or (is_table and split is None and not scoring.has_features(Path(data)))
    sure = classes, interval
    if are_sentences:
        frame, report = scoring.of_sentences(model, data, column, ensemble, sure)
    else:
        frame, report = scoring.of_dataset(model, data, split, labels, clamp, target, missing, ensemble, sure)
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

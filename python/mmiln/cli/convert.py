"""``mmiln convert``: writes a dataset that opens in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.filesize import decimal

import mmiln

from .options import Clamp, Json, Labels, column_of, out, parsed_labels, print_json


def convert(
    source: Annotated[Path, typer.Argument(help="A pickle, a table, or a folder, as every --data takes it.")],
    target: Annotated[
        Path | None,
        typer.Argument(help="The directory to write. Default: beside the source, its name with .mmiln."),
    ] = None,
    nonfinite: Annotated[
        Literal["zero", "mean", "raise"],
        typer.Option(help="What becomes of NaN and infinities in true frames."),
    ] = "zero",
    seed: Annotated[
        int | None, typer.Option(help="Splits a single part by video with this seed; default: left whole.")
    ] = None,
    labels: Labels = None,
    clamp: Clamp = False,
    target_: Annotated[
        str | None,
        typer.Option(
            "--target", help="The label to learn where there are several: a column's number or a name."
        ),
    ] = None,
    align: Annotated[
        bool, typer.Option("--align", help="Align audio and vision by words; for folders of .csd files.")
    ] = False,
    text_bert: Annotated[
        bool,
        typer.Option(
            help="Whether to keep token ids; without them any text encoder tokenizes the sentences itself."
        ),
    ] = True,
    text_features: Annotated[
        str | None,
        typer.Option(
            help="A text encoder of transformers, by directory or hub name: what it computes of each "
            "sentence is stored as text.",
            metavar="MODEL",
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Write a dataset as a directory that opens in a moment.

    For data that is large compared with memory, such as CMU-MOSEI's pickles, which
    are streamed: true frames alone, as float32, in .npy files with checksums,
    compared with the source. Every --data takes the directory as it takes the
    source. An interrupted conversion goes on when the command is given again.
    """
    from ..data.formats.converted import Manifest

    target = target or source.with_suffix(".mmiln")
    dataset = mmiln.data.convert(
        source,
        target,
        nonfinite=nonfinite,
        seed=seed,
        labels=parsed_labels(labels),
        clamp=clamp,
        label=column_of(target_),
        align=align,
        text_bert=text_bert,
        text_features=text_features,
        progress=not json_,
    )
    manifest = Manifest.read(target)
    size = sum(file.size for file in manifest.files.values())
    was = sum(file.size for file in manifest.source.values())
    if json_:
        report = {
            "out": str(target),
            "bytes": size,
            "source_bytes": was,
            "splits": {name: len(split) for name, split in dataset.splits.items()},
            "fingerprint": dataset.fingerprint(),
            "notes": dataset.report.notes,
        }
        print_json(report)
        return
    out.print(dataset.describe())
    out.print(f"{target}: {decimal(size)}, from {decimal(was)}", highlight=False)

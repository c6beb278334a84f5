"""The ``mmiln`` command.

Help and errors of arguments must not wait for torch: these modules import nothing heavy at their top. A
command imports what it needs when it runs, mostly through ``mmiln.<name>``.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import mmiln

from .. import files
from ..errors import ConfigError, MmilnError
from . import experiment
from .convert import convert
from .options import (
    SAVED,
    Clamp,
    Data,
    Json,
    Labels,
    Saved,
    Target,
    err,
    load_data,
    opened,
    out,
    overrides,
    parsed_labels,
    prepared,
    print_json,
    seed_folders,
    shown,
)
from .predict import predict

app = typer.Typer(
    help="MMILN: multimodal sentiment analysis of text, audio and vision.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.add_typer(experiment.app, name="experiment")
app.command()(predict)
app.command()(convert)

Part = Annotated[
    str | None,
    typer.Option(
        help="Which part of the data: train, valid or test; default test, or the one that there is."
    ),
]


def main() -> None:
    """Runs the command; prints an error of mmiln's own as one sentence, and warnings, without code."""
    warnings.showwarning = _say
    try:
        app()
    except MmilnError as error:
        err.print(f"[bold red]error:[/] {type(error).__name__}:", end=" ")
        err.print(str(error), markup=False, highlight=False)
        sys.exit(1)


def _say(message: Warning | str, *_: Any, **__: Any) -> None:
    """Prints a warning to standard error."""
    err.print(f"warning: {message}", markup=False, highlight=False)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--out", help="Where results go.")] = Path("runs/demo"),
    epochs: Annotated[int, typer.Option(help="The largest number of epochs of a model.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of data and models.")] = 1111,
    json_: Json = False,
) -> None:
    """Train the full model and text alone on synthetic MOSI-shaped data; compare, save, predict."""
    from ..pages.tables import Table
    from ..results.seeds import SeedMetrics
    from . import demonstration

    result = demonstration.run(output, epochs=epochs, seed=seed, progress=not json_)
    if json_:
        print_json(result.to_dict())
        return
    title = f"Test part, {result.metrics['full'].n} utterances; epoch chosen on validation"
    table = SeedMetrics({name: {seed: metrics} for name, metrics in result.metrics.items()}).table()
    out.print(shown(replace(table, caption=title)))
    out.print(
        "No predictor that reads text alone can have a lower MAE on this part than about "
        f"{result.ceiling['text'].mae:.4f}; one that reads all three, {result.ceiling['full'].mae:.4f}."
    )
    for name, path in result.files.items():
        out.print(f"{name}: {path}", highlight=False)
    rows = tuple((said, f"{truth:+.1f}", f"{score:+.2f}") for said, truth, score in result.examples)
    out.print(shown(Table("The saved model, loaded again", ("said", "truth", "predicted"), rows)))


@app.command()
def train(
    data: Data = "synthetic",
    text_encoder: Annotated[
        str | None,
        typer.Option(help="A Hugging Face BERT or RoBERTa: directory or hub name. Default: text features."),
    ] = None,
    preset: Annotated[
        Literal["mosi", "mosi-mmsa", "mosei", "mosei-mmsa", "sims", "simsv2"],
        typer.Option(help="The hyper-parameters of a publication's code.", case_sensitive=False),
    ] = "mosi",
    seed: Annotated[list[int] | None, typer.Option(help="Seed of a run; repeatable; default 1111.")] = None,
    epochs: Annotated[int, typer.Option(help="The largest number of epochs.")] = 50,
    monitor: Annotated[
        str, typer.Option(help="The measure of validation that chooses the epoch, such as valid_corr.")
    ] = "valid_mae",
    standardize: Annotated[bool, typer.Option(help="Scale audio and vision by the train part.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Any config field; repeatable.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:<n>.")] = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where such a run was interrupted.")] = False,
    output: Annotated[Path, typer.Option("--out", help="Where results go, a folder a seed.")] = Path(
        "runs/train"
    ),
    labels: Labels = None,
    clamp: Clamp = False,
    target: Target = None,
    json_: Json = False,
) -> None:
    """Train one model a seed; report validation-selected test metrics, mean and deviation.

    On several cores, cards or machines: torchrun --nproc-per-node 2 -m mmiln train ...
    """
    from ..experiments import runs
    from ..results.seeds import SeedMetrics
    from ..training.ranks import is_first, restarted

    out.quiet = not is_first()
    among = parsed_labels(labels)
    arguments: dict[str, Any] = {"preset": preset, "text_encoder": text_encoder, "device": device}
    arguments |= overrides(settings or [])
    if "seed" in arguments:
        raise ConfigError("--seed gives the seeds, by which folders are named: leave out --set seed")
    mmiln.Model(**arguments)  # its errors come before the data are read
    dataset = load_data(data, standardize=standardize, seed=0, labels=among, clamp=clamp, target=target)
    if not json_:
        out.print(dataset.describe())
    parts: dict[str, dict[int, mmiln.Metrics]] = {}
    for one in dict.fromkeys(seed or [1111]):
        model = mmiln.Model(**arguments, seed=one)
        folder = output / f"seed-{one}"
        how: Literal["auto", False] = "auto" if resume or restarted() else False
        run = runs.train(
            dataset, model, folder, epochs=epochs, monitor=monitor, progress=not json_, resume=how
        )
        for part, metrics in run.metrics.items():
            parts.setdefault(part, {})[one] = metrics
            if not json_:
                out.print(f"seed {one} {part:>5}: {metrics}", highlight=False)
    if not is_first():
        return
    measured = SeedMetrics(parts)
    table = measured.table()
    by = "" if monitor == "valid_mae" else f" by {monitor}"
    table = replace(table, caption=f"{table.caption}; epoch chosen{by} on validation")
    summary = files.finite(measured.to_dict())
    files.write_json(output / "summary.json", summary)
    files.write_text(output / "summary.md", table.markdown() + "\n")
    if json_:
        print_json({"out": str(output), **summary})
        return
    out.print(shown(table))
    out.print(f"models, curves, predictions and this table: {output}", highlight=False)


@app.command()
def evaluate(
    model: Saved,
    data: Data,
    split: Part = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Of a folder of seeds: measure the mean of their scores, too.")
    ] = False,
    labels: Labels = None,
    clamp: Clamp = False,
    target: Target = None,
    json_: Json = False,
) -> None:
    """Measure a saved model, or those of several seeds, on a part of a dataset."""
    from ..results.seeds import SeedMetrics

    models = opened(model, ensemble=ensemble)
    name, parts = prepared(models, data, split, labels, clamp, target)
    if not (seeds := seed_folders(model)):
        ((folder, loaded),) = models.items()
        metrics = loaded.evaluate(parts[folder])
        if json_:
            print_json(metrics.to_dict())
        else:
            out.print(str(metrics), highlight=False)
        return
    predictions = {seed: models[path].predict(parts[path]) for seed, path in seeds.items()}
    measured = SeedMetrics.of({name: predictions}, ensemble=ensemble)
    if json_:
        print_json(measured.to_dict())
        return
    for seed, metrics in measured.parts[name].items():
        out.print(f"seed {seed} {name:>5}: {metrics}", highlight=False)
    out.print(shown(measured.table()))


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="A dataset, 'synthetic', or the directory of a saved model.")],
    check: Annotated[
        bool, typer.Option("--check", help="Compare the files of a converted dataset with their checksums.")
    ] = False,
    labels: Labels = None,
    clamp: Clamp = False,
    target: Target = None,
    json_: Json = False,
) -> None:
    """Say what a dataset or a saved model holds."""
    if check:
        mmiln.data.verify(path)
    if (Path(path) / "config.json").is_file():
        model = mmiln.load_pretrained(path)
        summary = model.summary()
        if json_:
            print_json({"config": model.config.to_dict(), "parameters": summary.parts})
        else:
            out.print(repr(model), highlight=False)
            out.print(str(summary), highlight=False)
        return
    dataset = load_data(path, labels=parsed_labels(labels), clamp=clamp, target=target)
    if json_:
        print_json(_described(dataset))
    else:
        out.print(dataset.describe())


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help=SAVED)],
    onnx: Annotated[Path, typer.Option("--onnx", help="The ONNX file to write.")],
) -> None:
    """Write a saved model as an ONNX file, for runtimes without PyTorch. Needs the extra onnx."""
    folder = mmiln.pretrained.find(model)
    loaded = mmiln.load_pretrained(folder)
    if not isinstance(loaded, mmiln.Model):
        raise ConfigError(f"only MMILN can be exported, and {model} holds the baseline {loaded.kind}")
    onnx.parent.mkdir(parents=True, exist_ok=True)
    mmiln.pytorch.save_onnx(loaded.to_torch(), onnx)
    if (folder / mmiln.data.standardizer.FILE).is_file():
        err.print(f"note: the file reads audio and vision that {mmiln.data.standardizer.FILE} has scaled")
    out.print(f"ONNX file: {onnx}", highlight=False)


def _described(dataset: mmiln.data.Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "widths": dataset.dims,
        "splits": {name: len(part) for name, part in dataset.splits.items()},
        "labels": dataset.label_range,
        "fingerprint": dataset.fingerprint(),
        "notes": dataset.report.notes,
    }

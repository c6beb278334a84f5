"""``mmiln experiment``: the paper's tables and figure, searches, case studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markdown import Markdown

import mmiln

from ..errors import ConfigError, MissingFileError
from ..files import write_text
from .options import Json, out, overrides

app = typer.Typer(
    help="Experiments of many runs: datasets x models x seeds, reports, searches, case studies.",
    no_args_is_help=True,
)

File = Annotated[str, typer.Argument(help="A TOML file, or the paper's table2, table3, figure4, controls.")]
Folder = Annotated[Path, typer.Argument(help="The folder of an experiment, or of mmiln train.")]
Jobs = Annotated[int, typer.Option(help="How many runs at a time.")]
Backend = Annotated[
    Literal["local", "ray"],
    typer.Option("--backend", help="local: processes of this machine; ray: machines of a Ray cluster."),
]
Address = Annotated[str | None, typer.Option(help="Address of the Ray cluster; default: this machine's.")]
Out = Annotated[Path | None, typer.Option("--out", help="Where results go; default runs/<name>.")]
Data = Annotated[str | None, typer.Option(help="Replaces the path of the experiment's one dataset.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Adds a setting of every model; repeatable."),
]


@app.command()
def run(
    file: File,
    data: Data = None,
    settings: Settings = None,
    seed: Annotated[list[int] | None, typer.Option(help="Replaces the seeds; repeatable.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Replaces the largest number of epochs.")] = None,
    jobs: Jobs = 1,
    backend: Backend = "local",
    address: Address = None,
    output: Out = None,
    json_: Json = False,
) -> None:
    """Run what is not finished yet, then write the report. Stop it at any time; the same command goes on."""
    description = _described(file, data, overrides(settings or []), key="datasets")
    if seed:
        description["seeds"] = seed
    if epochs is not None:
        description["epochs"] = epochs
    experiment = mmiln.experiments.Experiment.of(description)
    folder = output or Path("runs", experiment.name)
    result = mmiln.experiments.run(
        experiment, folder, jobs=jobs, progress=not json_, backend=backend, address=address
    )
    _show(result, folder, None, json_)


@app.command()
def report(
    folder: Folder,
    against: Annotated[
        str | None, typer.Option(help="Row that the others are compared with; default the first.")
    ] = None,
    json_: Json = False,
) -> None:
    """Tables of all finished runs; written as report.md, .tex, .html, .csv, and figures."""
    _show(mmiln.experiments.Report.read(folder), folder, against, json_)


@app.command()
def cases(
    folder: Folder,
    model: Annotated[str, typer.Option(help="Row of the model that is studied.")] = "full",
    against: Annotated[str, typer.Option(help="Row of the model it is compared with.")] = "text",
    dataset: Annotated[str | None, typer.Option(help="Its name, if there are several.")] = None,
    part: Annotated[str, typer.Option(help="train, valid or test; train has pseudo-labels.")] = "test",
    id_: Annotated[list[str] | None, typer.Option("--id", help="An utterance; repeatable.")] = None,
    n: Annotated[int, typer.Option("-n", help="How many are picked where none is named.")] = 6,
    flips: Annotated[
        bool, typer.Option("--flips", help="Pick where the model is right and the other has the wrong sign.")
    ] = False,
    json_: Json = False,
) -> None:
    """Table 4: utterances under two models that an experiment kept (keep_models = true)."""
    study = mmiln.experiments.cases(
        folder,
        model=model,
        against=against,
        dataset=dataset,
        part=part,
        ids=id_ or (),
        n=n,
        pick="flips" if flips else "disagreement",
    )
    if json_:
        print(json.dumps(study.to_dict()))
        return
    text = study.to_markdown()
    write_text(folder / "cases.md", text)
    out.print(Markdown(text))
    out.print(f"written: {folder / 'cases.md'}", highlight=False)


@app.command()
def search(
    file: Annotated[Path, typer.Argument(help="A TOML file with a dataset and a space.")],
    data: Annotated[str | None, typer.Option(help="Replaces the path of the dataset.")] = None,
    settings: Settings = None,
    trials: Annotated[int | None, typer.Option(help="Replaces the number of trials.")] = None,
    jobs: Jobs = 1,
    backend: Backend = "local",
    address: Address = None,
    output: Out = None,
    json_: Json = False,
) -> None:
    """Choose hyper-parameters by the validation MAE; the test part is not loaded."""
    description = _described(str(file), data, overrides(settings or []), key="dataset")
    if trials is not None:
        description["trials"] = trials
    wanted = mmiln.experiments.Search.of(description)
    folder = output or Path("runs", wanted.name)
    found = mmiln.experiments.search(
        wanted, folder, jobs=jobs, progress=not json_, backend=backend, address=address
    )
    if json_:
        print(json.dumps({"settings": found.settings, "valid_mae": found.mae, "out": str(folder)}))
        return
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in found.settings.items())
    out.print(f"lowest validation MAE of {len(found.trials)} trials: {found.mae:.4f}", highlight=False)
    out.print(f"for an experiment:\n[model_settings.{wanted.model}]\n{lines}", highlight=False, markup=False)
    out.print(f"all trials: {folder / 'trials.csv'}", highlight=False)


def _described(file: str, data: str | None, settings: dict[str, Any], *, key: str) -> dict[str, Any]:
    """The content of a TOML file or of one of the paper's, with the command line's replacements."""
    path, paper = Path(file), Path(__file__).parents[1] / "experiments" / "paper"
    if not path.is_file():
        path = paper / f"{file}.toml"
    if not path.is_file():
        names = ", ".join(sorted(known.stem for known in paper.iterdir()))
        raise MissingFileError(f"there is no file {file}, and the paper's experiments are {names}")
    description = mmiln.experiments.experiment.toml_description(path)
    if data is not None:
        sources = (
            [description.get(key)] if key == "dataset" else list(dict(description.get(key, {})).values())
        )
        if len(sources) != 1 or not isinstance(sources[0], dict):
            raise ConfigError("--data replaces the path of one dataset, and this file has not exactly one")
        sources[0]["path"] = data
    if settings:
        description["settings"] = {**description.get("settings", {}), **settings}
    return description


def _show(result: Any, folder: Path, against: str | None, json_: bool) -> None:
    written = result.save(folder, against)
    if json_:
        print(result.to_pandas().to_json(orient="records"))
        return
    out.print(Markdown(result.to_markdown(against)))
    for path in written:
        out.print(f"written: {path}", highlight=False)

"""Reports of runs that were written down by hand: averages, refusals, tables, figures."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmiln.errors import ConfigError, DataError, MissingFileError, ProtocolError
from mmiln.experiments import Experiment, Report
from mmiln.experiments.published import citation, published
from mmiln.experiments.runs import Protocol, Record, Row
from mmiln.pages.tables import Table
from mmiln.results.metrics import Metrics

N = 40
TRUTH = np.round(np.random.default_rng(0).uniform(-3, 3, N) * 5) / 5


def fake(
    folder: Path,
    model: str,
    seed: int,
    noise: float,
    *,
    fold: int | None = None,
    grid: dict | None = None,
    **change: object,
) -> Record:
    """A run's folder with scores that are the truth plus noise."""
    rng = np.random.default_rng([seed, int(100 * noise)])
    at = np.arange(N) if fold is None else np.arange(N)[fold::3]
    score = np.zeros(N) if model == "mean" else TRUTH + noise * rng.standard_normal(N)
    score = score.astype(np.float32)[at]
    grid = grid or {}
    name = ",".join([model, *(f"{field}={value}" for field, value in grid.items())])
    place = folder / "data" / name / f"seed-{seed}-{fold}"
    place.mkdir(parents=True)
    frame = pd.DataFrame({"part": "test", "id": [f"u{i}" for i in at], "label": TRUTH[at]}).assign(
        score=score
    )
    frame.to_csv(place / "predictions.csv", index=False)
    measures = Metrics.of(TRUTH[at], score).to_dict()
    fields: dict = {
        "row": Row(model=model, grid=grid),
        "dataset_name": "data",
        "fingerprint": "f" * 64,
        "sizes": {"train": 9, "valid": 5, "test": len(at)},
        "seed": seed,
        "fold": fold,
        "protocol": Protocol(epochs=3),
        "preset": "mosi",
        "config": {"alpha": 0.3, "patience": 8, "seed": seed},
        "text_encoder": None,
        "code": {"version": "0.1.0", "digest": "c" * 64},
        "machine": {"torch": "2.11.0", "processor": "one", "device": "cpu"},
        "best_epoch": 2,
        "history": {"valid_mae": [1.2, 1.0, 1.1], "seconds": [1.0, 1.5, 2.0]},
        "metrics": {"test": {k: None if np.isnan(v) else v for k, v in measures.items()}},
        "parameters": 12_345,
        "seconds": 4.5,
        "peak_memory_mib": 512.0,
        "finished": datetime.now(UTC),
    }
    record = Record(**(fields | change))
    record.write(place)
    return record


@pytest.fixture
def folder(tmp_path):
    for seed in (1, 2, 3):
        fake(tmp_path, "full", seed, 0.5)
        fake(tmp_path, "text", seed, 1.0)
    return tmp_path


def test_mean_deviation_and_range_are_those_of_the_predictions(folder):
    report = Report.read(folder)
    frame = report.to_pandas()
    assert len(frame) == 6
    text = frame[frame["model"] == "text"]
    for measure in ("mae", "corr", "has0_acc2", "non0_f1", "acc7"):
        row = report.summary().loc[("data", "text", measure)]
        values = text[measure]
        assert row.tolist() == pytest.approx(
            [3, values.mean(), values.std(), values.min(), values.max()], abs=1e-12
        )
        recorded = [
            Record.read(p.parent).metrics["test"][measure] for p in sorted(folder.rglob("text/*/run.json"))
        ]
        assert values.tolist() == pytest.approx(recorded)


def test_the_table_has_the_paper_s_layout(folder):
    report = Report.read(folder)
    table = report.tables()[0]
    scores = ("MAE", "Corr", "Acc-2 (%)", "F1 (%)", "Acc-7 (%)")
    assert table.columns == ("model", "seeds", *scores, "parameters", "s an epoch")
    frame = report.to_pandas().query("model == 'full'")
    name, seeds, mae, _, acc2, *_ = table.rows[0]
    assert (name, seeds) == ("full", "3")
    assert mae == f"{frame['mae'].mean():.3f} ± {frame['mae'].std():.3f}"
    has0, non0 = (100 * frame[m] for m in ("has0_acc2", "non0_acc2"))
    assert acc2 == f"{has0.mean():.2f} ± {has0.std():.2f} / {non0.mean():.2f} ± {non0.std():.2f}"


def test_one_seed_has_no_deviation(tmp_path):
    fake(tmp_path, "full", 1, 0.5)
    report = Report.read(tmp_path)
    assert "±" not in report.tables()[0].rows[0][2]
    assert len(report.tables()) == 3  # nothing to compare with
    assert np.isnan(report.summary().loc[("data", "full", "mae"), "std"])


@pytest.mark.filterwarnings("ignore:corr is NaN")
def test_a_constant_has_no_correlation(folder):
    """It also has no range of it and no interval of a difference."""
    for seed in (1, 2, 3):
        fake(folder, "mean", seed, 0.0)
    rows = [row for table in Report.read(folder).tables() for row in table.rows if row[0] == "mean"]
    scores, ranges, differences, _ = rows
    assert (scores[3], ranges[2], differences[2]) == ("–", "–", "–")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol": Protocol(epochs=9)}, "epochs: 3 and 9"),
        ({"protocol": Protocol(epochs=3, selection="test")}, "selection: 'valid' and 'test'"),
        ({"config": {"alpha": 0.9, "patience": 8, "seed": 4}}, "alpha: 0.3 and 0.9"),
        ({"config": {"patience": 8, "seed": 4}}, "alpha: 0.3 and None"),
        ({"text_encoder": "e" * 64}, "text encoder: None and 'ee"),
        ({"code": {"version": "0.2.0", "digest": "c" * 64}}, "mmiln: '0.1.0' and '0.2.0'"),
        (
            {"machine": {"torch": "2.12.0+cu130", "processor": "one", "device": "cpu"}},
            "torch: '2.11.0' and '2.12.0'",
        ),
        ({"fingerprint": "0" * 64}, "fingerprint of the data: 'ff"),
    ],
)
def test_runs_of_another_protocol_are_not_averaged(folder, change, said):
    fake(folder, "full", 4, 0.5, **change)
    with pytest.raises(ProtocolError, match=re.escape(said)) as caught:
        Report.read(folder)
    assert "seed-1-None" in str(caught.value)
    assert "seed-4-None" in str(caught.value)


def test_the_same_seed_twice_is_not_averaged(folder):
    fake(folder / "copy", "full", 2, 0.5)
    with pytest.raises(ProtocolError, match="runs of the same seed"):
        Report.read(folder)


def test_other_test_utterances_are_not_compared(folder):
    path = folder / "data/full/seed-2-None/predictions.csv"
    path.write_text(path.read_text().replace("u7,", "other,"))
    with pytest.raises(ProtocolError, match="seed 2 was not tested on the same utterances"):
        Report.read(folder).tables()


def test_a_row_that_was_selected_on_test_is_marked(folder):
    for seed in (1, 2):
        fake(folder, "no_mrm", seed, 0.4, protocol=Protocol(epochs=3, selection="test"))
    table = Report.read(folder).tables()[0]
    assert [row[0] for row in table.rows] == ["full", "no_mrm †", "text"]
    assert "† Epoch chosen on the test part" in table.caption


def test_folds_of_a_seed_are_measured_together(tmp_path):
    protocol = Protocol(epochs=3, folds=3)
    for seed in (1, 2):
        for fold in range(3):
            fake(tmp_path, "full", seed, 0.5, fold=fold, protocol=protocol)
    frame = Report.read(tmp_path).to_pandas()
    assert frame["seed"].tolist() == [1, 2]
    score = pd.concat(pd.read_csv(p) for p in tmp_path.rglob("seed-1-*/predictions.csv"))
    assert frame["mae"][0] == pytest.approx(Metrics.of(score["label"], score["score"]).mae)


def test_comparisons_name_row_and_base(folder):
    report = Report.read(folder)
    found = report.compare("text", "full")
    assert found.differences["mae"].low > 0
    table = report.tables()[2]
    assert "the row minus full" in table.caption
    (row,) = table.rows
    assert row[0] == "text"
    d = found.differences["mae"]
    assert row[1] == f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
    assert "the row minus text" in report.tables("text")[2].caption
    with pytest.raises(ConfigError, match="name a row of 'full', 'text'; got 'nothing'"):
        report.tables("nothing")
    with pytest.raises(ConfigError, match="name a dataset of data; got 'elsewhere'"):
        report.compare("text", "full", "elsewhere")


def test_published_scores_have_a_table_of_their_own(folder):
    experiment = Experiment.of(
        {
            "name": "x", "models": ["full", "text"], "seeds": [1, 2, 3],
            "datasets": {"data": {"path": "synthetic", "published": "mosi"}},
        }
    )  # fmt: skip
    groups = Report.read(folder).groups
    measured, *_, table = Report("x", groups, experiment).tables()
    assert [row[0] for row in measured.rows] == ["full", "text"]
    assert table.columns == ("model", "MAE", "Corr", "Acc-2 (%)", "F1 (%)", "Acc-7 (%)")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["self_mm [mmsa]"] == ("0.724", "0.789", "83.00 / 84.82", "83.05 / 84.81", "46.07")
    assert citation("mmsa") in table.caption
    assert "published, not measured here" in table.caption
    assert all(citation(entry.source) for name in ("mosi", "mosei") for entry in published(name).values())
    summary = Report("x", groups, experiment).summary()
    assert set(summary.index.get_level_values("row")) == {"full", "text"}


def test_pages_in_markdown_latex_and_html(folder):
    for layers in (1, 2, 3):
        for seed in (1, 2):
            fake(folder, "deep", seed, 1.0 / layers, grid={"num_layers": layers})
    report = Report.read(folder)
    written = report.save(folder)
    assert {path.name for path in written} == {
        "report.md", "report.tex", "report.html", "report.csv", "figure4-data.png", "figure4-data.pdf",
        "mae-data.png", "mae-data.pdf",
    }  # fmt: skip
    markdown = (folder / "report.md").read_text()
    assert "| deep, num_layers=3 |" in markdown
    assert "![data: measures by number of fusion layers](figure4-data.png)" in markdown
    assert "![data: test MAE of each row](mae-data.png)" in markdown
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    assert max(map(len, tables)) <= 80
    latex = (folder / "report.tex").read_text()
    assert latex.count("\\begin{table}") == latex.count("\\end{table}") == 4
    assert "deep, num\\_layers=1" in latex
    assert "95\\% interval" in latex
    page = (folder / "report.html").read_text()
    assert page.count("<table>") == markdown.count("|\n|:--") == 11
    assert '<img src="figure4-data.png"' in page
    assert len(pd.read_csv(folder / "report.csv")) == 12
    assert "<caption>" in report._repr_html_()
    first = {path.name: path.read_bytes() for path in written}
    report.save(folder)
    assert {path.name: path.read_bytes() for path in written} == first


def test_a_wide_table_is_continued_below_with_the_names_of_its_rows():
    rows = (("one | two", "a" * 30, "b" * 30, "c" * 90, "d"), ("three", "", "", "", "e"))
    table = Table("All.", ("model", "first", "second", "third", "fourth"), rows)
    assert table.markdown().count("|:--") == table.html().count("<table>") == 1
    *grids, caption = table.markdown(80).split("\n\n")
    assert caption == "All."
    headings = [[cell.strip() for cell in grid.split("\n")[0].strip("|").split("|")] for grid in grids]
    assert headings == [["model", "first", "second"], ["model", "third"], ["model", "fourth"]]
    assert all(grid.split("\n")[2].startswith(r"| one \| two |") for grid in grids)
    assert table.html(80).count("<table>") == 3
    assert table.html(80).count("<caption>") == 1
    assert table.latex().count("tabular") == 2  # whole


@pytest.mark.parametrize(
    ("path", "title"), [("files/mosi.pkl", "data (mosi.pkl)"), ("files/data.pkl", "data")]
)
def test_a_section_has_the_name_of_the_file(folder, path, title):
    experiment = Experiment.of({"name": "x", "models": ["full"], "datasets": {"data": {"path": path}}})
    markdown = Report("x", Report.read(folder).groups, experiment).to_markdown()
    assert re.findall("^## (.*)", markdown, re.MULTILINE) == [title]
    for caption in ("test part", "lowest and", "the row minus full", "what the runs", "MAE in"):
        assert f"\n{title}: {caption}" in markdown


@pytest.mark.parametrize(
    ("seeds", "said"),
    [((1,), ("- 1 run; seed 1\n", "one seed,")), ((1, 2), ("- 2 runs; seeds 1, 2\n", "over seeds,"))],
)
def test_one_is_not_called_many(tmp_path, seeds, said):
    for seed in seeds:
        fake(tmp_path, "full", seed, 0.5, protocol=Protocol(epochs=1))
    markdown = Report.read(tmp_path).to_markdown()
    assert all(text in markdown for text in (*said, "at most 1 epoch,"))


def test_a_figure_shows_each_row_s_seeds_and_its_difference(folder):
    report = Report.read(folder)
    left, right = report.figures_of_rows()["data"].axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["full", "text"]
    seeds, mean = left.get_lines()[2:4]
    mae = report.to_pandas().query("model == 'text'")["mae"]
    assert seeds.get_xdata().tolist() == pytest.approx(mae.tolist())
    assert mean.get_xdata().tolist() == pytest.approx([mae.mean()])
    found = report.compare("text", "full").differences["mae"]
    _, interval, value = right.get_lines()
    assert interval.get_xdata().tolist() == [found.low, found.high]
    assert interval.get_ydata().tolist() == [1, 1]
    assert value.get_xdata().tolist() == [found.value]
    assert found.separated
    assert value.get_color() != left.get_lines()[0].get_color()  # orange, not blue
    against = report.figures_of_rows("text")["data"].axes[1]
    assert against.get_xlabel() == "MAE minus that of text, 95% interval"


def test_the_figure_shows_mean_and_deviation_over_depth(tmp_path):
    for layers in (1, 2, 4):
        for seed in (1, 2, 3):
            fake(tmp_path, "full", seed, 1.0 / layers, grid={"num_layers": layers})
    report = Report.read(tmp_path)
    figure = report.figures()["data"]
    left, right = figure.axes
    assert left.get_ylabel() == "MAE (sentiment points)"
    assert right.get_ylabel() == "Acc-2 (%)"
    line = left.containers[0]
    summary = report.summary().xs("mae", level="measure")
    assert line.lines[0].get_xdata().tolist() == [1, 2, 4]
    assert line.lines[0].get_ydata().tolist() == pytest.approx(summary["mean"].tolist())
    low = [segment[0, 1] for segment in line.lines[2][0].get_segments()]
    assert low == pytest.approx((summary["mean"] - summary["std"]).tolist())
    assert len(right.containers) == 2  # has0 and non0


SIMS = {"label_range": (-1, 1)}


@pytest.fixture
def sims(tmp_path, monkeypatch):
    """Runs on labels in [-1, 1]."""
    monkeypatch.setattr("experiments.test_report.TRUTH", TRUTH / 3)
    for seed in (1, 2, 3):
        for layers in (1, 2):
            fake(tmp_path, "full", seed, 0.1 * layers, grid={"num_layers": layers}, **SIMS)
    return tmp_path


def test_tables_of_ch_sims_have_its_measures(sims):
    report = Report.read(sims)
    scores = ("MAE", "Corr", "Acc-2 (%)", "Acc-3 (%)", "Acc-5 (%)", "F1 (%)")
    results, ranges, differences, _ = report.tables()
    assert results.columns == ("model", "seeds", *scores, "parameters", "s an epoch")
    assert "has0" not in results.caption + differences.caption
    assert ranges.columns == ("model", *scores)
    frame = report.to_pandas()
    measures = ["acc2", "acc3", "acc5", "f1", "mae", "corr"]
    assert frame.columns.tolist()[-6:] == measures
    assert frame[measures].notna().all(axis=None)
    score = pd.read_csv(sims / "data/full,num_layers=1/seed-1-None/predictions.csv")
    expected = Metrics.of(score["label"], score["score"], (-1, 1)).to_dict()
    assert frame.iloc[0][measures].to_dict() == pytest.approx({m: expected[m] for m in measures})
    assert differences.columns == ("model", *scores[:3], "McNemar p")
    assert "test on acc2, a test a seed" in differences.caption
    first, second = report.groups["data"]
    found = report.compare(str(first), str(second))
    assert list(found.mcnemar) == ["acc2"]
    assert list(found.differences) == measures
    left, right = report.figures()["data"].axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("MAE (sentiment points)", "Acc-2 (%)")
    assert len(right.containers) == 1


def test_runs_on_other_ranges_of_labels_stand_in_no_table(folder):
    fake(folder, "no_mrm", 1, 0.5, **SIMS)
    with pytest.raises(ProtocolError, match="range of the labels"):
        Report.read(folder)


def test_how_near_pseudo_labels_came_to_human_ones_has_a_table(folder):
    for seed in (1, 2):
        history = {"seconds": [1.0] * 3, "pseudo_mae_audio": [0.9, 0.1 * seed, 0.7]}
        history["pseudo_corr_audio"] = [None, None, 0.5]
        fake(folder, "no_mrm", seed, 0.4, history=history)
    tables = Report.read(folder).tables()
    assert len(tables) == 5
    table = tables[-1]
    assert table.columns == ("model", "MAE, audio", "MAE, vision", "Corr, audio", "Corr, vision")
    assert table.rows == (("no_mrm", "0.150 ± 0.071", "–", "–", "–"),)  # of epoch 2, which was chosen


def test_a_record_of_before_is_of_cmu_mosi(folder):
    path = folder / "data/full/seed-1-None/run.json"
    fields = json.loads(path.read_text())
    del fields["label_range"]
    path.write_text(json.dumps(fields))
    assert "acc7" in Report.read(folder).to_pandas()
    path.write_text(json.dumps(fields | {"label_range": [1, 1]}))
    with pytest.raises(DataError, match="expected a range of labels"):
        Report.read(folder)


def test_other_machines_and_builds_are_noted(folder):
    fake(
        folder,
        "full",
        4,
        0.5,
        code={"version": "0.1.0", "digest": "d" * 64},
        machine={"torch": "2.11.0+cpu", "processor": "two", "device": "cpu"},
    )
    text = Report.read(folder).to_markdown()
    assert "The runs come from 2 machines." in text
    assert "The runs come from 2 builds of the code." in text


def test_a_damaged_folder_is_told(folder, tmp_path_factory):
    with pytest.raises(MissingFileError, match="no finished run"):
        Report.read(tmp_path_factory.mktemp("empty"))
    run = folder / "data/full/seed-1-None"
    text = (run / "predictions.csv").read_text()
    (run / "predictions.csv").write_text("\n".join(text.splitlines()[:-1]))
    with pytest.raises(DataError, match="has 39 utterances of the test part, its record says 40"):
        Report.read(folder).to_pandas()
    (run / "predictions.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="is no table of predictions"):
        Report.read(folder).to_pandas()
    (run / "predictions.csv").unlink()
    with pytest.raises(MissingFileError, match=r"delete its run\.json"):
        Report.read(folder).to_pandas()
    (run / "run.json").write_text('{"format": 1')
    with pytest.raises(DataError, match="is no record of a run"):
        Report.read(folder)
    (run / "run.json").write_text('{"format": 1, "surprise": 2}')
    with pytest.raises(DataError, match="is no record of a run"):
        Report.read(folder)


def test_ids_that_occur_twice_are_kept_apart(folder):
    for path in folder.rglob("predictions.csv"):
        path.write_text(path.read_text().replace(",u7,", ",u8,"))
    report = Report.read(folder)
    assert len(next(iter(report.groups["data"].values())).scores.id) == N
    assert len(report.to_pandas()) == 6

"""What notebooks show: well-formed, escaped, and right."""

import copy
import math
import warnings
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from sklearn.base import BaseEstimator

import mmiln
from mmiln import History, Metrics, Predictions
from mmiln.baselines import Baseline
from mmiln.data import Dataset, Split
from mmiln.pages import html
from mmiln.sklearn import Regressor

HOSTILE = "<script>alert('&')</script>\x00\u202e"
TINY = {"num_layers": 1, "d_model": 8, "num_heads": 2}


def parsed(shown: Any) -> ElementTree.Element:
    """The tree of an object's HTML; what is not well-formed is refused."""
    markup = shown if isinstance(shown, str) else shown._repr_html_()
    tree = ElementTree.fromstring(f"<main>{markup}</main>")
    assert not tree.findall(".//script")
    return tree


def words(tree: ElementTree.Element) -> str:
    return " ".join(tree.itertext())


def cells(tree: ElementTree.Element, table: int = 0) -> list[list[str]]:
    rows = tree.findall(".//table")[table].findall(".//tr")
    return [["".join(cell.itertext()) for cell in row] for row in rows]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return mmiln.data.synthetic(24, 8, 8)


@pytest.fixture(scope="module")
def fitted(data: Dataset) -> mmiln.Model:
    model = mmiln.Model("mosi", **TINY, seed=1)
    model.fit(data.train, data.valid, epochs=3, progress=False)
    return model


@pytest.fixture
def hostile() -> Dataset:
    frames = {"audio": [np.ones((2, 3), np.float32)] * 3}
    parts = [
        Split([f"{HOSTILE}{n}{place}" for place in range(3)], np.array([-3.0, 0.0, 1.5]), **frames)
        for n in range(2)
    ]
    dataset = Dataset(*parts, name=HOSTILE)
    dataset.report.add(f"{HOSTILE} was cleaned.")
    return dataset


def test_ids_of_users_stay_text(hostile):
    label = np.array([1.0, -1.0, 2.0], np.float32)
    predictions = Predictions(label + 1, hostile.train.id, np.arange(3), label)
    for shown in (hostile, hostile.describe(), hostile.train, predictions):
        tree = parsed(shown)
        assert "\x00" not in words(tree)
        assert "\u202e" not in words(tree)
    assert "<script>alert('&')</script>\\x00\\u202e00" in words(parsed(predictions))
    assert HOSTILE.rstrip("\x00\u202e") in words(parsed(hostile.describe()))


def test_what_is_long_is_cut():
    (row,) = cells(parsed(html.table([""], [["x" * 5000]])))[1:]
    assert row == ["x" * 59 + "…"]


def test_a_history_has_curves_and_values(fitted):
    history = copy.copy(fitted.history_)
    tree = parsed(history)
    assert len(tree.findall(".//polyline")) == 2
    points = [tuple(map(float, p.split(","))) for p in tree.find(".//polyline").get("points").split()]
    loss = history["train_total"]

    def text(name, value):
        return f"{value:.2%}" if name.endswith(("acc2", "acc5", "acc7", "f1")) else f"{value:.4f}"

    assert [y for _, y in points].index(min(y for _, y in points)) == int(np.argmax(loss))  # y points down
    assert [x for x, _ in points] == pytest.approx([4, 160, 316])
    for best, header in ((2, ["", "best epoch, 2", "last epoch, 3"]), (3, ["", "best and last epoch, 3"])):
        history.best_epoch = best
        shares = {
            "valid_" + name for name in ("has0_acc2", "non0_acc2", "has0_f1", "non0_f1", "acc5", "acc7")
        }
        rows = [
            [f"{name} (%)", *(f"{100 * values[e - 1]:.2f}" for e in sorted({best, 3}))]
            if name in shares
            else [name, *(f"{values[e - 1]:.4f}" for e in sorted({best, 3}))]
            for name, values in history.items()
        ]
        assert cells(parsed(history)) == [header, *rows]


def test_histories_at_the_edges():
    assert "no epoch" in words(parsed(History()))
    one = History({"train_total": [2.0]})
    assert cells(parsed(one)) == [["", "last epoch, 1"], ["train_total", "2.0000"]]
    odd = History({"valid_mae": [1.0, 1.0, math.nan], "valid_corr": [math.nan] * 3})
    odd.best_epoch = 1
    tree = parsed(odd)
    assert "nan" not in ElementTree.tostring(tree, encoding="unicode")
    assert cells(tree)[2] == ["valid_corr", "–", "–"]
    parsed(History({"something": [1.0]}))


def test_metrics_are_a_row():
    metrics = Metrics.of([-1.0, 0.0, 2.0, 1.0], [-0.5, 0.5, 1.5, -0.1])
    header, row = cells(parsed(metrics))
    values = dict(zip(header, row, strict=True))
    assert values["n"] == "4"
    assert values["MAE"] == f"{metrics.mae:.4f}"
    assert values["Acc-2 (%)"] == f"{100 * metrics.has0_acc2:.2f} / {100 * metrics.non0_acc2:.2f}"
    sims = Metrics.of([-1.0, 0.0, 0.4], [-0.5, 0.5, 0.6], (-1, 1))
    assert cells(parsed(sims))[0] == [
        "n", "MAE", "Corr", "Acc-2 (%)", "Acc-3 (%)", "Acc-5 (%)", "F1 (%)",
    ]  # fmt: skip
    with warnings.catch_warnings(action="ignore"):
        constant = Metrics.of([0.0, 0.0], [1.0, 1.0])
    assert "nan" not in words(parsed(constant))


def test_the_worst_predictions_are_shown():
    label = np.arange(8, dtype=np.float32) / 4
    error = np.array([0.1, -2.0, 0.0, 0.5, -0.2, 0.3, 0.0108, 1.0], np.float32)
    predictions = Predictions(label + error, [f"u{n}" for n in range(8)], None, label)
    header, *rows = cells(parsed(predictions))
    assert header == ["id", "label", "score", "error"]
    assert [row[0] for row in rows] == ["u1", "u7", "u3", "u5", "u4"]
    assert rows[0][1:] == ["0.25", "-1.75", "-2.00"]
    assert repr(predictions) == "Predictions(8 scores, mean 0.8388, MAE 0.5138; id, label)"
    alone = Predictions(label)
    assert cells(parsed(alone))[0] == ["score"]
    assert "The first 5 of 8" in words(parsed(alone))
    assert repr(alone) == "Predictions(8 scores, mean 0.875; scores alone)"


def test_data_sets_are_tables(data):
    tree = parsed(data)
    assert [row[0] for row in cells(tree)] == ["split", "train", "valid", "test"]
    assert cells(tree)[1][1] == "24"
    lengths = data.train.lengths("audio")
    assert ["train", "audio", f"{lengths.mean():.1f}"] == cells(tree, 1)[2][:3]
    assert data.report.notes[0] in words(tree)
    assert cells(parsed(data.train))[1][2:] == cells(tree)[1][2:]


def test_a_description_as_text_shows_nothing_on_the_side(data, monkeypatch):
    """Within Jupyter, rich displays what it prints, and an empty output where it captures."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", lambda *_: pytest.fail("rich displayed"))
    assert "True lengths" in str(data.describe())


@pytest.mark.parametrize("build", [lambda: mmiln.Model("mosi", **TINY), lambda: Baseline("lmf", "mosi")])
def test_models_say_what_they_are(build, data):
    model = build()
    assert "No weights yet" in words(parsed(model))
    model.fit(data.train, data.valid, epochs=1, progress=False)
    tree = parsed(model)
    assert repr(model) in words(tree)
    assert "Epochs trained: 1; weights of epoch: 1" in words(tree)
    assert cells(tree)[-1][:2] == ["total", f"{model.summary().total:,}"]
    assert cells(parsed(model.summary())) == cells(tree)


def test_a_summary_says_what_is_frozen():
    summary = mmiln.Summary(
        {"text.bert": 10, "text.conv": 4, "heads.audio": 6}, {"text.bert": 10, "text.conv": 1}
    )
    assert [row[2] for row in cells(parsed(summary))[1:]] == ["frozen", "3 trainable", "trainable", ""]


def test_a_regressor_is_shown_by_scikit_learn(fitted):
    regressor = Regressor(fitted)
    assert isinstance(regressor, BaseEstimator)
    assert "Regressor" in regressor._repr_html_()

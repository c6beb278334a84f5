"""The page on predictions: whole, escaped, in need of nothing else."""

import base64
import re
import struct

import numpy as np
import pytest

from mmiln import Metrics, Predictions
from mmiln.labels import SIMS, LabelRange
from mmiln.pages.prediction_report import WORST, PredictionReport
from support.page import Page


@pytest.fixture(scope="module")
def predictions():
    rng = np.random.default_rng(0)
    label = rng.integers(-15, 16, 60) / 5
    score = (label + rng.normal(0, 0.8, 60)).astype(np.float32)
    return Predictions(score, [f"v{i}$_${i}" for i in range(60)], np.arange(60), label.astype(np.float32))


@pytest.fixture(scope="module")
def report(predictions):
    texts = [f"sentence {i}" for i in range(60)]
    texts[7] = '</script><script>alert("so & so")</script>'
    facts = {"model": "<b>runs</b>"}
    return PredictionReport(predictions, "Some & more", facts, texts, np.arange(60) % 13 + 1)


@pytest.fixture(scope="module")
def html(report):
    return report.to_html()


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_measures_are_those_of_the_predictions(page, predictions):
    found = Metrics.of(predictions.label, predictions.score)
    shown = dict(page.tables["measures"])
    assert float(shown["MAE (sentiment points)"]) == pytest.approx(found.mae, abs=5e-5)
    assert float(shown["Acc-7 (%)"]) == pytest.approx(100 * found.acc7, abs=5e-3)
    assert len(shown) == 8


def test_measures_of_ch_sims(predictions):
    own = Predictions(predictions.score / 3, label=predictions.label / 3, label_range=SIMS)
    html = PredictionReport(own, "x", {}).to_html()
    shown = dict(Page(html).tables["measures"])
    assert list(shown) == ["MAE (sentiment points)", "Corr", "Acc-2 (%)", "Acc-3 (%)", "Acc-5 (%)", "F1 (%)"]
    found = Metrics.of(own.label, own.score, SIMS)
    assert float(shown["Acc-3 (%)"]) == pytest.approx(100 * found.acc3, abs=5e-3)
    assert "Scores are clipped to [-1, 1]" in html
    assert "has0" not in html


def test_the_neutral_score_is_that_of_the_range(predictions):
    own = Predictions(
        3 + predictions.score / 2, label=3 + predictions.label / 2, label_range=LabelRange(1, 5)
    )
    assert "3 counts as positive" in PredictionReport(own, "x", {}).to_html()


def test_tables_hold_every_utterance_and_the_worst(page, predictions, report):
    header, *rows = page.tables["all"]
    assert header == ["id", "predicted", "true", "error", "text"]
    assert [row[0] for row in rows] == predictions.id
    assert [row[4] for row in rows] == report.texts
    assert [float(row[1]) for row in rows] == pytest.approx(predictions.score, abs=0.0051)
    error = predictions.score - predictions.label
    assert [float(row[3]) for row in rows] == pytest.approx(error, abs=0.0051)
    order = np.argsort(-np.abs(error.astype(float)), kind="stable")[:WORST]
    assert [row[0] for row in page.tables["worst"][1:]] == [predictions.id[i] for i in order]


def test_everything_is_escaped_and_inside(page, html):
    assert page.title == "Some & more"
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 1
    assert "b" not in tags
    for _, attrs in page.tags:
        for name in ("src", "srcset", "href", "action"):
            assert attrs.get(name, "data:").startswith("data:")
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert not re.search(r"https?://", html)


def test_pictures_are_drawn_for_light_and_dark_pages(page):
    light = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    dark = [attrs["srcset"] for tag, attrs in page.tags if tag == "source"]
    assert len(light) == len(dark) == 3
    assert len({*light, *dark}) == 6
    for uri in (*light, *dark):
        data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
        assert data.startswith(b"\x89PNG")
        assert struct.unpack(">II", data[16:24]) == (720, 576)
    captions = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert captions[2] == "Absolute error by length in tokens"


def test_without_labels_there_are_scores_alone(predictions):
    page = Page(PredictionReport(Predictions(predictions.score), "Scores", {}).to_html())
    assert list(page.tables) == ["all"]
    assert page.tables["all"][0] == ["line", "predicted"]
    assert page.tables["all"][1][0] == "1"
    assert not any(tag == "img" for tag, _ in page.tags)

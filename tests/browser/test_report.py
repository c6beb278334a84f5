"""Pages in a real browser: that on predictions sorts and filters; all are quiet and fit their screens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mmiln import Predictions
from mmiln.pages import tables
from mmiln.pages.prediction_report import PredictionReport

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

LABELS = np.array([2.0, -1.0, 0.0, -3.0, 1.0, 2.0], np.float32)
SCORES = np.array([1.5, -0.25, 0.125, -3.5, 10.0, -2.0], np.float32)
IDS = [f"clip$_${i}" for i in (10, 9, 8, 1, 2, 3)]
TEXTS = ["so good", "bad", "the <b>film</b>", "so so bad", "it's", "Good?"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    PredictionReport(Predictions(SCORES, IDS, None, LABELS), "Six", {}, TEXTS, np.arange(6) + 2).save(path)
    return path


def shown(page: Page, column: int) -> list[str]:
    """The contents of a column in the visible rows."""
    return page.locator(f"#all tbody tr:visible td:nth-child({column})").all_inner_texts()


def test_rows_are_sorted_and_filtered(page: Page, path: Path) -> None:
    page.goto(path.as_uri())
    assert shown(page, 1) == IDS
    by_score = page.get_by_role("button", name="predicted")
    by_score.click()
    assert [float(score) for score in shown(page, 2)] == pytest.approx(np.sort(SCORES), abs=0.006)
    assert page.get_by_role("columnheader", name="predicted").last.get_attribute("aria-sort") == "ascending"
    by_score.click()
    assert [float(score) for score in shown(page, 2)] == pytest.approx(np.sort(SCORES)[::-1], abs=0.006)
    page.get_by_role("button", name="id").press("Enter")
    assert shown(page, 1) == [f"clip$_${i}" for i in (1, 2, 3, 8, 9, 10)]  # as numbers
    assert page.locator("#all th[aria-sort]").all_inner_texts() == ["id"]

    page.get_by_label("Show those that contain").fill("GOOD")
    assert shown(page, 5) == ["Good?", "so good"]
    assert page.get_by_role("status").inner_text() == "2 of 6"
    page.get_by_role("button", name="error").click()
    page.get_by_role("button", name="error").click()
    assert shown(page, 5) == ["so good", "Good?"]
    page.get_by_label("Show those that contain").fill("nobody said this")
    assert shown(page, 1) == []
    page.get_by_label("Show those that contain").fill("")
    assert len(shown(page, 1)) == 6
    assert "the <b>film</b>" in shown(page, 5)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_quiet_alone_and_fits_a_phone(page: Page, path: Path, scheme: str, screenshots: Path) -> None:
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(path.as_uri())
    page.wait_for_function("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    drawn = page.evaluate("[...document.images].map((image) => image.currentSrc)")
    sources = page.locator("source").evaluate_all("all => all.map((source) => source.srcset)")
    assert (drawn == sources) == (scheme == "dark")
    colour = page.evaluate("getComputedStyle(document.body).color")
    assert colour == ("rgb(255, 255, 255)" if scheme == "dark" else "rgb(0, 0, 0)")
    page.screenshot(path=screenshots / f"report-{scheme}.png", full_page=True)


@pytest.mark.parametrize("width", [390, 900, 1200])
def test_a_report_of_an_experiment_is_no_wider_than_the_screen(
    page: Page, tmp_path: Path, width: int, screenshots: Path
) -> None:
    columns = ("model", *(f"{measure} (%)" for measure in ("Acc-2", "F1", "Acc-7", "Acc-5")))
    row = ("no_gate_fusion, num_layers=3", *["78.95 ± 0.53 / 80.46 ± 0.46"] * 4)
    path = tmp_path / "report.html"
    path.write_text(
        tables.page(tables.Table("All.", columns, (row,) * 3).markdown(80), "Wide"), encoding="utf-8"
    )
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    scroll = "all => all.map((table) => table.scrollWidth - table.clientWidth)"
    beyond = page.locator("table").evaluate_all(scroll)
    assert len(beyond) == 4
    assert max(beyond) == 0 or width < 900  # on a phone a wide table scrolls by itself
    page.screenshot(path=screenshots / f"tables-{width}.png", full_page=True)

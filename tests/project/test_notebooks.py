"""Notebooks need no file beside them, and what they copy from docs/results is what stands there."""

import ast
import json
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code(notebook: Path) -> list[str]:
    """The sources of a notebook's code cells."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_file_beside_it_is_read(notebook):
    """`make notebooks` runs them from a copy."""
    assert not [cell for cell in code(notebook) if "../" in cell or "docs/" in cell]


def test_copied_results_are_those_of_the_reports():
    cells = code(ROOT / "notebooks" / "04_paper_experiments.ipynb")
    (source,) = (cell for cell in cells if cell.startswith("measured = "))
    copied = ast.literal_eval(source.partition("}\nfigure")[0].removeprefix("measured = ") + "}")
    for name, folder in {"CMU-MOSI": "mosi", "generated": "synthetic"}.items():
        frame = pd.read_csv(ROOT / "docs" / "results" / folder / "report.csv")
        for model, values in copied[name].items():
            assert values == frame.loc[frame["model"] == model, "mae"].round(3).tolist()
    assert len(copied["CMU-MOSI"]) == len(copied["generated"]) == 5

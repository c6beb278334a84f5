"""Runs notebooks and keeps their outputs, without what no page can show: python notebooks/renew.py [PATH ...]."""

import copy
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
WIDGET = "application/vnd.jupyter.widget-view+json"  # a progress bar, which is nothing without its kernel


def renew(path: Path) -> None:
    """Runs a notebook in its folder and writes it over itself."""
    notebook = nbformat.read(path, as_version=4)
    metadata = copy.deepcopy(notebook.metadata)
    where = {"metadata": {"path": str(FOLDER)}}
    settings = {"record_timing": False, "coalesce_streams": True}
    NotebookClient(notebook, resources=where, **settings).execute()
    notebook.metadata = metadata  # a run adds the version of its Python
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = [
                each for each in cell.outputs if WIDGET not in each.get("data", {})
            ]
            cell.outputs = shown
    nbformat.write(notebook, path)


for path in map(Path, sys.argv[1:] or sorted(FOLDER.glob("*.ipynb"))):
    renew(path)
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")

"""The quick start in a real JupyterLab: what a person sees who opens it and runs all cells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.waiting import HANG_S, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_quickstart.ipynb"

# Folders for Jupyter's files, so that it leaves the user's alone.
PLACES = {
    "JUPYTER_CONFIG_DIR": ".config",
    "JUPYTER_RUNTIME_DIR": ".runtime",
    "JUPYTERLAB_SETTINGS_DIR": ".settings",
    "JUPYTERLAB_WORKSPACES_DIR": ".workspaces",
    "IPYTHONDIR": ".ipython",
}
# All cells are in the page, also those out of sight; no question about news, which are on the network.
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a JupyterLab with the quick start in its folder, and nothing of the user's settings."""
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed: pip install jupyterlab")
    folder = tmp_path_factory.mktemp("lab")
    notebook = json.loads(NOTEBOOK.read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    (folder / NOTEBOOK.name).write_text(json.dumps(notebook))
    for plugin, settings in SETTINGS.items():
        path = folder / ".settings" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    environment = os.environ | {place: str(folder / name) for place, name in PLACES.items()}
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.token="),
        *(f"--ServerApp.root_dir={folder}", "--port=0"),
    ]
    log = folder / ".log"
    with log.open("w") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as server:
        try:
            yield until(lambda: _address(folder, server), "JupyterLab answers")
        finally:
            server.terminate()


def _address(folder: Path, server: subprocess.Popen[bytes]) -> str | None:
    """JupyterLab's address, at the port that it chose and wrote to a file; None until it answers."""
    assert server.poll() is None, f"JupyterLab ended:\n{(folder / '.log').read_text()}"
    try:
        (written,) = (folder / PLACES["JUPYTER_RUNTIME_DIR"]).glob("jpserver-*.json")
        address = str(json.loads(written.read_text())["url"]).rstrip("/")
        urllib.request.urlopen(f"{address}/api", timeout=HANG_S).close()
    except (ValueError, OSError):  # no file, half a file, no answer
        return None
    return address


@pytest.fixture
def notebook(lab: str, page: Page) -> Page:
    """The quick start in JupyterLab after "Run All Cells"."""
    page.set_default_timeout(HANG_S * 1000)
    page.goto(f"{lab}/lab/tree/{NOTEBOOK.name}?reset")
    page.get_by_text("| Idle").wait_for()
    _choose(page, "Run", "Run All Cells")
    page.wait_for_function(
        """() => [...document.querySelectorAll(".jp-CodeCell .jp-InputArea-prompt")]
            .every(prompt => /\\d/.test(prompt.innerText))"""
    )
    height = page.locator(".jp-Notebook .jp-WindowedPanel-inner").evaluate("cells => cells.scrollHeight")
    page.set_viewport_size({"width": 1100, "height": height + 200})
    return page


def _choose(page: Page, *path: str) -> None:
    """An entry of the menus."""
    for name in path:
        page.locator(".lm-MenuBar-itemLabel, .lm-Menu-itemLabel").get_by_text(name, exact=True).click()


def test_quick_start(notebook: Page, screenshots: Path) -> None:
    # axe-core takes what lies outside of a body without a height for hidden.
    notebook.add_style_tag(content="body { height: 100vh }")
    module = pytest.importorskip(
        "axe_playwright_python.sync_playwright",
        reason="axe is not installed: pip install axe-playwright-python",
    )
    axe = module.Axe()
    outputs = notebook.locator(".jp-OutputArea-output")
    for kind in ("error", "stderr"):
        assert notebook.locator(f'.jp-OutputArea-output[data-mime-type*="{kind}"]').all_inner_texts() == []
    bar = notebook.locator(".jp-OutputArea-output .widget-hbox").filter(has_text="epochs")
    assert "6/6" in bar.inner_text()
    assert outputs.locator("mjx-container").count() == 0  # ids hold $, which is no formula
    widths = [picture.evaluate("image => image.naturalWidth") for picture in outputs.locator("img").all()]
    assert widths
    assert min(widths) > 300

    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        _choose(notebook, "Settings", "Theme", theme)
        notebook.wait_for_selector(f'body[data-jp-theme-name="{theme}"]', state="attached")
        notebook.wait_for_selector("#jupyterlab-splash", state="detached")  # hides all while colours change
        found = axe.run(notebook, ".jp-OutputArea-output", {"runOnly": ["color-contrast"]})
        assert found.violations_count == 0, found.generate_report()
        assert found.response["passes"], "axe-core saw no text"
        notebook.screenshot(path=screenshots / f"{NOTEBOOK.stem}-{theme.split()[1].lower()}.png")

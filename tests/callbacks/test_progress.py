"""Bars on a terminal and in a notebook; elsewhere a line an epoch."""

import fcntl
import os
import re
import struct
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import mmiln
from mmiln.callbacks import ProgressBar
from support.waiting import HANG_S

TINY = {"num_layers": 1, "d_model": 8, "num_heads": 2, "batch_size": 8, "seed": 1}


@pytest.fixture(scope="module")
def data():
    return mmiln.data.synthetic(32, 8, 8)


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """A terminal of 120 columns in the place of stderr; gives what was written to it once it is closed."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    seen = bytearray()

    def read() -> None:
        try:
            while some := os.read(master, 4096):
                seen.extend(some)
        except OSError:  # closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with os.fdopen(slave, "w") as screen, monkeypatch.context() as patch:
            patch.setattr("sys.stderr", screen)
            yield seen.decode
    finally:
        reader.join()
        os.close(master)


def lines(text: str) -> list[str]:
    """The successive states of the drawn line."""
    return [line.strip() for line in re.split(r"[\r\n]|\x1b\[A", text) if line.strip()]


def fit(data: mmiln.data.Dataset, *callbacks: mmiln.Callback, valid: bool = True, **more: Any) -> mmiln.Model:
    model = mmiln.Model("mosi", **TINY)
    model.fit(data.train, data.valid if valid else None, callbacks=callbacks, **{"epochs": 3, **more})
    return model


def test_a_terminal_has_bars_of_epochs_and_batches(data, monkeypatch):
    with terminal(monkeypatch) as seen:
        history = fit(data).history_
    drawn = lines(seen())
    last = history.to_frame().iloc[-1]
    assert drawn[0].startswith("epochs:   0%")
    assert any(re.match(r"epoch 1: .*/4 \[", line) for line in drawn)
    assert re.match(r"epochs: 100%\|.*\| 3/3 \[", drawn[-1])
    assert drawn[-1].endswith(
        f"MAE={last['valid_mae']:.4f}, Corr={last['valid_corr']:.4f}, "
        f"Acc-2={last['valid_has0_acc2']:.2%} / {last['valid_non0_acc2']:.2%}]"
    )


def test_measures_of_ch_sims_are_shown_by_their_names():
    logs = {f"valid_{name}": 0.5 for name in ("mae", "corr", "acc2", "acc3", "acc5", "f1")}
    assert ProgressBar().shown(logs) == {"MAE": "0.5000", "Corr": "0.5000", "Acc-2": "50.00%"}


def test_a_run_that_stops_early_or_goes_on_shows_where_it_is(data, monkeypatch, tmp_path):
    class Stop(mmiln.Callback):
        def on_epoch_end(self, model, epoch, logs):
            return epoch == 2

    kept = {"checkpoint_dir": tmp_path, "valid": False}
    with terminal(monkeypatch) as seen:
        stopped = fit(data, Stop(), **kept)
    assert "2/2" in lines(seen())[-1]
    assert f"loss={stopped.history_['train_total'][-1]:.4f}" in lines(seen())[-1]
    with terminal(monkeypatch) as seen:
        fit(data, **kept)
    assert "2/3" in lines(seen())[0]
    assert "3/3" in lines(seen())[-1]


def test_an_error_leaves_the_bar_where_it_is(data, monkeypatch):
    class Break(mmiln.Callback):
        def on_batch_end(self, model, epoch, batch):
            if epoch == 2:
                raise LookupError

    with terminal(monkeypatch) as seen, pytest.raises(LookupError):
        fit(data, Break())
    assert "1/3" in lines(seen())[-1]


def test_a_bar_of_ones_own_takes_the_place(data, monkeypatch):
    class F1(ProgressBar):
        def shown(self, logs):
            return {"F1": f"{logs['valid_has0_f1']:.3f}"}

    with terminal(monkeypatch) as seen:
        fit(data, F1())
    assert re.search(r"F1=0\.\d{3}\]$", lines(seen())[-1])
    assert "MAE" not in seen()
    assert len([line for line in lines(seen()) if "epochs:   0%" in line]) == 1


def test_a_log_file_has_a_line_an_epoch(data, capfd):
    history = fit(data).history_
    out, err = capfd.readouterr()
    assert out == ""
    written = err.splitlines()
    assert len(written) == 3
    for epoch, line in enumerate(written, start=1):
        at = history.to_frame().loc[epoch]
        assert line == (
            f"epoch {epoch} of 3: MAE {at['valid_mae']:.4f}, Corr {at['valid_corr']:.4f}, "
            f"Acc-2 {at['valid_has0_acc2']:.2%} / {at['valid_non0_acc2']:.2%}, {at['seconds']:.1f} s"
        )
    fit(data, valid=False, epochs=1)
    assert re.fullmatch(r"epoch 1 of 1: loss \d\.\d{4}, \d+\.\d s\n", capfd.readouterr().err)
    fit(data, progress=False)
    assert capfd.readouterr() == ("", "")


def test_lines_are_records_where_logging_was_set_up(data, capfd, caplog):
    with caplog.at_level("INFO", logger="mmiln"):
        fit(data)
    said = [(r.name, r.levelname, r.getMessage().split(":")[0]) for r in caplog.records]
    assert said == [("mmiln", "INFO", f"epoch {epoch} of 3") for epoch in (1, 2, 3)]
    assert capfd.readouterr() == ("", "")
    caplog.clear()
    with caplog.at_level("WARNING"):
        fit(data, epochs=1)
    assert not caplog.records
    assert capfd.readouterr().err.startswith("epoch 1 of 1: ")


def test_no_bars_on_request(data, monkeypatch):
    with terminal(monkeypatch) as seen:
        fit(data, progress=False)
    assert seen() == ""


CELL = """
import sys
{before}
import torch
torch.set_num_threads(1)
import mmiln
data = mmiln.data.synthetic(16, 8, 8)
mmiln.Model("mosi", num_layers=1, d_model=8, num_heads=2).fit(data.train, data.valid, epochs=2)
"""


@pytest.mark.parametrize(
    ("before", "kind"),
    [
        ("sys.modules['ipywidgets'] = None", "stream"),
        pytest.param("import ipywidgets", "display_data", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_notebook_has_widgets_or_text(before, kind):
    nbclient, nbformat = (
        pytest.importorskip(name, reason="what runs a cell is not installed: pip install nbclient ipykernel")
        for name in ("nbclient", "nbformat")
    )
    if kind == "display_data":
        pytest.importorskip("ipywidgets", reason="widgets are not installed: pip install ipywidgets")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL.format(before=before))])
    nbclient.NotebookClient(notebook, timeout=HANG_S).execute()
    outputs = notebook.cells[0].outputs
    result = next(output for output in outputs if output.output_type == "execute_result")
    assert "<svg" in result.data["text/html"]
    bars = [output for output in outputs if output.output_type == kind]
    if kind == "stream":
        assert {each.name for each in bars} == {"stderr"}
        assert "epochs: 100%" in "".join(each.text for each in bars)
    else:
        assert "application/vnd.jupyter.widget-view+json" in bars[0].data

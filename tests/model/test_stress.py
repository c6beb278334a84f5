"""Calls in any order, right and wrong: each returns or raises an error of ours, and the model stays whole."""

import contextlib
import copy
import math
import pickle
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

import mmiln
from mmiln.callbacks import Callback
from mmiln.errors import InternalError, MmilnError, StateError
from support.small_runs import WIDTHS, ragged, setting


def padded(number: int, size: int, side: str) -> dict[str, Any]:
    batch = ragged(number, size)
    out: dict[str, Any] = {"padding_side": side}
    for name, width in WIDTHS.items():
        lengths = [len(frames) for frames in batch[name]]
        array = np.zeros((size, max(lengths), width), np.float32)
        for row, frames in zip(array, batch[name], strict=True):
            row[slice(None, len(frames)) if side == "right" else slice(-len(frames), None)] = frames
        out |= {name: torch.from_numpy(array), f"{name}_lengths": lengths}
    return out | {name: batch[name] for name in ("labels", "index", "id")}


GOOD = [ragged(0, 4), ragged(1, 1), padded(2, 3, "right"), padded(3, 2, "left"), ragged(4, 6)]
# Values that are wrong nearly everywhere.
JUNK: list[Any] = [
    None, [], {}, (), "text", b"bytes", 3, -1, 2**70, math.nan, True, object(), [None], [[]], ["a"],
    {"M": None}, {"A": [1.0]}, [[1.0], [1.0, 2.0]], set(), range(3), iter([]), lambda: None,
    np.zeros(0), np.zeros((3, 0, 7)), np.zeros((0, 4, 7)), np.zeros((2, 2, 2, 2)), [np.zeros((1, 7))] * 3,
    np.full((3, 4, 7), math.nan), np.full((3, 4, 7), math.inf), np.ones((3, 4, 7)), np.ones((3, 4, 9)),
    np.array(1.0), np.array(["a"]), np.array([None]), np.array([1 + 1j]), np.array([-1, 0, 1]),
    np.array([10**12]), np.arange(3) + 0.5, np.full(3, 1e30), np.array([4.0, 0.0, -4.0]),
    np.zeros(3, "datetime64[s]"), torch.zeros(3, dtype=torch.bool), torch.zeros(3, dtype=torch.complex64),
    torch.zeros(3, 4, 7, requires_grad=True), torch.zeros(3, 4, 7).to_sparse(), torch.empty(3, 0, 7),
    torch.zeros(3, 4, 7, device="meta"), [torch.zeros(2, 7), torch.zeros(2, 7), None],
]  # fmt: skip
KEYS = [*GOOD[2], *GOOD[0], "text_bert", "raw_text", "nonsense", 5, None]
FIELDS: dict[str, list[Any]] = {
    "num_layers": [1, 2, 0, -1, 10**9, 1.5, "1", None],
    "d_model": [8, 4, 0, 7, 10**6, 10**12, math.nan],
    "num_heads": [2, 3, 0],
    "alpha": [0.0, 0.1, -1.0, math.inf, "a"],
    "accumulate": [1, 2, 0, 10**12],
    "lr_other": [1e-3, 0.0, -1.0, math.nan, 1e30],
    "attn_dropout": [0.0, 0.5, 1.0, 2.0],
    "audio_dim": [5, 0, 6, -1, 10**12, None],
    "text_dim": [7, 0, 10**12, None],
    "variant": ["full", "nothing"],
    "dtype": ["float32", "float64", "float16"],
    "device": ["cpu", "cuda:99", "tpu", 3],
    "seed": [1, 2, -1, 2**70, None],
    "optimizer": ["adam", "adamw", "sgd"],
    "nonsense": [1],
}


@st.composite
def batches(draw: st.DrawFn) -> Any:
    """A good batch; or one with a value replaced, dropped or added; or something else."""
    batch = dict(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        key = draw(st.sampled_from(KEYS))
        if draw(st.booleans()):
            batch[key] = draw(st.sampled_from(JUNK))
        else:
            batch.pop(key, None)
    return draw(st.sampled_from([batch] * 15 + JUNK))


@st.composite
def fields(draw: st.DrawFn) -> dict[str, Any]:
    """Small settings, sometimes with one that is wrong."""
    chosen: dict[str, Any] = {"num_layers": 1, "d_model": 8, "num_heads": 2, "accumulate": 1}
    for _ in range(draw(st.sampled_from([0, 1, 2]))):
        name = draw(st.sampled_from(sorted(FIELDS)))
        chosen[name] = draw(st.sampled_from(FIELDS[name]))
    return chosen


loaders = st.one_of(st.lists(batches(), max_size=3), st.lists(st.sampled_from(GOOD), min_size=1, max_size=3))
anything = st.sampled_from(JUNK)


class Raising(Callback):
    """Raises at an event, if any."""

    def __init__(self, event: str) -> None:
        if event:
            setattr(self, event, self.throw)

    def throw(self, *_: Any) -> None:
        raise KeyboardInterrupt


EVENTS = ["", "", "", "", "on_train_begin", "on_epoch_begin", "on_batch_end", "on_epoch_end", "on_train_end"]


class Calls(RuleBasedStateMachine):
    """A state machine: one model and its calls."""

    @initialize()
    def begin(self) -> None:
        self.before = setting()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.model = mmiln.Model("mosi", num_layers=1, d_model=8, num_heads=2, accumulate=1, seed=1)

    def teardown(self) -> None:
        self.folder.cleanup()

    def weights(self) -> dict[str, Any]:
        return self.model.state_dict() if self.model.built else {}

    def call(self, what: Callable[[], Any], *, changes: bool = False) -> Any:
        """The result, or None if the call raised one of ours; weights must stay unless it may change them."""
        weights = self.weights()
        result = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                result = what()
            except InternalError:
                raise
            except (MmilnError, KeyboardInterrupt):
                pass
        assert setting() == self.before
        after = self.weights()
        assert all(torch.isfinite(weight).all() for weight in after.values())
        if weights and not (changes and result is not None):
            # A fit that ended early has made steps.
            assert changes or all(torch.equal(weight, after[name]) for name, weight in weights.items())
        return result

    @rule(fields=fields())
    def new(self, fields):
        model = self.call(lambda: mmiln.Model("mosi", **fields))
        if model is not None and model.config.model["d_model"] <= 8:
            self.model = model

    @rule(batch=batches(), what=st.sampled_from(["losses", "gradients", "forward"]))
    def look(self, batch, what):
        values = self.call(lambda: getattr(self.model, what)(batch))
        assert values is None or all(isinstance(value, torch.Tensor) for value in values.values())

    @rule(batch=batches())
    def look_inside(self, batch):
        self.call(lambda: self.model.forward(batch, intermediates=True))

    @rule(loader=st.one_of(loaders, batches(), anything), what=st.sampled_from(["predict", "evaluate"]))
    def read(self, loader, what):
        result = self.call(lambda: getattr(self.model, what)(loader))
        if result is not None and what == "predict":
            assert np.isfinite(result.score).all()

    @rule(
        loader=st.one_of(loaders, anything),
        valid=st.one_of(st.none(), loaders, anything),
        epochs=st.sampled_from([1, 1, 2, 0, -1, "3", None]),
        nonfinite=st.sampled_from(["raise", "skip", "ignore"]),
        event=st.sampled_from(EVENTS),
        kept=st.booleans(),
        resume=st.sampled_from(["auto", "auto", True, False, "adopt", "maybe"]),
    )
    def fit(self, loader, valid, epochs, nonfinite, event, kept, resume):
        self.call(
            lambda: self.model.fit(
                loader,
                valid,
                epochs=epochs,
                progress=False,
                nonfinite=nonfinite,
                callbacks=[Raising(event)],
                checkpoint_dir=self.path / "kept" if kept else None,
                checkpoint_every=0,
                resume=resume,
            ),
            changes=True,
        )

    @rule(change=st.sampled_from(["none", "drop", "add", "shape", "nan", "type", "junk"]), junk=anything)
    def load(self, change, junk):
        state: Any = self.weights()
        name = next(iter(state), "text.conv.weight")
        match change:
            case "drop":
                state.pop(name, None)
            case "add":
                state["nonsense"] = torch.zeros(2)
            case "shape" if state:
                state[name] = state[name].reshape(-1)[:1]
            case "nan" if state:
                state[name] = state[name] * math.nan
            case "type":
                state[name] = junk
            case "junk":
                state = junk
        self.call(lambda: self.model.load_state_dict(state))

    @precondition(lambda self: self.model.built)
    @rule()
    def save_and_load(self):
        self.call(lambda: self.model.save_pretrained(self.path / "saved"))
        again = self.call(lambda: mmiln.Model.from_pretrained(self.path / "saved"))
        assert again is not None
        self.same(again)
        self.model = again

    @rule(junk=st.sampled_from(["", "nothing", "x" * 5000, "\0", "../..", "/dev/null"]))
    def wrong_folders(self, junk):
        # A name that no file can have is refused by Python itself.
        with contextlib.suppress(OSError, ValueError):
            self.call(lambda: mmiln.Model.from_pretrained(self.path / junk))
        if junk not in ("", "nothing", "../.."):
            with pytest.raises((OSError, ValueError, StateError)):
                self.model.save_pretrained(self.path / junk)

    @rule(how=st.sampled_from([copy.deepcopy, copy.copy, lambda model: pickle.loads(pickle.dumps(model))]))
    def another(self, how):
        again = self.call(lambda: how(self.model))
        self.same(again)
        self.model = again

    def same(self, again: mmiln.Model) -> None:
        assert again.built == self.model.built
        if self.model.built:
            state = again.state_dict()
            assert all(torch.equal(weight, state[name]) for name, weight in self.weights().items())

    @rule(name=st.sampled_from(sorted(FIELDS)), data=st.data())
    def set_params(self, name, data):
        value = data.draw(st.sampled_from(FIELDS[name]))
        if name != "d_model" or value == 8:
            self.call(lambda: self.model.set_params(**{name: value}))

    @rule(what=st.sampled_from(["summary", "get_params", "state_dict", "__repr__"]))
    def ask(self, what):
        self.call(lambda: getattr(self.model, what)())

    @rule(what=st.sampled_from(["pseudo_labels", "config"]))
    def ask_for(self, what):
        self.call(lambda: getattr(self.model, what))


def sequences(count: int) -> None:
    run_state_machine_as_test(
        Calls,
        settings=settings(
            max_examples=count,
            stateful_step_count=20,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_some_sequences_of_calls():
    sequences(60)


@pytest.mark.slow
def test_two_thousand_sequences_of_calls():
    sequences(2000)

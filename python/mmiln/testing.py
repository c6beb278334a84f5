"""Helpers for your tests: compare a run with a stored one, and a re-implementation with a model.

Needs pytest and pytest-regressions (``pip install 'mmiln[testing]'``). To get the fixture, a
``conftest.py`` must say ``pytest_plugins = ["mmiln.testing"]``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from .model import Model
from .results.history import History
from .results.metrics import Metrics
from .results.predictions import Predictions

Tolerance = Mapping[str, float]
Named = dict[str, Tensor]
Oracle = nn.Module | Callable[[Named, Mapping[str, Any]], Mapping[str, Any]]

# Relative and absolute tolerance of the elements of outputs, losses and gradients.
TOLERANCE = {"float64": (1e-8, 1e-9), "float32": (1e-3, 1e-5)}
SHOWN = 5


class RunRegression:
    """Stores a run's numbers beside the test the first time, and compares later runs with them.

    Files lie in a folder named as the test's module, where pytest-regressions keeps them. ``pytest
    --force-regen`` stores anew what differs, ``--regen-all`` everything.
    """

    def __init__(self, numbers: Any, data: Any, name: str) -> None:
        self._numbers = numbers
        self._data = data
        self._name = re.sub(r"\W+", "_", name).strip("_")

    def check(
        self,
        history: History,
        predictions: Predictions,
        *,
        atol: float = 1e-6,
        rtol: float = 1e-5,
        tolerances: Mapping[str, Tolerance] | None = None,
        digest: bool = True,
    ) -> None:
        """Compares metrics, curve and predictions of a run.

        Args:
            history: What ``fit`` returned; ``seconds`` is left out.
            predictions: Of utterances with labels.
            atol, rtol: How far any number may be off.
            tolerances: Other tolerances by field, such as ``{"valid_mae": {"atol": 1e-2}}``.
            digest: Whether the scores must be equal to the bit. Bits hold on one kind of processor; for a
                test that runs on several, say False.

        Raises:
            AssertionError: Something differs, or was not stored before.
        """
        default = {"atol": atol, "rtol": rtol}
        fields = {name: dict(tolerance) for name, tolerance in (tolerances or {}).items()}
        label, score = predictions.label, predictions.score
        metrics = Metrics.of([] if label is None else label, score, predictions.label_range)
        tables = {
            "metrics": {name: [float(value)] for name, value in metrics.to_dict().items()},
            "curve": {name: values for name, values in history.items() if name != "seconds"},
        }
        unknown = set(fields) - {name for table in tables.values() for name in table}
        if unknown:
            raise ValueError(
                f"no field {sorted(unknown)}; there are {[n for t in tables.values() for n in t]}"
            )
        checks: list[Callable[[], None]] = [
            partial(
                self._numbers.check,
                {name: np.asarray(values, np.float64) for name, values in table.items()},
                basename=f"{self._name}_{what}",
                default_tolerance=default,
                tolerances={name: value for name, value in fields.items() if name in table},
            )
            for what, table in tables.items()
        ]
        if digest:
            bits = hashlib.sha256(np.ascontiguousarray(predictions.score, "<f4").tobytes()).hexdigest()
            content = {"scores": len(predictions), "sha256": bits}
            checks.append(partial(self._data.check, content, basename=f"{self._name}_digest"))
        _all(checks)


def _all(checks: list[Callable[[], None]]) -> None:
    """Makes every check, so that one run stores all that is new, then fails for all that failed."""
    failed = []
    for check in checks:
        try:
            check()
        except (AssertionError, pytest.fail.Exception) as error:
            failed.append(str(error))
    if failed:
        raise AssertionError("\n\n".join(failed))


@pytest.fixture
def mmiln_regression(
    num_regression: Any, data_regression: Any, request: pytest.FixtureRequest
) -> RunRegression:
    """A :class:`RunRegression` for the test that asks for it."""
    return RunRegression(num_regression, data_regression, request.node.name)


def assert_close_to_oracle(
    model: Model,
    oracle: Oracle,
    batch: Mapping[str, Any],
    *,
    rtol: float | None = None,
    atol: float | None = None,
) -> None:
    """Compares a re-implementation of MMILN with a model, on the model's own weights.

    Args:
        model: The model, preferably with ``dtype="float64"``.
        oracle: A module whose parameters have the names of ``model.state_dict()`` and whose call takes the
            batch; or a function of such parameters and the batch. It returns values by name: any that
            ``model.forward(batch, intermediates=True)`` and ``model.losses(batch)`` return. Where ``total``
            is among them, its gradient by every parameter is compared with ``model.gradients(batch)``.
        batch: Utterances, with labels where losses are compared.
        rtol, atol: How far an element may be off, relative and absolute. The default depends on the model's
            dtype: 1e-8 and 1e-9, or 1e-3 and 1e-5 in float32.

    Raises:
        AssertionError: Names the worst difference, with place and values.
        ValueError: The oracle's parameters or results have other names than the model's.
    """
    if rtol is None or atol is None:
        default = TOLERANCE[model.dtype]
        rtol, atol = default[0] if rtol is None else rtol, default[1] if atol is None else atol
    ours: dict[str, Any] = dict(model.forward(batch, intermediates=True))
    weights = {name: weight.clone().requires_grad_() for name, weight in model.state_dict().items()}
    theirs = dict(_called(oracle, weights, batch))
    if batch.get("labels") is not None:
        ours |= model.losses(batch)
    if "total" in theirs:
        names = list(weights)
        found = torch.autograd.grad(theirs["total"], [weights[name] for name in names], allow_unused=True)
        ours |= {f"gradient of {name}": value for name, value in model.gradients(batch).items()}
        for name, gradient in zip(names, found, strict=True):
            theirs[f"gradient of {name}"] = torch.zeros_like(weights[name]) if gradient is None else gradient
    _names("results", theirs, ours, all_needed=False)
    differences = []
    for name, value in theirs.items():
        differences += [
            _difference(name, mine, other, rtol, atol) for mine, other in _pairs(name, ours[name], value)
        ]
    wrong = sorted((d for d in differences if d[0] > 1), reverse=True)
    if wrong:
        shown = "\n".join(f"  {text}" for _, text in wrong[:SHOWN])
        more = f"\n  and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise AssertionError(
            f"{len(wrong)} of {len(differences)} tensors are off, the worst first "
            f"(rtol {rtol:g}, atol {atol:g}):\n"
            f"{shown}{more}"
        )


def _called(oracle: Oracle, weights: Named, batch: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(oracle, nn.Module):
        return oracle(weights, batch)
    _names("parameters", dict(oracle.named_parameters()), weights, all_needed=True)
    training = oracle.training
    try:
        found: Mapping[str, Any] = torch.func.functional_call(oracle.eval(), weights, (batch,))
    finally:
        oracle.train(training)
    return found


def _names(what: str, theirs: Mapping[str, Any], ours: Mapping[str, Any], *, all_needed: bool) -> None:
    unexpected = sorted(theirs.keys() - ours.keys())
    missing = sorted(ours.keys() - theirs.keys()) if all_needed else []
    if unexpected or missing or not theirs:
        raise ValueError(
            f"the oracle's {what} must have the model's names: missing {missing}, unexpected {unexpected}; "
            f"the model has {sorted(ours)}"
        )


def _pairs(name: str, mine: Any, other: Any) -> list[tuple[Tensor, Tensor]]:
    mine, other = (list(value) if isinstance(value, (list, tuple)) else [value] for value in (mine, other))
    if [value.shape for value in mine] != [value.shape for value in other]:
        raise AssertionError(
            f"{name}: the model's shapes are {[tuple(v.shape) for v in mine]}, the oracle's "
            f"{[tuple(v.shape) for v in other]}"
        )
    return list(zip(mine, other, strict=True))


def _difference(name: str, mine: Tensor, other: Tensor, rtol: float, atol: float) -> tuple[float, str]:
    """The largest difference as a multiple of the allowed one, and a line that says where it is."""
    a, b = mine.detach().double().cpu(), other.detach().double().cpu()
    allowed = atol + rtol * b.abs()
    excess = torch.nan_to_num((a - b).abs() / allowed, nan=float("inf"))
    if not excess.numel():
        return 0.0, name
    at = np.unravel_index(int(excess.argmax()), tuple(excess.shape)) if excess.ndim else ()
    place = f"[{', '.join(str(int(i)) for i in at)}]"
    x, y = a[at].item(), b[at].item()
    text = f"{name}{place if at else ''}: model {x:.10g}, oracle {y:.10g}, off by {abs(x - y):.3g}"
    return float(excess.max()), f"{text}, {float(excess.max()):.3g} times what is allowed"

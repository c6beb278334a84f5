"""On a card no step waits for its numbers: what follows one that is not finite must not be applied either."""

import math
from typing import Any

import numpy as np
import pytest

import mmiln
from mmiln.errors import NonFiniteError
from support.nonfinite_checks import batch, build, check_one_number, huge, weights


def fit(device: str, data: list[dict[str, Any]], **changes: Any) -> mmiln.Model:
    """Trained for an epoch; ``error_`` is what it ended with."""
    arguments = {name: changes.pop(name) for name in ("nonfinite",) if name in changes}
    model = build(device=device, **changes)
    model.error_ = None
    try:
        model.fit(data, epochs=1, progress=False, **arguments)
    except NonFiniteError as error:
        model.error_ = str(error)
    return model


@pytest.mark.parametrize("bad", [0, 1, 15, 16, 20, 39])
def test_nothing_from_the_first_bad_step_on_is_applied(bad: int, device: str) -> None:
    data = [batch(number) for number in range(40)]
    broken = fit(device, [*data[:bad], huge(bad, "text"), *data[bad + 1 :]])
    assert broken.error_.startswith(f"epoch 1, micro-batch {bad + 1}: the loss or a gradient of this batch")
    assert f"Utterances: video{bad}$_$0, video{bad}$_$1, video{bad}$_$2." in broken.error_
    assert "text frames in [" in broken.error_
    before = fit(device, data[:bad]) if bad else build(device=device, text_dim=7, audio_dim=5, vision_dim=6)
    assert weights(broken) == weights(before)
    for name, labels in broken.pseudo_labels.items():
        known = before.pseudo_labels[name] if bad else labels[:0]
        assert np.array_equal(labels[: len(known)], known)
        assert np.isnan(labels[len(known) :]).all()
    assert len(broken.predict(data[0])) == 3
    assert broken.fit(data, epochs=1, progress=False)["train_total"]


def test_a_window_with_a_bad_batch_is_dropped(device: str) -> None:
    data = [batch(number) for number in range(8)]
    broken = fit(device, [*data[:5], huge(5, "text"), *data[6:]], accumulate=4)
    assert broken.error_.startswith("epoch 1, micro-batch 6")
    assert weights(broken) == weights(fit(device, data[:4], accumulate=4))


def test_skipped_batches_leave_no_trace_but_a_warning(device: str) -> None:
    good = [batch(number) for number in (0, 2, 3)]
    with pytest.warns(RuntimeWarning, match=r"skipped: epoch 1, micro-batch 2: .*video1\$_\$0"):
        skipping = fit(device, [good[0], huge(1, "text"), *good[1:]], nonfinite="skip")
    plain = fit(device, good)
    assert weights(skipping) == weights(plain)
    assert skipping.history_["skipped_batches"] == [1]
    assert skipping.history_["train_total"] == plain.history_["train_total"]
    assert math.isfinite(plain.history_["train_total"][0])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["text.conv.weight", "heads.vision.linear3.bias", "audio.lstm.weight_ih_l0"])
@pytest.mark.parametrize("place", [0, -1])
def test_one_number_is_enough(value: float, name: str, place: int, device: str) -> None:
    """A gradient that a window gathered before."""
    check_one_number(value, name, place, device)

"""Losses and gradients that are not finite: told, skipped on request, never applied. Odd statistics."""

import math

import numpy as np
import pytest
import torch

from mmiln.errors import ConfigError, NonFiniteError
from support.nonfinite_checks import WIDTHS, batch, build, check_one_number, huge, weights


def test_the_utterances_the_layer_and_its_inputs_are_named():
    model = build()
    model.fit([batch(0)], epochs=1, progress=False)
    before = weights(model)
    state = model.state_dict()
    state["fusion.1.audio.attention.in_proj_weight"] *= 1e38
    model.load_state_dict(state)
    broken = weights(model)
    with pytest.raises(NonFiniteError) as caught:
        model.fit([batch(0), batch(1)], epochs=1, progress=False)
    text = str(caught.value)
    assert text.startswith("epoch 1, micro-batch 1: the loss of this batch is not finite")
    assert "Utterances: video0$_$0, video0$_$1, video0$_$2." in text
    assert "First not finite: fusion.1.audio.attention. What goes in: fusion.0.audio.output in [" in text
    assert "weights of fusion.1.audio in [" in text
    assert weights(model) == broken != before


def test_frames_that_are_too_large_are_named():
    with pytest.raises(NonFiniteError, match=r"text frames in \[-\d\.\d+e\+30, \d"):
        build().fit([batch(0), huge(1, "text")], epochs=1, progress=False)


def test_a_gradient_alone_is_not_applied():
    """A score of 1e18, whose square is finite, over features of 1e30: their product is not."""
    model = build(num_layers=1)
    model.fit([batch(0)], epochs=1, progress=False)
    state = model.state_dict()
    state["heads.multimodal.linear3.weight"] *= 0
    state["heads.multimodal.linear3.bias"].fill_(1e18)
    state["heads.multimodal.linear2.weight"] *= 1e30
    model.load_state_dict(state)
    before = weights(model)
    with pytest.raises(NonFiniteError) as caught:
        model.fit([batch(0)], epochs=1, progress=False)
    text = str(caught.value)
    assert "a gradient of this batch is not finite; the step was not applied" in text
    assert "Values and losses are finite, gradients are not of: heads.multimodal.linear3.weight" in text
    assert weights(model) == before


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "name", ["audio.lstm.weight_ih_l0", "heads.multimodal.linear3.bias", "text.conv.weight"]
)
@pytest.mark.parametrize("place", [0, -1])
def test_one_number_is_enough(value, name, place):
    check_one_number(value, name, place)


@pytest.mark.parametrize("threads", [1, 2])
def test_one_number_among_many_is_enough(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check_one_number(math.nan, "heads.multimodal.linear3.bias", -1, d_model=96, num_heads=4)
    finally:
        torch.set_num_threads(before)


def test_skipped_batches_leave_no_trace_but_a_warning():
    good = [batch(0), batch(2)]
    plain, skipping = build(accumulate=1), build(accumulate=1)
    for model in (plain, skipping):
        model.load_state_dict(build().state_dict())
    plain.fit(good, epochs=1, progress=False)
    with pytest.warns(RuntimeWarning, match=r"skipped: epoch 1, micro-batch 2: .*video1\$_\$0"):
        history = skipping.fit(
            [good[0], huge(1, "text"), good[1]], epochs=1, progress=False, nonfinite="skip"
        )
    assert history["skipped_batches"] == [1]
    assert weights(plain) == weights(skipping)
    assert math.isfinite(history["train_total"][0])


def test_an_epoch_of_nothing_but_such_batches_is_an_error():
    with pytest.warns(RuntimeWarning), pytest.raises(NonFiniteError, match="every micro-batch of epoch 1"):
        build().fit([huge(0, "text")], epochs=1, progress=False, nonfinite="skip")


def test_the_policy_is_one_of_two():
    with pytest.raises(ConfigError, match='nonfinite must be "raise" or "skip", got \'ignore\''):
        build().fit([batch(0)], epochs=1, progress=False, nonfinite="ignore")


def test_a_skipped_batch_is_not_trained_on_after_resuming(tmp_path):
    from support.small_runs import Cut, CutAt

    def fit(folder=None, callbacks=()):
        model = build()
        with pytest.warns(RuntimeWarning, match="skipped"):
            model.fit(
                [batch(0), huge(1, "text"), batch(2), batch(3)],
                epochs=2,
                progress=False,
                nonfinite="skip",
                callbacks=callbacks,
                checkpoint_dir=folder,
                checkpoint_every=0,
            )
        return weights(model), model.history_["skipped_batches"]

    whole = fit()
    with pytest.raises(Cut):
        fit(tmp_path, [CutAt(1, 4)])
    assert fit(tmp_path) == whole
    assert whole[1] == [1, 1]


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": np.full(3, 2.0)},
        {"labels": np.full(3, -1.0)},
        {"labels": np.zeros(3)},
    ],
    ids=["one class", "other class", "neutral"],
)
def test_labels_of_one_class(changes):
    model = build()
    history = model.fit([batch(0, **changes)], epochs=4, progress=False)
    assert np.isfinite(history["train_total"]).all()
    for values in model.pseudo_labels.values():
        assert np.isfinite(values).all()
        if not changes["labels"].any() or len(set(np.sign(changes["labels"]))) == 1:
            assert (values == changes["labels"].astype(np.float32)).all()  # a class is empty: nothing moves


def test_equal_utterances_and_a_batch_of_one():
    """Equal control vectors: no deviation, equal centres, alpha_m of 0."""
    one = batch(0, 1)
    same = {name: one[name] * 4 for name in WIDTHS}
    equal = {**same, "labels": np.array([1.0, -1.0, 2.0, -2.0]), "index": np.arange(4)}
    for data in ([equal], [one | {"index": [0]}], [equal, one | {"index": [4]}]):
        model = build()
        history = model.fit(data, epochs=4, progress=False)
        assert all(np.isfinite(history[f"train_{part}"]).all() for part in ("task", "sim", "diff", "total"))
        assert all(torch.isfinite(weight).all() for weight in model.state_dict().values())
        assert all(torch.isfinite(gradient).all() for gradient in model.gradients(data[0]).values())
        assert all(np.isfinite(values).all() for values in model.pseudo_labels.values())

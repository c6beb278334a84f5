"""RAVEN against its oracle, and where its public code is wrong; the field's toolkit doesn't have it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.checks import WIDTHS, build, check_gradients, check_oracle, inputs, padded, utterances
from mmiln.baselines.inputs import Inputs, Sequence
from mmiln.baselines.raven import RAVEN, word_of_frame
from reference.baselines import raven as oracle

# By path: the module reference.baselines would hide a package of that name.

SIZES: dict[str, Any] = {"nonverbal_hidden": 4, "hidden": 5}


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("size", [4, 1])
def test_against_the_oracle(size, aligned):
    check_oracle(build(RAVEN, **SIZES), oracle.forward, inputs(size=size, aligned=aligned))


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("beta", "clamped"), [(0.02, False), (100.0, True)])
def test_words_are_shifted_as_in_the_oracle(beta, clamped, aligned):
    network, x = build(RAVEN, **SIZES, beta=beta), inputs(aligned=aligned)
    outputs = network(padded(x))
    for b, utterance in enumerate(utterances(x)):
        shifted, alphas = oracle.shift(network.state_dict(), network.settings, utterance)
        torch.testing.assert_close(outputs["shifted"][b, : len(shifted)], shifted, rtol=0, atol=1e-12)
        torch.testing.assert_close(outputs["alpha"][b, : len(shifted)], alphas, rtol=0, atol=1e-12)
        assert (outputs["shifted"][b, len(shifted) :] == 0).all()
        assert bool((alphas == 1).all()) == clamped  # both sides of the minimum
        length = (shifted - utterance["text"]).norm(dim=1)
        assert (length <= beta * utterance["text"].norm(dim=1) + 1e-12).all()


@pytest.mark.parametrize("beta", [0.02, 100.0])
def test_losses_reach_every_parameter(beta):
    """In the public code no loss reaches the nonverbal networks, the gates and the mix."""
    check_gradients(build(RAVEN, **SIZES, beta=beta), inputs(size=7))


def test_losses_reach_every_parameter_that_works_with_one_frame_a_word():
    """The exception are recurrent weights of the nonverbal LSTMs, which make one step from a zero state."""
    network, x = build(RAVEN, **SIZES), inputs(aligned=True, size=7)
    network.losses(network(x), x)["total"].backward()
    still = {name for name, p in network.named_parameters() if not (p.grad != 0).any()}
    assert still == {"audio.lstm.rnn.weight_hh_l0", "vision.lstm.rnn.weight_hh_l0"}


def sequence(length: int) -> Sequence:
    return Sequence(torch.zeros(1, length, 1), torch.tensor([length]))


@pytest.mark.parametrize(
    ("frames", "words", "marked", "expected"),
    [
        (4, 4, False, [0, 1, 2, 3]),
        (4, 4, True, [0, 1, 2, 3]),  # as many frames as tokens: marks have some
        (7, 3, False, [0, 0, 0, 1, 1, 2, 2]),
        (2, 4, False, [0, 2]),
        (3, 5, True, [1, 2, 3]),  # one a word
        (5, 4, True, [1, 1, 1, 2, 2]),
        (3, 1, False, [0, 0, 0]),
        (3, 2, True, [0, 0, 1]),  # marks alone
        (1, 3, False, [0]),
    ],
)
def test_frames_belong_to_words(frames, words, marked, expected):
    owner = word_of_frame(sequence(frames), torch.tensor([words]), marked=marked)
    assert owner.tolist() == [expected]
    if not marked and frames >= words:  # each word has as many as any other, or one more
        counts = torch.bincount(owner[0], minlength=words)
        assert counts.max() - counts.min() <= 1


def changed_words(x: Inputs, y: Inputs) -> Tensor:
    """The words of the first utterance whose shift differs."""
    network = build(RAVEN, **SIZES)
    return (network(x)["shifted"][0] - network(y)["shifted"][0]).abs().amax(1)[
        : int(x.text.lengths[0])
    ] > 1e-9


@pytest.mark.parametrize(("frame", "word"), [(0, 0), (2, 0), (3, 1), (8, 2)])
def test_a_frame_shifts_its_own_word(frame, word):
    """The nonverbal networks begin anew with each word: 9 frames of audio, 3 words."""
    x = inputs()
    frames = x.audio.frames.clone()
    frames[0, frame] += 1
    other = replace(x, audio=Sequence(frames, x.audio.lengths))
    assert changed_words(x, other).tolist() == [i == word for i in range(3)]


def test_the_order_of_a_word_s_frames_matters():
    """An LSTM reads the frames; they are not averaged."""
    x = inputs()
    frames = x.audio.frames.clone()
    frames[0, 3:6] = frames[0, 3:6].flip(0)
    other = replace(x, audio=Sequence(frames, x.audio.lengths))
    assert changed_words(x, other).tolist() == [False, True, False]


def test_a_word_without_frames_has_a_state_of_zero():
    """The first utterance has one frame of vision for three words."""
    network, x = build(RAVEN, **SIZES), inputs()
    states = network.vision(x.vision, x.text, marked=False)
    assert (states[0, 0] != 0).all()
    assert (states[0, 1:] == 0).all()


@pytest.mark.parametrize("view", ["text", "audio", "vision"])
def test_nothing_is_read_behind_the_end(view):
    """The public code normalises audio over padding too."""
    network, x = build(RAVEN, **SIZES), inputs()
    frames = getattr(x, view)
    dirty = torch.where(frames.mask[:, :, None], frames.frames, 7.0)
    outputs = network(replace(x, **{view: Sequence(dirty, frames.lengths)}))
    torch.testing.assert_close(outputs["M"], network(x)["M"], rtol=0, atol=1e-14)


def test_a_word_of_zeros_stays_as_it_is():
    """Its shift has length zero and finite gradients."""
    network, x = build(RAVEN, **SIZES), inputs()
    silent = replace(x, text=x.text.map(x.text.frames * 0))
    outputs = network(silent)
    assert (outputs["shifted"] == 0).all()
    network.losses(outputs, silent)["total"].backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters())


def count(widths: dict[str, int], **fields: Any) -> int:
    return sum(p.numel() for p in RAVEN(RAVEN.Settings(**fields), widths).parameters())


def test_sizes():
    # At the paper's features (GloVe 300, COVAREP 74, FACET 47), counted by hand; no number was published.
    lstms = 4 * 150 * (74 + 150 + 2) + 4 * 150 * (47 + 150 + 2) + 4 * 300 * (300 + 300 + 2)
    assert count({"text": 300, "audio": 74, "vision": 47}) == lstms + 2 * 451 + 301 * 300 + 301
    assert count(WIDTHS, **SIZES) < count(WIDTHS)


def test_presets():
    for preset in RAVEN.PRESETS.values():
        RAVEN.Settings(**preset)

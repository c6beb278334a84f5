"""The inputs of networks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from baselines.checks import inputs, padded
from mmiln.baselines.blocks import by_length
from mmiln.baselines.inputs import Inputs, Sequence


@pytest.mark.parametrize("kept", ["tokens", "text", "audio", "vision", "labels", "index"])
def test_any_part_says_how_many_utterances_there_are(kept):
    x = inputs()
    tokens = Sequence(torch.zeros(4, 2, 2, dtype=torch.int64), torch.full((4,), 2))
    assert len(Inputs(**{kept: getattr(replace(x, tokens=tokens), kept)})) == 4
    assert len(Inputs()) == 0


def test_packed_parts_are_padded():
    x = inputs()
    parts = {"labels": x.labels, "index": x.index}
    for name in ("text", "vision"):
        sequence = getattr(x, name)
        parts |= {name: sequence.frames[sequence.mask], f"{name}_lengths": sequence.lengths}
    again = Inputs.of(parts, "cpu")
    assert again.tokens is None and again.audio is None
    for name in ("text", "vision"):
        assert torch.equal(getattr(again, name).frames, getattr(x, name).frames)
        assert torch.equal(getattr(again, name).lengths, getattr(x, name).lengths)
    assert torch.equal(again.labels, x.labels) and torch.equal(again.index, x.index)


def test_inner_frames_are_those_between_the_marks():
    """If there is nothing between the marks, the second one is taken."""
    frames = torch.arange(1.0, 9).reshape(2, 4, 1) * torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]])[..., None]
    inner = Sequence(frames, torch.tensor([4, 2])).inner
    assert inner.lengths.tolist() == [2, 1]
    assert inner.frames[:, :2, 0].tolist() == [[2, 3], [6, 0]]
    assert not inner.frames[:, 2:].any()


@pytest.mark.parametrize("size", [1, 3, 8, 19])
def test_utterances_read_by_length_are_those_read_at_once(size):
    """Values and gradients, in the order that was given, with zeros behind each end."""

    def read(x, y):
        return x.map(x.frames * x.mask.sum(1)[:, None, None] + (y.frames**2).sum((1, 2))[:, None, None])

    def with_gradients(result):
        return result.frames, *torch.autograd.grad(
            (result.frames * text.frames).sum(), [text.frames, audio.frames]
        )

    x = padded(inputs(size=size))
    text, audio = x.text, x.audio
    text.frames.requires_grad_(), audio.frames.requires_grad_()
    expected, got = with_gradients(read(text, audio)), with_gradients(by_length(read, text, audio))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)

"""EMT against its oracle, and where its public code is known to be wrong."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from baselines.checks import WIDTHS, build, check_gradients, check_oracle, inputs, padded
from mmiln.baselines.emt import EMT
from mmiln.baselines.inputs import Sequence
from mmiln.baselines.restoration import lose
from mmiln.errors import ConfigError
from reference.baselines import emt as oracle

# By path: the module reference.baselines would hide a package of that name.

SMALL: dict[str, Any] = {
    "text_hidden": 5, "audio_hidden": 4, "vision_hidden": 3, "audio_out": 6, "vision_out": 5, "width": 6,
    "heads": 3, "layers": 2, "expansion": 2, "post": 7,
}  # fmt: skip
NO_DROPOUT = {"attention_dropout": 0.0, "ff_dropout": 0.0, "post_dropout": 0.0}


class Bert(nn.Module):
    """An embedding table in place of a BERT."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(vocab_size=101)
        self.table = nn.Embedding(101, width)

    def forward(self, input_ids, attention_mask, token_type_ids):
        return SimpleNamespace(last_hidden_state=self.table(input_ids))


def with_bert(**fields: Any) -> EMT:
    torch.manual_seed(3)
    return EMT(EMT.Settings(**(SMALL | NO_DROPOUT | fields)), WIDTHS, Bert(WIDTHS["text"])).double().eval()


def tokens(*texts: list[int]) -> Sequence:
    ids = torch.tensor([i for text in texts for i in text])
    return Sequence.of(torch.stack([ids, ids * 0], 1), torch.tensor([len(text) for text in texts]))


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("size", [19, 4, 1])
def test_against_the_oracle(size, missing):
    """Scoring removes no frames, whatever training does."""
    check_oracle(build(EMT, **SMALL, missing=missing), oracle.forward, inputs(size=size))


@pytest.mark.parametrize("width", [6, 9])
def test_against_the_oracle_of_an_odd_width(width):
    check_oracle(build(EMT, **(SMALL | {"width": width, "layers": 1})), oracle.forward, inputs())


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_losses_reach_every_parameter(missing):
    torch.manual_seed(0)
    check_gradients(build(EMT, **SMALL, missing=missing), inputs(size=7))


def test_complete_modalities_have_one_loss():
    network, x = build(EMT, **SMALL), inputs()
    outputs = network.train()(x)
    assert set(outputs) == {"M", "context"}
    losses = network.losses(outputs, x)
    torch.testing.assert_close(losses["total"], (outputs["M"] - x.labels).abs().mean())
    assert not any(name.startswith(("restore", "projector", "predictor")) for name in network.state_dict())


@pytest.mark.parametrize("size", [5, 1])
def test_losses_of_restoration(size):
    network, x = (
        build(EMT, **SMALL, **NO_DROPOUT, missing=0.4, attract=0.3, recon=0.7).train(),
        inputs(size=size),
    )
    torch.manual_seed(1)
    outputs = network(x)
    losses = network.losses(outputs, x)
    recon, attract = oracle.restoration(network, outputs)
    whole, copy = ((outputs[name] - x.labels).abs().mean() for name in ("M", "M'"))
    expected = {"task": copy, "recon": recon, "attract": attract}
    expected["total"] = copy + 0.3 * (attract + whole) + 0.7 * recon
    assert tuple(losses) == EMT.LOSSES
    for name, loss in losses.items():
        tolerance = 1e-10 if size > 1 or name == "recon" else 1e-4  # running statistics go on
        torch.testing.assert_close(loss, expected[name], rtol=0, atol=tolerance)
    assert float(recon.detach()) > 0


def test_a_target_has_no_gradient():
    """Attraction trains predictions towards projections, not the other way round."""
    network, x = build(EMT, **SMALL, **NO_DROPOUT, missing=0.4).train(), inputs(size=5)
    outputs = network(x)
    frozen = {name: value.detach() for name, value in outputs.items()}
    outputs |= {name: frozen[name] for name in ("text", "audio", "vision", "context")}
    for predictor in network.predictor.values():
        nn.init.zeros_(predictor[-1].weight)  # predictions that depend on nothing
    loss = network.losses(outputs, x)["attract"]
    assert torch.autograd.grad(loss, network.projector["audio"][0].weight)[0].abs().max() == 0


def test_what_goes_missing():
    x = inputs(size=40)
    torch.manual_seed(0)
    lacking, lost = lose(x, 0.5, 100)
    for m in WIDTHS:
        before, after = getattr(x, m), getattr(lacking, m)
        assert bool((after.frames[lost[m]] == 0).all())
        torch.testing.assert_close(after.frames[~lost[m]], before.frames[~lost[m]])
        assert not bool((lost[m] & ~before.mask).any())  # what is padding is not lost
        assert 0.3 < float(lost[m].sum() / before.mask.sum()) < 0.7
    assert lacking.labels is x.labels


def test_without_a_frame_missing_the_copy_is_the_same():
    network, x = build(EMT, **SMALL, **NO_DROPOUT, missing=1e-12).train(), inputs()
    outputs = network(x)
    torch.testing.assert_close(outputs["M'"], outputs["M"])
    losses = network.losses(outputs, x)
    assert float(losses["recon"].detach()) == 0
    assert bool(losses["total"].isfinite())


def test_a_batch_of_one_takes_running_statistics():
    """In the public code batch norm raises and `squeeze` drops the batch dimension."""
    network, x = build(EMT, **SMALL, missing=0.4).train(), inputs(size=1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.constant_(module.running_mean, 0.5)
    before = {name: b.clone() for name, b in network.named_buffers()}
    losses = network.losses(network(x), x)
    losses["total"].backward()
    assert bool(losses["total"].isfinite())
    assert all(bool((b == before[name]).all()) for name, b in network.named_buffers())


# With a BERT


def test_cls_is_the_utterance_and_sep_is_no_word():
    """Words affect the score, [SEP] does not; a text without a word still has a score."""
    network, x = with_bert(), inputs(size=3)
    texts = tokens([2, 9, 8, 7, 3], [2, 3], [2, 9, 3])
    y = replace(x, text=None, tokens=texts)
    score = network(y)["M"]
    assert bool(score.isfinite().all())
    torch.testing.assert_close(network(padded(y))["M"], score)
    for b in range(3):
        torch.testing.assert_close(network(y.select(torch.tensor([b])))["M"], score[b : b + 1])
    other = replace(y, tokens=tokens([2, 9, 8, 7, 5], [2, 3], [2, 9, 5]))
    torch.testing.assert_close(network(other)["M"], score)
    changed = network(replace(y, tokens=tokens([2, 9, 8, 6, 3], [4, 3], [2, 8, 3])))["M"]
    assert bool(((changed - score).abs() > 1e-9).all())


def test_of_a_bert_word_pieces_go_missing():
    """They become [UNK]; [CLS] and [SEP] stay. The last layer of the whole text is to be restored."""
    network, x = with_bert(missing=0.6).train(), inputs(size=3)
    y = replace(x, text=None, tokens=tokens([2, 9, 8, 7, 3], [2, 3], [2, 9, 3]))
    torch.manual_seed(0)
    lacking, lost = lose(y, 0.6, 100)
    ids, gone = lacking.tokens.frames[:, :, 0], lost["text"]
    assert bool(gone.any())
    assert not bool(gone[:, 3:].any() | gone[1].any() | gone[2, 1:].any())
    torch.testing.assert_close(ids[:, 1:4] == 100, gone[:, :3])
    assert ids[:, 0].tolist() == [2, 2, 2]
    outputs = network(y)
    torch.testing.assert_close(outputs["frames_text"][0, :3], network.bert.table(torch.tensor([9, 8, 7])))
    assert not outputs["frames_text"].requires_grad
    losses = network.losses(outputs, y)
    losses["total"].backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name


def test_a_word_piece_beyond_the_vocabulary_is_refused():
    with pytest.raises(ConfigError, match=r"unknown must be one of the encoder's 101 word pieces, got 101"):
        with_bert(missing=0.6, unknown=101)
    with_bert(unknown=101)  # no piece is removed, so `unknown` is unused


def test_every_parameter_is_in_one_group():
    network = with_bert()
    groups = network.groups()
    grouped = [parameter for group in groups for parameter in group["params"]]
    assert sorted(map(id, grouped)) == sorted(map(id, network.parameters()))
    assert [group["lr"] for group in groups] == [5e-5, 1e-3, 1e-3, 1e-4]
    assert len(groups[2]["params"]) == 6


def test_size():
    """At the widths of MMSA's unaligned MOSI (768, 5, 20) with a BERT; counted by hand, none is published."""
    network = EMT(EMT.Settings(), {"text": 768, "audio": 5, "vision": 20}, Bert(768))
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    d = 128
    assert sizes["audio"] == 4 * 32 * (5 + 32 + 2) + 33 * 16
    assert sizes["vision"] == 4 * 64 * (20 + 64 + 2) + 65 * 32
    assert sizes["project"] == d * (768 + 16 + 32)
    assert sizes["unit"] == 4 * 2 * d + 2 * 4 * d * (d + 1) + (d + 1) * 8 * d + (4 * d + 1) * d
    assert sizes["pool"] == 385 * 384 + 384
    assert sizes["head"] == (816 + 384 + 1) * 256 + 257 * 256 + 257

"""Checks of every baseline: against its oracle, with padding, at edge cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mmiln.baselines.inputs import Inputs, Sequence
from mmiln.baselines.network import Network

LENGTHS = {"text": (3, 1, 6, 4), "audio": (9, 2, 1, 5), "vision": (1, 4, 7, 2)}
WIDTHS = {"text": 7, "audio": 5, "vision": 3}
# All three, then each two of them, those with text first.
ALL_OR_TWO = [WIDTHS, *(WIDTHS | {absent: 0} for absent in ("vision", "audio", "text"))]


def inputs(
    widths: dict[str, int] | None = None, *, aligned: bool = False, size: int = 4, seed: int = 0
) -> Inputs:
    """A batch in float64 of unequal lengths, 1 among them; ``aligned``: all as long as text."""
    generator = torch.Generator().manual_seed(seed)
    parts = {}
    for name, width in (widths or WIDTHS).items():
        if width:
            lengths = torch.tensor(LENGTHS["text" if aligned else name]).repeat(size // 4 + 1)[:size]
            packed = torch.randn(int(lengths.sum()), width, generator=generator, dtype=torch.float64)
            parts[name] = Sequence.of(packed, lengths)
    labels = torch.rand(size, generator=generator, dtype=torch.float64) * 6 - 3
    return Inputs(**parts, labels=labels, index=torch.arange(size))


def utterances(x: Inputs) -> list[dict[str, Tensor]]:
    """The true frames (T, w) of each utterance by modality."""
    present = {name: s for name in WIDTHS if (s := getattr(x, name)) is not None}
    return [{name: s.frames[b, : int(s.lengths[b])] for name, s in present.items()} for b in range(len(x))]


def padded(x: Inputs, more: int = 3) -> Inputs:
    """The same batch with more padding behind every utterance."""

    def wider(s: Sequence | None) -> Sequence | None:
        return None if s is None else Sequence(torch.nn.functional.pad(s.frames, (0, 0, 0, more)), s.lengths)

    return Inputs(wider(x.tokens), wider(x.text), wider(x.audio), wider(x.vision), x.labels, x.index)


def build(kind: type[Network], widths: dict[str, int] | None = None, **fields: Any) -> Network:
    """A network in float64 with dropout switched off."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return kind(kind.Settings(**fields), widths or WIDTHS).double().eval()


def check_oracle(
    network: Network,
    oracle: Callable[[dict[str, Tensor], Any, dict[str, Tensor]], dict[str, Tensor]],
    x: Inputs,
) -> None:
    """Every output equals the oracle's for each utterance alone, to 1e-10, also with more padding."""
    state = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        results = [network(x), network(padded(x))]
        for b, utterance in enumerate(utterances(x)):
            for name, expected in oracle(state, network.settings, utterance).items():
                for outputs in results:
                    torch.testing.assert_close(outputs[name][b], expected, rtol=0, atol=1e-10)


def check_gradients(network: Network, x: Inputs) -> None:
    """The losses reach every parameter, with finite numbers; also for a batch of one."""
    network.begin_training(len(x))
    network.begin_epoch(1)
    network.train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    for name, buffer in network.named_buffers():
        if ".labels_" in name:  # pseudo-labels equal to the labels have no weight
            assert x.labels is not None
            buffer[:] = x.labels + 1
    for rows in (torch.arange(len(x)), torch.tensor([1])):
        part = x.select(rows)
        network.zero_grad()
        losses = network.losses(network(part), part)
        assert tuple(losses) == network.LOSSES
        losses[network.LOSSES[-1]].backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name
            assert len(rows) == 1 or bool((parameter.grad != 0).any()), name

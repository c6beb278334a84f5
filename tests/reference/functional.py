"""`mmiln.functional` in plain PyTorch: the same names, arguments and packed frames, an utterance at a time.

Where the op draws dropout by `dropout` and `seed`, the function here takes `keep`: what each element is
multiplied with, 0 or 1 / (1 - dropout).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import layers, losses

Lengths = Sequence[int]


def linear(x: Tensor, weight: Tensor, bias: Tensor, activation: str | None = None) -> Tensor:
    y = x @ weight.T + bias
    if activation == "relu":
        return torch.where(y > 0, y, torch.zeros_like(y))
    if activation == "sigmoid":
        return 1 / (1 + torch.exp(-y))
    if activation == "gelu":
        return y * (1 + torch.erf(y / 2**0.5)) / 2
    return y


def conv1d(x: Tensor, weight: Tensor, bias: Tensor, lengths: Lengths) -> Tensor:
    params = {"conv.weight": weight, "conv.bias": bias}
    return torch.cat([layers.conv1d(params, "conv", frames) for frames in x.split(list(lengths))])


RECURRENT = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def lstm(x: Tensor, weights: Sequence[Tensor], lengths: Lengths) -> Tensor:
    params = {f"lstm.{name}": weight for name, weight in zip(RECURRENT, weights, strict=True)}
    return torch.cat([layers.lstm(params, "lstm", frames) for frames in x.split(list(lengths))])


def bigru_control(x: Tensor, weights: Sequence[Tensor], lengths: Lengths) -> Tensor:
    names = [*RECURRENT, *(f"{name}_reverse" for name in RECURRENT)]
    params = {f"gru.{name}": weight for name, weight in zip(names, weights, strict=True)}
    return torch.stack([layers.control(params, "gru", frames) for frames in x.split(list(lengths))])


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: Lengths,
    key_lengths: Lengths | None = None,
    *,
    num_heads: int,
    keep: Sequence[Tensor] | None = None,
) -> Tensor:
    """`keep` holds (heads, T_q, T_k) for each utterance."""
    lengths = list(query_lengths), list(query_lengths if key_lengths is None else key_lengths)
    utterances = zip(query.split(lengths[0]), key.split(lengths[1]), value.split(lengths[1]), strict=True)
    if keep is None:
        return torch.cat([layers.scaled_attention(q, k, v, num_heads) for q, k, v in utterances])
    mixed = []
    for (q, k, v), kept in zip(utterances, keep, strict=True):
        q_h, k_h, v_h = (x.view(len(x), num_heads, -1).transpose(0, 1) for x in (q, k, v))
        probabilities = torch.softmax(q_h @ k_h.transpose(1, 2) / q_h.shape[2] ** 0.5, dim=2)
        mixed.append(((probabilities * kept) @ v_h).transpose(0, 1).reshape(len(q), -1))
    return torch.cat(mixed)


def source_gate(a: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    gate = linear(a, weight, bias, "sigmoid")
    return gate * a, gate


def gated_norm(
    r: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    lengths: Lengths,
    *,
    compound: Tensor | None = None,
    retain: Tensor | None = None,
    eps: float = 1e-5,
    keep: Tensor | None = None,
) -> Tensor:
    r = r if keep is None else r * keep
    if compound is not None and retain is not None:
        of_frame = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
        r, x = compound[of_frame] * r, retain[of_frame] * x
    return layers.layer_norm({"norm.weight": weight, "norm.bias": bias}, "norm", r + x, eps)


def feed_forward_norm(
    y: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    *,
    eps: float = 1e-5,
    keep: Tensor | None = None,
) -> Tensor:
    ffn = linear(linear(y, weight1, bias1, "relu"), weight2, bias2)
    ffn = ffn if keep is None else ffn * keep
    return layers.layer_norm({"norm.weight": norm_weight, "norm.bias": norm_bias}, "norm", y + ffn, eps)


def mean_pool(x: Tensor, lengths: Lengths) -> Tensor:
    return torch.stack([frames.sum(dim=0) / len(frames) for frames in x.split(list(lengths))])


def cmd(p: Tensor, q: Tensor) -> Tensor:
    return losses.sim(p, q)


def orthogonality(p: Tensor, q: Tensor, *, normalize: bool = True) -> Tensor:
    return losses.diff(p, q, normalize)


def task_loss(
    score: Tensor, label: Tensor, scores: Sequence[Tensor] = (), pseudo_labels: Sequence[Tensor] = ()
) -> Tensor:
    names = [str(n) for n in range(len(scores))]
    predictions = {"multimodal": score, **dict(zip(names, scores, strict=True))}
    return losses.task(predictions, label, dict(zip(names, pseudo_labels, strict=True)))

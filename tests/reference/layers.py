"""The building blocks, written out in elementary tensor operations.

Every function takes the flat parameter dict, the name prefix of its own parameters, and the true
frames of ONE utterance, (T, width).
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

Params = Mapping[str, Tensor]


def linear(params: Params, name: str, x: Tensor) -> Tensor:
    return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]


def layer_norm(params: Params, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = (centred * centred).mean(dim=-1, keepdim=True)
    return centred / torch.sqrt(variance + eps) * params[f"{name}.weight"] + params[f"{name}.bias"]


def conv1d(params: Params, name: str, x: Tensor) -> Tensor:
    """Odd kernel, "same" length: frame t sees t - k//2 .. t + k//2, zeros beyond both ends."""
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]  # (out, in, k), (out,)
    frames, width = x.shape
    kernel = weight.shape[2]
    zeros = x.new_zeros(kernel // 2, width)
    padded = torch.cat([zeros, x, zeros])
    return bias + sum(padded[j : j + frames] @ weight[:, :, j].T for j in range(kernel))


def lstm(params: Params, name: str, x: Tensor) -> Tensor:
    """One layer, one direction, gates i, f, g, o. (T, in) -> all hidden states (T, hidden)."""
    w_ih, w_hh = params[f"{name}.weight_ih_l0"], params[f"{name}.weight_hh_l0"]
    b_ih, b_hh = params[f"{name}.bias_ih_l0"], params[f"{name}.bias_hh_l0"]
    h = c = x.new_zeros(w_hh.shape[1])
    states = []
    for frame in x:
        i, f, g, o = (w_ih @ frame + b_ih + w_hh @ h + b_hh).chunk(4)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        states.append(h)
    return torch.stack(states)


def gru(params: Params, name: str, frames: Iterable[Tensor], suffix: str = "") -> list[Tensor]:
    """One direction, gates r, z, n: the hidden states in the order in which the frames come."""
    w_ih, w_hh = params[f"{name}.weight_ih_l0{suffix}"], params[f"{name}.weight_hh_l0{suffix}"]
    b_ih, b_hh = params[f"{name}.bias_ih_l0{suffix}"], params[f"{name}.bias_hh_l0{suffix}"]
    h = w_hh.new_zeros(w_hh.shape[1])
    states = []
    for frame in frames:
        in_r, in_z, in_n = (w_ih @ frame + b_ih).chunk(3)
        hid_r, hid_z, hid_n = (w_hh @ h + b_hh).chunk(3)
        r = torch.sigmoid(in_r + hid_r)
        z = torch.sigmoid(in_z + hid_z)
        n = torch.tanh(in_n + r * hid_n)
        h = (1 - z) * n + z * h
        states.append(h)
    return states


def control(params: Params, name: str, x: Tensor) -> Tensor:
    """c(X), (7) and (16): both directions' hidden states, averaged over time and directions."""
    forward = gru(params, name, x)
    backward = gru(params, name, reversed(list(x)), suffix="_reverse")
    return (torch.stack(forward).mean(dim=0) + torch.stack(backward).mean(dim=0)) / 2


def probabilities(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """softmax(q k^T / sqrt(width)) of each head's slice of the channels: (heads, Tq, Tk)."""
    pairs = zip(q.chunk(heads, dim=1), k.chunk(heads, dim=1), strict=True)
    return torch.stack([torch.softmax(q_h @ k_h.T / q_h.shape[1] ** 0.5, dim=1) for q_h, k_h in pairs])


def scaled_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """The probabilities times v for each head's slice of the channels, put side by side."""
    shares = zip(probabilities(q, k, heads), v.chunk(heads, dim=1), strict=True)
    return torch.cat([share @ v_h for share, v_h in shares], dim=1)


def attention(params: Params, name: str, query: Tensor, source: Tensor, heads: int) -> Tensor:
    """MHA(Q, K, V) with K = V = source, as in (10), (15) and (21)."""
    q, k, v = in_projections(params, name, query, source)
    return linear(params, f"{name}.out_proj", scaled_attention(q, k, v, heads))


def in_projections(params: Params, name: str, query: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Q, K and V of the heads, side by side."""
    w_q, w_k, w_v = params[f"{name}.in_proj_weight"].chunk(3)
    b_q, b_k, b_v = params[f"{name}.in_proj_bias"].chunk(3)
    return query @ w_q.T + b_q, source @ w_k.T + b_k, source @ w_v.T + b_v

"""The operations of MMILN by themselves, for use in other models: torch tensors in, torch tensors out.

Frames are packed: all true frames of a batch lie one after the other in one ``(sum T, width)`` tensor, and
``lengths`` says how many belong to each utterance, in order, each at least 1; a list, tuple, NumPy array or
tensor of ints. There is no padding, hence no mask: recurrent scans start from zero at each utterance's true
ends, convolutions see zeros beyond them, attention sees an utterance's own frames only.

Autograd works to first order: ``backward`` and ``torch.autograd.grad`` give gradients to every input that
asks for them, the gradient of a gradient raises ``RuntimeError``, except that of :func:`task_loss`, made of
torch's own operations. Results and gradients are the same bits on any number of threads, except that torch
adds up the gradients of :func:`orthogonality` where ``B * d`` is 32,768 or more. Dropout is by counter:
the same ``seed`` drops the same elements, another seed others, and no global generator is read or advanced;
give each place and each step a seed of its own.

All tensors of a call have one dtype, ``float32`` or ``float64``, any strides, and are on one device: the CPU,
or a CUDA device of compute capability 8.0 or later.

Symbols and equation numbers are those of Xue et al., CCL 2023: B utterances in a batch, T frames of an
utterance, d the width of the model.

>>> import torch
>>> from mmiln import functional as F
>>> frames, lengths = torch.ones(5, 4), [2, 3]  # two utterances
>>> gru = torch.nn.GRU(4, 4, bidirectional=True)
>>> control = F.bigru_control(frames, gru.parameters(), lengths)
>>> control.shape
torch.Size([2, 4])
>>> control.sum().backward()
>>> gru.weight_hh_l0.grad.shape
torch.Size([12, 4])
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import _core
from .errors import BatchError

__all__ = [
    "adam_",
    "attention",
    "bigru_control",
    "cmd",
    "conv1d",
    "feed_forward_norm",
    "gated_norm",
    "linear",
    "lstm",
    "mean_pool",
    "orthogonality",
    "source_gate",
    "task_loss",
    "ulgm_labels",
]

Lengths: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]] | Tensor
"""True lengths of a batch's utterances, in order."""

_WHOLE = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


def linear(
    x: Tensor, weight: Tensor, bias: Tensor, activation: Literal["relu", "sigmoid", "gelu"] | None = None
) -> Tensor:
    """``act(x W^T + b)``: a linear map and its activation, in one pass.

    The gates ``g_r`` (8)(19) and ``g_c`` (9)(20) of a control vector use ``"sigmoid"``, the heads (27)(28)
    ``"relu"``.

    Args:
        x: ``(rows, in)``.
        weight: ``(out, in)``, as in ``torch.nn.Linear``.
        bias: ``(out,)``.
        activation: ``"relu"``, ``"sigmoid"``, ``"gelu"`` (by the error function) or ``None``.

    Returns:
        ``(rows, out)``.

    Raises:
        BatchError: Shapes, dtypes or devices that don't fit.
        ConfigError: An unknown activation.

    >>> import torch
    >>> from mmiln import functional as F
    >>> x, layer = torch.ones(4, 3), torch.nn.Linear(3, 2)
    >>> gate = F.linear(x, layer.weight, layer.bias, "sigmoid")
    >>> torch.allclose(gate, layer(x).sigmoid(), atol=1e-6)
    True
    """
    return _core.linear(x, weight, bias, "none" if activation is None else activation)


def conv1d(x: Tensor, weight: Tensor, bias: Tensor, lengths: Lengths) -> Tensor:
    """``X_m^0 = Conv1d(M_m)`` (4): an odd kernel over time, as many frames out as in.

    Frame t sees frames ``t - k // 2`` to ``t + k // 2`` of its own utterance, zeros beyond both true ends.

    Args:
        x: ``(sum T, in)``.
        weight: ``(out, in, k)``, as in ``torch.nn.Conv1d``; k is odd.
        bias: ``(out,)``.
        lengths: T of each utterance.

    Returns:
        ``(sum T, out)``.

    Raises:
        BatchError: Shapes, lengths or dtypes that don't fit.
        ConfigError: An even kernel.

    >>> import torch
    >>> from mmiln import functional as F
    >>> x, layer = torch.ones(5, 3), torch.nn.Conv1d(3, 2, 3, padding=1)
    >>> y = F.conv1d(x, layer.weight, layer.bias, [2, 3])
    >>> torch.allclose(y[:2], layer(x[:2].T).T, atol=1e-6)
    True
    """
    return _core.conv1d(x, weight, bias, _whole("lengths", lengths))


def lstm(x: Tensor, weights: Iterable[Tensor], lengths: Lengths) -> Tensor:
    """``M_n = LSTM(x)`` (1)(2): all hidden states of one layer in one direction, from a zero state.

    Args:
        x: ``(sum T, in)``.
        weights: ``torch.nn.LSTM(in, hidden).parameters()``: weight_ih ``(4 hidden, in)``, weight_hh
            ``(4 hidden, hidden)``, bias_ih and bias_hh ``(4 hidden,)``, gates in the order i, f, g, o.
        lengths: T of each utterance.

    Returns:
        ``(sum T, hidden)``.

    Raises:
        BatchError: Shapes, lengths or dtypes that don't fit.

    >>> import torch
    >>> from mmiln import functional as F
    >>> x, layer = torch.ones(5, 3), torch.nn.LSTM(3, 2)
    >>> y = F.lstm(x, layer.parameters(), [2, 3])
    >>> torch.allclose(y[2:], layer(x[2:])[0], atol=1e-6)
    True
    """
    return _core.lstm(x, list(weights), _whole("lengths", lengths))


def bigru_control(x: Tensor, weights: Iterable[Tensor], lengths: Lengths) -> Tensor:
    """``c(X) = mean_t (forward GRU(X) + backward GRU(X)) / 2`` (7)(16): the control vector.

    Each entry lies in (-1, 1). Both directions start from a zero state at the true ends.

    Args:
        x: ``(sum T, d)``.
        weights: ``torch.nn.GRU(d, d, bidirectional=True).parameters()``: weight_ih ``(3 d, d)``, weight_hh
            ``(3 d, d)``, bias_ih and bias_hh ``(3 d,)``, gates in the order r, z, n, and the same again
            for the backward direction.
        lengths: T of each utterance.

    Returns:
        ``(B, d)``.

    Raises:
        BatchError: Shapes, lengths or dtypes that don't fit.

    >>> import torch
    >>> from mmiln import functional as F
    >>> x, layer = torch.ones(5, 4), torch.nn.GRU(4, 4, bidirectional=True)
    >>> c = F.bigru_control(x, layer.parameters(), [2, 3])
    >>> torch.allclose(c[0], layer(x[:2])[0].mean(0).view(2, 4).mean(0), atol=1e-6)
    True
    """
    return _core.bigru_control(x, list(weights), _whole("lengths", lengths))


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: Lengths,
    key_lengths: Lengths | None = None,
    *,
    num_heads: int,
    dropout: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """``dropout(softmax(Q K^T / sqrt(d / h))) V`` in h heads: the middle of MHA (10)(15)(21).

    Each utterance's queries see its own keys only. The projections before and after are :func:`linear`.

    Args:
        query: ``(sum T_q, d)``, projected; each head has its ``d / h`` channels side by side.
        key: ``(sum T_k, d)``.
        value: ``(sum T_k, d)``.
        query_lengths: T_q of each utterance.
        key_lengths: T_k of each utterance; by default the same as ``query_lengths``.
        num_heads: h, which divides d.
        dropout: Probability in [0, 1) to drop an attention probability; the others are scaled by
            ``1 / (1 - dropout)``.
        seed: The seed of the dropout.

    Returns:
        ``(sum T_q, d)``.

    Raises:
        BatchError: Shapes, lengths or dtypes that don't fit.
        ConfigError: ``num_heads`` that doesn't divide d, ``dropout`` outside [0, 1).

    >>> import torch
    >>> from mmiln import functional as F
    >>> text, audio = torch.eye(5, 4), torch.eye(3, 4)
    >>> F.attention(text, audio, audio, [2, 3], [1, 2], num_heads=2).shape
    torch.Size([5, 4])
    >>> y = F.attention(text, text, text, [5], num_heads=1)
    >>> peer = torch.nn.functional.scaled_dot_product_attention(text[None], text[None], text[None])
    >>> torch.allclose(y, peer[0], atol=1e-6)
    True
    """
    queries = _whole("query_lengths", query_lengths)
    keys = queries if key_lengths is None else _whole("key_lengths", key_lengths)
    return _core.attention(query, key, value, queries, keys, num_heads, dropout, seed)


def source_gate(a: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """``g_s = sigmoid(W_s A + b_s)`` (17) and ``S = g_s * A`` (18), one gate for each frame and channel.

    Args:
        a: ``(sum T, d)``.
        weight: ``(d, d)``.
        bias: ``(d,)``.

    Returns:
        ``(S, g_s)``, ``(sum T, d)`` each.

    Raises:
        BatchError: Shapes or dtypes that don't fit.

    >>> import torch
    >>> from mmiln import functional as F
    >>> source, gate = F.source_gate(torch.ones(3, 2), torch.zeros(2, 2), torch.zeros(2))
    >>> source.shape, gate[0].tolist()
    (torch.Size([3, 2]), [0.5, 0.5])
    """
    return _core.source_gate(a, weight, bias)


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
    dropout: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """``Y = LN(g_c * dropout(R) + g_r * X)`` (11)(22); without gates ``LN(dropout(R) + X)``.

    Args:
        r: R, ``(sum T, d)``: the output of attention.
        x: X, ``(sum T, d)``: the input of the layer, which g_r retains.
        weight: The LayerNorm's, ``(d,)``.
        bias: The LayerNorm's, ``(d,)``.
        lengths: T of each utterance.
        compound: g_c, ``(B, d)``: one gate for each utterance and channel, for all frames.
        retain: g_r, ``(B, d)``; given together with ``compound`` or not at all.
        eps: Added to the variance.
        dropout: Probability in [0, 1) to drop an element of R; the others are scaled by
            ``1 / (1 - dropout)``.
        seed: The seed of the dropout.

    Returns:
        ``(sum T, d)``.

    Raises:
        BatchError: Shapes, lengths or dtypes that don't fit, or one gate without the other.
        ConfigError: ``dropout`` outside [0, 1).

    >>> import torch
    >>> from mmiln import functional as F
    >>> r, x, norm = torch.eye(5, 4), torch.ones(5, 4), torch.nn.LayerNorm(4)
    >>> gates = torch.full((2, 4), 0.5)
    >>> y = F.gated_norm(r, x, norm.weight, norm.bias, [2, 3], compound=gates, retain=gates)
    >>> torch.allclose(y, norm(0.5 * r + 0.5 * x), atol=1e-6)
    True
    """
    where = _whole("lengths", lengths)
    return _core.gated_norm(r, x, compound, retain, weight, bias, where, eps, dropout, seed)


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
    dropout: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """``LN(Y + dropout(W_2 relu(W_1 Y + b_1) + b_2))`` (12)(23): FFN, residual and norm.

    Args:
        y: Y, ``(sum T, d)``.
        weight1: ``(inner, d)``; MMILN's inner width is 4 d.
        bias1: ``(inner,)``.
        weight2: ``(d, inner)``.
        bias2: ``(d,)``.
        norm_weight: The LayerNorm's, ``(d,)``.
        norm_bias: The LayerNorm's, ``(d,)``.
        eps: Added to the variance.
        dropout: Probability in [0, 1) to drop an element of FFN's output; the others are scaled by
            ``1 / (1 - dropout)``.
        seed: The seed of the dropout.

    Returns:
        ``(sum T, d)``.

    Raises:
        BatchError: Shapes or dtypes that don't fit.
        ConfigError: ``dropout`` outside [0, 1).

    >>> import torch
    >>> from mmiln import functional as F
    >>> inner, outer, norm = torch.nn.Linear(3, 12), torch.nn.Linear(12, 3), torch.nn.LayerNorm(3)
    >>> parameters = [*inner.parameters(), *outer.parameters(), *norm.parameters()]
    >>> y = torch.eye(4, 3)
    >>> torch.allclose(F.feed_forward_norm(y, *parameters), norm(y + outer(inner(y).relu())), atol=1e-5)
    True
    """
    return _core.feed_forward_norm(
        y, weight1, bias1, weight2, bias2, norm_weight, norm_bias, eps, dropout, seed
    )


def mean_pool(x: Tensor, lengths: Lengths) -> Tensor:
    """The mean over each utterance's true frames, which the heads (27)(28) read.

    Args:
        x: ``(sum T, width)``.
        lengths: T of each utterance.

    Returns:
        ``(B, width)``.

    Raises:
        BatchError: Shapes or lengths that don't fit.

    >>> import torch
    >>> from mmiln import functional as F
    >>> F.mean_pool(torch.tensor([[1.0], [3.0], [5.0]]), [2, 1]).tolist()
    [[2.0], [5.0]]
    """
    return _core.mean_pool(x, _whole("lengths", lengths))


def cmd(p: Tensor, q: Tensor) -> Tensor:
    """Central moment discrepancy of two samples on [-1, 1] (24)(25), with K = 5 moments.

    ``||mean(P) - mean(Q)||_2 / 2 + sum_{k=2..5} ||C_k(P) - C_k(Q)||_2 / 2^k``, means and central moments
    C_k over the rows. Where a norm is zero its gradient is zero, never NaN.

    Args:
        p: P, ``(B, d)``.
        q: Q, ``(B, d)``.

    Returns:
        A scalar.

    Raises:
        BatchError: Shapes or dtypes that don't fit.

    >>> import torch
    >>> from mmiln import functional as F
    >>> p = torch.tensor([[-0.5], [0.5]], requires_grad=True)
    >>> F.cmd(p, p + 0.25).item()  # shifted: the means differ, the central moments don't
    0.125
    >>> F.cmd(p, p.detach()).backward()
    >>> p.grad.tolist()
    [[0.0], [0.0]]
    """
    return _core.cmd(p, q)


def orthogonality(p: Tensor, q: Tensor, *, normalize: bool = True) -> Tensor:
    """``||P^T Q||_F^2`` (26): how much two sets of vectors have in common.

    Args:
        p: P, ``(B, d)``.
        q: Q, ``(B, d)``.
        normalize: Centre columns over the batch, divide rows by their L2 norm + 1e-6, and take the mean
            over the d * d entries instead of the sum. The norms count as constants in the gradient.

    Returns:
        A scalar.

    Raises:
        BatchError: Shapes or dtypes that don't fit.

    >>> import torch
    >>> from mmiln import functional as F
    >>> p, q = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    >>> F.orthogonality(p, q, normalize=False).item()
    4.0
    """
    return _core.orthogonality(p, q, normalize)


def task_loss(
    score: Tensor, label: Tensor, scores: Iterable[Tensor] = (), pseudo_labels: Iterable[Tensor] = ()
) -> Tensor:
    """``mean_i [(yhat_m - y_m)^2 + sum_n tanh|y_n - y_m| * |yhat_n - y_n|]`` (35).

    Labels and pseudo-labels are targets: gradients go to ``score`` and ``scores``.

    Args:
        score: yhat_m, ``(B,)``.
        label: y_m, ``(B,)``.
        scores: yhat_n of each other modality, ``(B,)`` each.
        pseudo_labels: y_n of the same modalities, ``(B,)`` each.

    Returns:
        A scalar.

    Raises:
        BatchError: Shapes or dtypes that don't fit, or not one pseudo-label tensor for each of ``scores``.

    >>> import torch
    >>> from mmiln import functional as F
    >>> score, label = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 2.0])
    >>> F.task_loss(score, label).item()
    0.5
    >>> F.task_loss(score, label, [score], [label]).item()  # a pseudo-label that agrees weighs nothing
    0.5
    """
    return _core.task_loss(score, label, list(scores), list(pseudo_labels))


def ulgm_labels(
    *,
    old: Tensor,
    label: Tensor,
    features: Tensor,
    positive: Tensor,
    negative: Tensor,
    features_m: Tensor,
    positive_m: Tensor,
    negative_m: Tensor,
    epoch: int,
    bound: float = 3.0,
) -> Tensor:
    """The new pseudo-labels of one modality s by ULGM (29)-(34). Not differentiable.

    With ``D = ||F - C||_2 / sqrt(dim)`` to the positive and negative centres and
    ``alpha = (D^n - D^p) / (D^p + eps)``, of s and of the multimodal features m:
    ``new = y_m * alpha_s / (2 * (alpha_m + eps)) + (y_m + alpha_s - alpha_m) / 2``, clamped to
    ``[-bound, bound]``, and ``y_s <- (n - 1) / (n + 1) * y_s + 2 / (n + 1) * new`` in epoch n; eps 1e-8.

    Args:
        old: y_s, ``(R,)``.
        label: y_m, ``(R,)``.
        features: F_s, ``(R, dim)``.
        positive: The centre C_s^p, ``(dim,)``.
        negative: The centre C_s^n, ``(dim,)``.
        features_m: F_m, ``(R, dim_m)``.
        positive_m: The centre C_m^p, ``(dim_m,)``.
        negative_m: The centre C_m^n, ``(dim_m,)``.
        epoch: n, counted from 1; ULGM relabels from the second on.
        bound: H, the largest size of a label.

    Returns:
        ``(R,)``.

    Raises:
        BatchError: Shapes or dtypes that don't fit.

    >>> import torch
    >>> from mmiln import functional as F
    >>> positive, negative = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])
    >>> new = F.ulgm_labels(
    ...     old=torch.tensor([1.0]), label=torch.tensor([1.0]),
    ...     features=positive[None], positive=positive, negative=negative,
    ...     features_m=torch.zeros(1, 2), positive_m=positive, negative_m=negative,
    ...     epoch=2,
    ... )  # features as positive as can be: (1 * old + 2 * bound) / 3
    >>> f"{new.item():.4f}"
    '2.3333'
    """
    return _core.ulgm_labels(
        old, label, features, positive, negative, features_m, positive_m, negative_m, epoch, bound
    )


def adam_(
    weights: Tensor,
    grad: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    step: int,
    lr: float,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> None:
    """One step of Adam, or of AdamW, in place: ``weights``, ``first`` and ``second`` change.

    The arithmetic is that of ``torch.optim.Adam`` and ``AdamW`` with betas .9 and .999 and eps 1e-8.

    Args:
        weights: ``(N,)``, contiguous; all parameters of a group in a row.
        grad: ``(N,)``, contiguous; left as it is.
        first: The first moments, ``(N,)``, contiguous; zeros before the first step.
        second: The second moments, the same.
        step: Which step this is, counted from 1.
        lr: The learning rate.
        weight_decay: The decay; 0 is none.
        decoupled: Whether the decay shrinks the weights (AdamW) instead of adding to the gradient (Adam).

    Raises:
        BatchError: Tensors that are not flat and contiguous, or of different sizes or dtypes.

    >>> import torch
    >>> from mmiln import functional as F
    >>> weights, first, second = torch.ones(3), torch.zeros(3), torch.zeros(3)
    >>> F.adam_(weights, torch.ones(3), first, second, step=1, lr=0.5)
    >>> weights.round(decimals=4).tolist()
    [0.5, 0.5, 0.5]
    """
    _core.adam_(weights, grad, first, second, step, lr, weight_decay, decoupled)
    torch.autograd.graph.increment_version([weights, first, second])


def _whole(name: str, lengths: Any) -> list[int]:
    """The list of ints that ``lengths`` holds; floats are refused, whole ones too."""
    given = ""  # describes a wrong argument
    numbers: list[Any] = []
    if isinstance(lengths, Tensor):
        if lengths.ndim != 1 or lengths.dtype not in _WHOLE:
            given = f"a tensor of shape {tuple(lengths.shape)}, {lengths.dtype}"
        else:
            numbers = lengths.tolist()
    elif isinstance(lengths, np.ndarray):
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
            given = f"an array of shape {lengths.shape}, dtype {lengths.dtype}"
        else:
            numbers = lengths.tolist()
    elif isinstance(lengths, Sequence) and not isinstance(lengths, (str, bytes)):
        for place, length in enumerate(lengths):
            try:
                if isinstance(length, (bool, np.bool_)):
                    raise TypeError
                numbers.append(operator.index(length))
            except TypeError:
                given = f"{length!r} at place {place}"
                break
    else:
        given = type(lengths).__name__
    if given:
        raise BatchError(
            f"{name} must be a flat list, array or tensor of whole numbers, one an utterance, such as "
            f"[3, 1, 2]; got {given}"
        )
    if any(abs(number) >= 2**63 for number in numbers):
        raise BatchError(f"{name} holds {max(numbers, key=abs)}: no tensor has so many frames")
    return numbers

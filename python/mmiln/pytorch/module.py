"""MMILN (Xue et al., CCL 2023) in plain PyTorch, a line for each of the paper's equations.

It needs nothing but torch and the file beside it: both can be copied into another project.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from .bert import Bert

Lengths = Tensor | Sequence[int]


class MMILN(nn.Module):
    """The model on padded batches; parameters have the names and layouts of ``model.safetensors``.

    Its weights are PyTorch's initial ones until ``load_state_dict``.

    Args:
        config: The ``config.json`` of a saved model, of which ``model``, ``text_encoder`` and ``label_range``
            are read.

    >>> import mmiln, torch
    >>> model = mmiln.Model("mosi", text_dim=8, audio_dim=5, vision_dim=0, num_layers=1)
    >>> module = model.to_torch()
    >>> text, audio = torch.randn(2, 4, 8), torch.randn(2, 9, 5)
    >>> module(text=text, audio=audio, text_lengths=torch.tensor([4, 1]))["score"].shape
    torch.Size([2])
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = config
        c, d = config["model"], config["model"]["d_model"]
        self.sources = [n for n in ("audio", "vision") if c[f"{n}_dim"]]
        has_text, has_sag = c["text_dim"] > 0, c["text_dim"] > 0 and c["variant"] != "no_gate_fusion"
        self.text_led = [f"text_{n}" for n in self.sources] if has_sag else []
        self.pools_first = c["pooling"] == "first"

        self.heads = nn.ModuleDict()
        if has_text:
            self.text = TextEncoder(c, config.get("text_encoder"))
            pooled = len(self.text_led) or 1 + len(self.sources)
            self.heads["multimodal"] = Head(d * pooled, c["multimodal_features"], c["multimodal_dropout"])
        for n in self.sources:
            setattr(self, n, SequenceEncoder(c, n))
            self.heads[n] = Head(d, c[f"{n}_features"], c[f"{n}_dropout"])
        streams = dict.fromkeys(self.sources, GateTransformer) | dict.fromkeys(self.text_led, SAGTransformer)
        self.fusion: Any = nn.ModuleList(
            nn.ModuleDict({f: kind(c) for f, kind in streams.items()}) for _ in range(c["num_layers"])
        )
        # Labels in [-h, h] with h up to 3 are learned as they are, others are mapped to [-3, 3].
        low, high = config["label_range"]
        kept = -low == high <= 3
        self.unit: float = 1 if kept else (high - low) / 6
        self.centre: float = 0 if kept else (high + low) / 2
        sources = [getattr(self, n) for n in self.sources if c.get(f"freeze_{n}")]
        for part in [*self.frozen(), *sources]:
            part.requires_grad_(False)
        self.train()

    def forward(
        self,
        *,
        text: Tensor | None = None,
        text_bert: Tensor | None = None,
        audio: Tensor | None = None,
        vision: Tensor | None = None,
        text_lengths: Lengths | None = None,
        audio_lengths: Lengths | None = None,
        vision_lengths: Lengths | None = None,
    ) -> dict[str, Tensor]:
        """Scores and features of a batch, padded at the end; what the padding holds changes nothing.

        Args:
            text: Features ``(B, T, width)``, for a model without text encoder.
            text_bert: Token ids, mask and segments ``(B, 3, T)``, for a model with one.
            audio: ``(B, T, width)``, as is ``vision``.
            vision: The same for vision.
            text_lengths: Numbers of true frames of ``text`` ``(B,)``; without them all are true. Those of
                ``text_bert`` are what its mask marks.
            audio_lengths: The same for audio.
            vision_lengths: The same for vision.

        Returns:
            ``score`` ``(B,)`` as ``model.predict`` gives it, in the unit of the labels; and as
            ``model.forward`` has them ``y_*`` ``(B,)``, ``F_*`` ``(B, features)`` and, of the last layer,
            ``control.<stream>`` ``(B, d)``.

        Raises:
            ValueError: The batch lacks what the model reads.
        """
        x, true = {}, {}
        x_t = None
        if "multimodal" in self.heads:
            if self.text.bert is not None:
                frames = _given("text_bert", text_bert)
                true["text"] = _true(frames, frames.shape[2], (frames[:, 1] != 0).sum(1))
            else:
                frames = _given("text", text)
                true["text"] = _true(frames, frames.shape[1], text_lengths)
            x_t = self.text(frames, true["text"])  # X_t^0: (3) (4)
            x = dict.fromkeys(self.text_led, x_t)  # X_ta^0 = X_tv^0 = X_t^0
        lengths = {"audio": audio_lengths, "vision": vision_lengths}
        for n in self.sources:
            frames = _given(n, {"audio": audio, "vision": vision}[n])
            true[n] = _true(frames, frames.shape[1], lengths[n])
            x[n] = getattr(self, n)(frames, true[n])  # X_n^0: (1) (2) (4)

        controls: dict[str, Tensor] = {}
        for layer in self.fusion:  # X^i from X^{i-1}
            y, attended = {}, {}
            for n in self.sources:
                y[n], attended[n], controls[n] = layer[n](x[n], true[n])  # (7)-(12)
            for f, n in zip(self.text_led, self.sources, strict=False):
                y[f], controls[f] = layer[f](x[f], true["text"], attended[n], true[n])  # (15)-(23)
            x = y

        pooled = {n: mean(x[n], true[n]) for n in self.sources}
        z = dict(pooled)
        if x_t is not None:
            led = [x[f] for f in self.text_led] or [x_t]
            led = [frames[:, 0] if self.pools_first else mean(frames, true["text"]) for frames in led]
            others = [] if self.text_led else list(pooled.values())
            z["multimodal"] = torch.cat([*led, *others], 1)
        out = {}
        for u, head in self.heads.items():
            out[f"F_{u}"], out[f"y_{u}"] = head(z[u])  # (27) (28)
        out |= {f"control.{f}": c for f, c in controls.items() if c is not None}
        return {"score": out[f"y_{next(iter(self.heads))}"] * self.unit + self.centre} | out

    def frozen(self) -> list[nn.Module]:
        """The parts of the text encoder that ``freeze_text`` names: without gradients and without dropout."""
        freeze = self.config["model"].get("freeze_text", False)
        bert = self.text.bert if "multimodal" in self.heads else None
        if bert is None or freeze is False:
            return []
        layers = list(bert.encoder["layer"])
        count = len(layers) if freeze is True else 0 if freeze == "embeddings" else freeze
        return [bert.embeddings, *layers[:count]]

    def train(self, mode: bool = True) -> Self:
        """Switches dropout on or off; frozen parts stay without."""
        super().train(mode)
        for part in self.frozen():
            part.eval()
        return self


class TextEncoder(nn.Module):
    """X_t^0 = Conv1d(M_t) (4), where M_t = BERT(words) (3) or the features that are given."""

    def __init__(self, c: Mapping[str, Any], bert: Mapping[str, Any] | None) -> None:
        super().__init__()
        self.bert = None if bert is None else Bert(bert)
        self.conv = convolution(c["text_dim"], c["d_model"], c["text_kernel"])
        self.dropout = nn.Dropout(c["embed_dropout"])

    def forward(self, frames: Tensor, true: Tensor) -> Tensor:
        m = frames
        if self.bert is not None:
            ids, _, segments = frames.masked_fill(~true[:, None], 0).unbind(1)
            m = self.bert(ids, segments, true)  # (3)
        return self.dropout(convolved(self.conv, only(m, true)))  # (4)


class SequenceEncoder(nn.Module):
    """X_n^0 = Conv1d(LSTM(x_n)) of audio or vision: (1) (2) (4)."""

    def __init__(self, c: Mapping[str, Any], n: str) -> None:
        super().__init__()
        self.lstm = nn.LSTM(c[f"{n}_dim"], c[f"{n}_hidden"], batch_first=True)
        self.conv = convolution(c[f"{n}_hidden"], c["d_model"], c[f"{n}_kernel"])
        self.dropout = nn.Dropout(c["embed_dropout"])

    def forward(self, x: Tensor, true: Tensor) -> Tensor:
        m = lstm(self.lstm, only(x, true))  # (1) (2)
        return self.dropout(convolved(self.conv, only(m, true)))  # (4)


class GateTransformer(nn.Module):
    """A layer of audio or vision, (7)-(12). In the variant without gates every gate is 1."""

    def __init__(self, c: Mapping[str, Any]) -> None:
        super().__init__()
        d = c["d_model"]
        self.gated = c["variant"] != "no_mfm"
        if self.gated:
            self.gru = nn.GRU(d, d, batch_first=True, bidirectional=True)
            self.retain, self.compound = nn.Linear(d, d), nn.Linear(d, d)
        self.attention = nn.MultiheadAttention(d, c["num_heads"], c["attn_dropout"], batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.ffn = nn.ModuleDict({"linear1": nn.Linear(d, 4 * d), "linear2": nn.Linear(4 * d, d)})
        self.dropout = nn.Dropout(c["residual_dropout"])

    def forward(self, x: Tensor, true: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """X_n^i, A and c from X_n^{i-1}."""
        c, g_r, g_c = self.gates(x, true)  # (7) (8) (9)
        a = attend(self.attention, x, x, true)  # (10)
        y = self.norm1(g_c * self.dropout(a) + g_r * x)  # (11)
        return self.norm2(y + self.feed_forward(y)), a, c  # (12)

    def gates(self, x: Tensor, true: Tensor) -> tuple[Tensor | None, Tensor | float, Tensor | float]:
        """Control vector c ``(B, d)`` and gates g_r and g_c ``(B, 1, d)``."""
        if not self.gated:
            return None, 1.0, 1.0
        c = control(self.gru, x, true)  # (7) (16)
        return c, torch.sigmoid(self.retain(c))[:, None], torch.sigmoid(self.compound(c))[:, None]

    def feed_forward(self, y: Tensor) -> Tensor:
        """FFN(Y) = W_2 relu(W_1 Y + b_1) + b_2."""
        return self.dropout(self.ffn["linear2"](torch.relu(self.ffn["linear1"](y))))


class SAGTransformer(GateTransformer):
    """A layer of text that audio or vision supplements, (15)-(23)."""

    def __init__(self, c: Mapping[str, Any]) -> None:
        super().__init__(c)
        d = c["d_model"]
        self.self_attention = nn.MultiheadAttention(d, c["num_heads"], c["attn_dropout"], batch_first=True)
        if self.gated:
            self.source = nn.Linear(d, d)

    def forward(  # type: ignore[override]
        self, x: Tensor, true: Tensor, a: Tensor, a_true: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """X_f^i and c from X_f^{i-1} and the source's A."""
        h = attend(self.self_attention, x, x, true)  # (15)
        c, g_r, g_c = self.gates(x, true)  # (16) (19) (20)
        g_s = torch.sigmoid(self.source(a)) if self.gated else 1.0  # (17)
        s = g_s * a  # (18)
        r = attend(self.attention, h, s, a_true)  # (21)
        y = self.norm1(g_c * self.dropout(r) + g_r * x)  # (22)
        return self.norm2(y + self.feed_forward(y)), c  # (23)


class Head(nn.Module):
    """F_u and y_u from z_u, (27) and (28)."""

    def __init__(self, width: int, features: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, features)
        self.linear2 = nn.Linear(features, features)
        self.linear3 = nn.Linear(features, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        f = torch.relu(self.linear1(self.dropout(z)))
        return f, self.linear3(torch.relu(self.linear2(f)))[:, 0]


def padded(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """The arguments of :meth:`MMILN.forward` from a batch of lists, such as a split's loader yields.

    Args:
        batch: Holds an array for each utterance: ``text``, ``audio``, ``vision`` ``(T, width)`` and
            ``text_bert`` ``(3, T)``; or arrays that are padded at the end, with ``text_lengths`` and so on.
            What else it holds is left out.
    """
    out: dict[str, Tensor] = {}
    for name in ("text", "text_bert", "audio", "vision"):
        if batch.get(name) is None:
            continue
        frames = [torch.as_tensor(u) for u in batch[name]]
        if name == "text_bert":
            out[name] = pad_sequence([u.T for u in frames], batch_first=True).transpose(1, 2)
        else:
            out[name] = pad_sequence(frames, batch_first=True)
            lengths = batch.get(f"{name}_lengths")
            out[f"{name}_lengths"] = torch.as_tensor([len(u) for u in frames] if lengths is None else lengths)
    return out


def attend(mha: nn.MultiheadAttention, query: Tensor, x: Tensor, true: Tensor) -> Tensor:
    """MHA(Q, X, X) over the true frames of X: (10) (15) (21)."""
    attended: Tensor = mha(query, x, x, key_padding_mask=~true, need_weights=False)[0]
    return attended


def control(gru: nn.GRU, x: Tensor, true: Tensor) -> Tensor:
    """c(X) ``(B, d)``: the states of both directions, averaged over time and directions, (7) and (16)."""
    if torch.compiler.is_exporting():
        there, back = gru.all_weights
        last, steps = true.sum(1, keepdim=True) - 1, torch.arange(x.shape[1], device=x.device)
        turned = x.gather(1, (last - steps).clamp(min=0)[:, :, None].expand_as(x))
        forward, backward = scanned(gru_cell, x, there), scanned(gru_cell, turned, back)
        return (mean(forward, true) + mean(backward, true)) / 2
    packed = pack_padded_sequence(x, true.sum(1).cpu(), batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(gru(packed)[0], batch_first=True, total_length=x.shape[1])
    forward, backward = states.chunk(2, 2)
    return mean((forward + backward) / 2, true)


def lstm(rnn: nn.LSTM, x: Tensor) -> Tensor:
    """The state of each frame ``(B, T, hidden)``, (1) and (2)."""
    if torch.compiler.is_exporting():
        return scanned(lstm_cell, x, rnn.all_weights[0])
    states: Tensor = rnn(x)[0]
    return states


def scanned(cell: Callable[..., list[Tensor]], x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The state of each frame: ``torch.export`` would unroll an RNN of torch to a fixed number of frames."""
    w_ih, w_hh, b_ih, b_hh = weights

    def step(*given: Tensor) -> list[Tensor]:
        *state, of_frame, w, b = given
        state = cell(of_frame, F.linear(state[0], w, b), state)
        return [*state, state[0].clone()]

    start = x.new_zeros(x.shape[0], w_hh.shape[1])
    first = [start, start.clone()] if cell is lstm_cell else [start]
    of_frames = F.linear(x, w_ih, b_ih).transpose(0, 1).contiguous()
    states: Tensor = torch.ops.higher_order.scan(step, first, [of_frames], (w_hh, b_hh))[-1]
    return states.transpose(0, 1)


def lstm_cell(of_frame: Tensor, of_state: Tensor, state: list[Tensor]) -> list[Tensor]:
    """The state (h, c) from the sums of the gates i, f, g, o."""
    i, f, g, o = (of_frame + of_state).chunk(4, 1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return [torch.sigmoid(o) * torch.tanh(c), c]


def gru_cell(of_frame: Tensor, of_state: Tensor, state: list[Tensor]) -> list[Tensor]:
    """The state (h) from the sums of the gates r, z, n."""
    (r, z, n), (h_r, h_z, h_n) = of_frame.chunk(3, 1), of_state.chunk(3, 1)
    z, n = torch.sigmoid(z + h_z), torch.tanh(n + torch.sigmoid(r + h_r) * h_n)
    return [(1 - z) * n + z * state[0]]


def convolution(width: int, d: int, kernel: int) -> nn.Conv1d:
    """A convolution over time, of odd width, that keeps the length."""
    return nn.Conv1d(width, d, kernel, padding=kernel // 2)


def convolved(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """Conv1d(X) of frames ``(B, T, width)``, zeros beyond both ends, (4)."""
    return conv(x.transpose(1, 2)).transpose(1, 2)


def only(x: Tensor, true: Tensor) -> Tensor:
    """The frames ``(B, T, width)`` with zeros in the place of padding."""
    return x.masked_fill(~true[:, :, None], 0)


def mean(x: Tensor, true: Tensor) -> Tensor:
    """The mean over true frames, ``(B, width)``."""
    return only(x, true).sum(1) / true.sum(1, keepdim=True)


def _true(frames: Tensor, steps: int, lengths: Lengths | None) -> Tensor:
    """Which frames are no padding, ``(B, T)``."""
    if lengths is None:
        return torch.ones(frames.shape[0], steps, dtype=torch.bool, device=frames.device)
    return torch.arange(steps, device=frames.device) < torch.as_tensor(lengths, device=frames.device)[:, None]


def _given(name: str, frames: Tensor | None) -> Tensor:
    if frames is None:
        raise ValueError(f"the model reads {name}, and the call gives none: pass {name}=")
    return frames

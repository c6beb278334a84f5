"""MMILN as a good PyTorch programmer writes it: batched, masked, packed BiGRUs, fused attention and Adam.

The full variant with all three modalities, under mmiln's parameter names. Cropped, arrays are as wide as
the batch's longest utterance and every number equals mmiln's. Padded, they are as wide as in the files and
the BiGRUs run over the padding, as in the field's toolkits: masks keep the padding out of attention,
convolution and means, but the backward half of a BiGRU starts in it, so that control vectors (and all that
depends on them) are different. The padded version only shows its cost.

The model runs on the device of its weights. For a card, arrays are built on the CPU, pinned and copied
without waiting; an index that is built once for each batch packs frames for the BiGRUs, as torch's own
packing waits for the card.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence, pad_sequence

FILE_WIDTHS = {"text": 50, "audio": 375, "vision": 500}  # in CMU-MOSI's unaligned file
MODALITIES = ("text", "audio", "vision")
SOURCES = ("audio", "vision")
HEADS = ("multimodal", *SOURCES)

Config = Mapping[str, Any]
Batch = Mapping[str, Any]
Outputs = dict[str, Tensor]


@dataclass
class Layout:
    """Where the true frames of one modality lie in its (B, T, width) array."""

    lengths: Tensor  # (B,), on the CPU
    mask: Tensor  # (B, T), true at true frames
    averages: Tensor  # (B, 1, T), 1 / length at true frames: the mean over time as a product
    pack_bigrus: bool
    packing: tuple[Tensor, Tensor] | None = None  # see `packing`

    @classmethod
    def of(cls, lengths: Tensor, width: int, weight: Tensor, pack_bigrus: bool) -> Layout:
        """The layout of `lengths`, on the device and in the dtype of `weight`."""
        on_device = moved(lengths, weight.device)[:, None]
        mask = torch.arange(width, device=weight.device) < on_device
        return cls(lengths, mask, (mask.to(weight.dtype) / on_device)[:, None], pack_bigrus)

    def recur(self, rnn: nn.RNNBase, x: Tensor) -> Tensor:
        # Padding behind the frames can't change a one-way RNN's earlier states; unpacked is faster.
        if not self.pack_bigrus or not rnn.bidirectional:
            return rnn(x)[0]
        if self.packing is not None:
            order, batch_sizes = self.packing
            states = rnn(PackedSequence(x.flatten(0, 1).index_select(0, order), batch_sizes))[0].data
            unpacked = states.new_zeros(x.shape[0] * x.shape[1], states.shape[1])
            return unpacked.index_copy(0, order, states).unflatten(0, x.shape[:2])
        packed = pack_padded_sequence(x, self.lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(rnn(packed)[0], batch_first=True, total_length=x.shape[1])[0]

    def convolve(self, conv: nn.Conv1d, x: Tensor) -> Tensor:
        if conv.kernel_size[0] > 1:  # a frame sees its neighbours, which must be zeros beyond the end
            x = x * self.mask[..., None]
        return conv(x.transpose(1, 2)).transpose(1, 2).contiguous()

    def mean(self, x: Tensor) -> Tensor:
        return torch.bmm(self.averages, x).squeeze(1)


def packing(lengths: Tensor, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of a (B * T, ...) array in the order of a packed sequence, and its batch sizes."""
    lengths, by_length = lengths.sort(descending=True, stable=True)
    steps = torch.arange(int(lengths[0]))[:, None]
    there = steps < lengths
    return moved((by_length * width + steps)[there], device), there.sum(dim=1)


def moved(x: Tensor, device: torch.device) -> Tensor:
    """A copy on a card, made without waiting for it; on the CPU the tensor itself."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * width, width)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, query: Tensor, source: Tensor, keys: Layout) -> Tensor:
        width = query.shape[-1]
        if source is query:
            q, k, v = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        else:
            (w_q, w_kv), (b_q, b_kv) = (
                p.split([width, 2 * width]) for p in (self.in_proj_weight, self.in_proj_bias)
            )
            q, (k, v) = F.linear(query, w_q, b_q), F.linear(source, w_kv, b_kv).chunk(2, dim=-1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=keys.mask[:, None, None], dropout_p=self.dropout if self.training else 0.0
        )
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)

    def forward(self, y: Tensor) -> Tensor:
        return self.linear2(F.relu(self.linear1(y)))


class Stream(nn.Module):
    """Shared by both transformers: control vector, gates, norms, feed-forward network."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        d = config["d_model"]
        self.gru = nn.GRU(d, d, bidirectional=True, batch_first=True)
        self.retain, self.compound = nn.Linear(d, d), nn.Linear(d, d)
        self.attention = Attention(d, config["num_heads"], config["attn_dropout"])
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.ffn = FeedForward(d)
        self.dropout = nn.Dropout(config["residual_dropout"])

    def finish(self, x: Tensor, mixed: Tensor, frames: Layout) -> tuple[Tensor, Tensor]:
        """X^i and the control vectors of X^(i-1)."""
        control = frames.mean(frames.recur(self.gru, x)).unflatten(1, (2, -1)).mean(dim=1)
        g_r, g_c = (gate(control).sigmoid()[:, None] for gate in (self.retain, self.compound))
        y = self.norm1(torch.addcmul(g_r * x, g_c, self.dropout(mixed)))
        return self.norm2(y + self.dropout(self.ffn(y))), control


class GateTransformer(Stream):
    def forward(self, x: Tensor, frames: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """X^i, the control vectors, and A for the text-led stream."""
        a = self.attention(x, x, frames)
        return *self.finish(x, a, frames), a


class SagTransformer(Stream):
    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.self_attention = Attention(config["d_model"], config["num_heads"], config["attn_dropout"])
        self.source = nn.Linear(config["d_model"], config["d_model"])

    def forward(self, x: Tensor, a: Tensor, text: Layout, source: Layout) -> tuple[Tensor, Tensor]:
        h = self.self_attention(x, x, text)
        s = self.source(a).sigmoid() * a
        return self.finish(x, self.attention(h, s, source), text)


class TextEncoder(nn.Module):
    def __init__(self, config: Config, bert: nn.Module | None) -> None:
        super().__init__()
        kernel = config["text_kernel"]
        self.bert = bert
        self.conv = nn.Conv1d(config["text_dim"], config["d_model"], kernel, padding=kernel // 2)
        self.dropout = nn.Dropout(config["embed_dropout"])

    def forward(self, text: Tensor, frames: Layout) -> Tensor:
        if self.bert is not None:
            ids, segments = text.unbind(-1)
            mask = frames.mask.long()
            text = self.bert(ids, attention_mask=mask, token_type_ids=segments).last_hidden_state
        return self.dropout(frames.convolve(self.conv, text))


class SequenceEncoder(nn.Module):
    def __init__(self, config: Config, name: str) -> None:
        super().__init__()
        kernel, hidden = config[f"{name}_kernel"], config[f"{name}_hidden"]
        self.lstm = nn.LSTM(config[f"{name}_dim"], hidden, batch_first=True)
        self.conv = nn.Conv1d(hidden, config["d_model"], kernel, padding=kernel // 2)
        self.dropout = nn.Dropout(config["embed_dropout"])

    def forward(self, x: Tensor, frames: Layout) -> Tensor:
        return self.dropout(frames.convolve(self.conv, frames.recur(self.lstm, x)))


class Head(nn.Module):
    def __init__(self, config: Config, name: str) -> None:
        super().__init__()
        d, width = config["d_model"], config[f"{name}_features"]
        self.dropout = nn.Dropout(config[f"{name}_dropout"])
        self.linear1 = nn.Linear(2 * d if name == "multimodal" else d, width)
        self.linear2 = nn.Linear(width, width)
        self.linear3 = nn.Linear(width, 1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        f = F.relu(self.linear1(self.dropout(z)))
        return f, self.linear3(F.relu(self.linear2(f))).squeeze(1)


class Peer(nn.Module):
    """The model; its `state_dict()` has the names of mmiln's.

    Args:
        config: All fields of model and training, `mmiln.Model(...).config.to_dict()`.
        bert: A `transformers.BertModel` that reads `text_bert`; without one, `text` is read.
        padded: Whether arrays are padded to the file's widths and RNNs not packed.

    Attributes:
        pack_by_index: Whether frames are packed as for a card on the CPU, too.
    """

    def __init__(self, config: Config, bert: nn.Module | None = None, padded: bool = False) -> None:
        super().__init__()
        self.config, self.padded = config, padded
        self.pack_by_index = False
        self.text = TextEncoder(config, bert)
        self.audio, self.vision = (SequenceEncoder(config, name) for name in SOURCES)
        self.fusion = nn.ModuleList(
            nn.ModuleDict(
                {name: GateTransformer(config) for name in SOURCES}
                | {f"text_{name}": SagTransformer(config) for name in SOURCES}
            )
            for _ in range(config["num_layers"])
        )
        self.heads = nn.ModuleDict({name: Head(config, name) for name in HEADS})

    def collate(self, batch: Batch) -> dict[str, tuple[Tensor, Layout]]:
        """Padded arrays from lists of true frames, as a toolkit's loader makes them."""
        arrays = {}
        weight = self.text.conv.weight
        for name in MODALITIES:
            if name == "text" and self.text.bert is not None:
                utterances = [torch.as_tensor(u)[[0, 2]].T for u in batch["text_bert"]]
            else:
                utterances = [torch.as_tensor(u) for u in batch[name]]
            lengths = torch.tensor([len(u) for u in utterances])
            x = pad_sequence(utterances, batch_first=True)
            if self.padded:
                x = F.pad(x, (0, 0, 0, max(0, FILE_WIDTHS[name] - x.shape[1])))
            layout = Layout.of(lengths, x.shape[1], weight, pack_bigrus=not self.padded)
            if self.pack_by_index or weight.device.type == "cuda":
                layout.packing = packing(lengths, x.shape[1], weight.device)
            arrays[name] = moved(x, weight.device), layout
        return arrays

    def forward(self, arrays: Mapping[str, tuple[Tensor, Layout]]) -> Outputs:
        """`y_*`, `F_*` and the last layer's `control.*`."""
        at = {name: frames for name, (_, frames) in arrays.items()}
        text = self.text(*arrays["text"])
        x = {name: getattr(self, name)(*arrays[name]) for name in SOURCES}
        x |= {f"text_{name}": text for name in SOURCES}
        out: Outputs = {}
        for layer in self.fusion:
            for name in SOURCES:
                led = f"text_{name}"
                x[name], out[f"control.{name}"], a = layer[name](x[name], at[name])
                x[led], out[f"control.{led}"] = layer[led](x[led], a, at["text"], at[name])
        pooled = {name: at[name].mean(x[name]) for name in SOURCES}
        pooled["multimodal"] = torch.cat([at["text"].mean(x[f"text_{name}"]) for name in SOURCES], dim=1)
        for name in HEADS:
            out[f"F_{name}"], out[f"y_{name}"] = self.heads[name](pooled[name])
        return out

    def losses(self, out: Outputs, labels: Tensor, pseudo: Mapping[str, Tensor]) -> Outputs:
        """`task`, `sim`, `diff` and `total`, equations (24) to (26), (35) and (36)."""
        task = (out["y_multimodal"] - labels).square()
        for name, y in pseudo.items():
            task = task + (y - labels).abs().tanh() * (out[f"y_{name}"] - y).abs()
        parts = {"task": task.mean(), "sim": cmd(*(out[f"control.text_{name}"] for name in SOURCES))}
        parts["diff"] = sum(
            orthogonality(out[f"control.text_{name}"], out[f"control.{name}"]) for name in SOURCES
        )
        total = parts["task"] + self.config["alpha"] * parts["sim"] + self.config["beta"] * parts["diff"]
        return parts | {"total": total}


def cmd(p: Tensor, q: Tensor, moments: int = 5) -> Tensor:
    """Central moment discrepancy on [-1, 1]; torch's norm has gradient 0 at 0."""
    mean_p, mean_q = p.mean(dim=0), q.mean(dim=0)
    loss = torch.linalg.vector_norm(mean_p - mean_q) / 2
    p, q = p - mean_p, q - mean_q
    power_p, power_q = p, q
    for k in range(2, moments + 1):
        power_p, power_q = power_p * p, power_q * q
        loss = loss + torch.linalg.vector_norm(power_p.mean(dim=0) - power_q.mean(dim=0)) / 2**k
    return loss


def orthogonality(p: Tensor, q: Tensor) -> Tensor:
    """Mean square of P^T Q, columns centred, rows over their detached norm."""

    def normalized(x: Tensor) -> Tensor:
        x = x - x.mean(dim=0)
        return x / (x.detach().norm(dim=1, keepdim=True) + 1e-6)

    return (normalized(p).T @ normalized(q)).square().mean()


class Ulgm:
    """Pseudo-labels, features and class sums of all training utterances, equations (29) to (34).

    They are where `weight` is, and of its type.
    """

    def __init__(self, samples: int, config: Config, weight: Tensor) -> None:
        widths = {name: config[f"{name}_features"] for name in HEADS}
        self.bound = config["label_bound"]
        self.stored = weight.new_zeros(samples, dtype=torch.bool)
        self.labels = {name: weight.new_zeros(samples) for name in HEADS}
        self.features = {name: weight.new_zeros(samples, w) for name, w in widths.items()}
        # Sums of the positive and of the negative class, in float64, so that removing rows leaves no error.
        self.sums = {name: weight.new_zeros(2, w, dtype=torch.float64) for name, w in widths.items()}
        self.counts = {name: weight.new_zeros(2, 1, dtype=torch.float64) for name in HEADS}

    def pseudo_labels(self, rows: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {name: torch.where(self.stored[rows], self.labels[name][rows], labels) for name in SOURCES}

    @torch.no_grad()
    def step(self, epoch: int, rows: Tensor, labels: Tensor, out: Outputs) -> None:
        new = self.pseudo_labels(rows, labels) | {"multimodal": labels}
        if epoch >= 2:
            alpha = {name: self._polarity(name, out[f"F_{name}"]) for name in HEADS}
            for name in SOURCES:
                known = (self.counts[name] > 0).all() & (self.counts["multimodal"] > 0).all()
                changed = relabel(new[name], labels, alpha[name], alpha["multimodal"], epoch, self.bound)
                new[name] = torch.where(known, changed, new[name])
        for name in HEADS:
            old, features = self.labels[name][rows], out[f"F_{name}"]
            leave = (torch.stack([old > 0, old < 0]) & self.stored[rows]).double()
            join = torch.stack([new[name] > 0, new[name] < 0]).double()
            self.sums[name] += join @ features.double() - leave @ self.features[name][rows].double()
            self.counts[name] += (join - leave).sum(dim=1, keepdim=True)
            self.labels[name][rows], self.features[name][rows] = new[name], features
        self.stored[rows] = True

    def _polarity(self, name: str, features: Tensor) -> Tensor:
        centres = (self.sums[name] / self.counts[name].clamp(min=1)).to(features.dtype)
        return polarity(features, *centres)


def polarity(features: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """alpha = (D^n - D^p) / (D^p + eps) of each row."""
    to_p, to_n = ((features - c).norm(dim=1) / features.shape[1] ** 0.5 for c in (positive, negative))
    return (to_n - to_p) / (to_p + 1e-8)


def relabel(old: Tensor, label: Tensor, alpha_s: Tensor, alpha_m: Tensor, n: int, bound: float) -> Tensor:
    """The pseudo-labels after a step of epoch `n`."""
    new = label * alpha_s / (2 * (alpha_m + 1e-8)) + (label + alpha_s - alpha_m) / 2
    return (n - 1) / (n + 1) * old + 2 / (n + 1) * new.clamp(-bound, bound)


def adam(peer: Peer) -> torch.optim.Adam:
    """Fused Adam with coupled decay, in groups of one rate and decay each."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, weight in peer.named_parameters():
        part = name.split(".")[0]
        part = "text" if name.startswith("text.bert.") else part if part in SOURCES else "other"
        undecayed = part == "text" and (name.endswith(".bias") or "LayerNorm" in name)
        decay = 0.0 if undecayed else peer.config[f"decay_{part}"]
        groups.setdefault((peer.config[f"lr_{part}"], decay), []).append(weight)
    return torch.optim.Adam(
        [{"params": group, "lr": lr, "weight_decay": decay} for (lr, decay), group in groups.items()],
        fused=True,
    )


@dataclass
class Prepared:
    """A batch on the peer's device."""

    arrays: dict[str, tuple[Tensor, Layout]]
    labels: Tensor
    rows: Tensor


class Trainer:
    """A training run of the peer: its weights, Adam's moments, pseudo-labels.

    Args:
        peer: The model, on its device.
        samples: Training utterances.
        forward: The peer compiled, if it is.
        autocast: The type that products are computed in, if it is not the weights'.
    """

    def __init__(
        self,
        peer: Peer,
        samples: int,
        forward: Callable[..., Outputs] | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.peer, self.optimizer = peer, adam(peer)
        self.forward = peer if forward is None else forward
        self.autocast = autocast
        self.weight = peer.text.conv.weight
        self.ulgm = Ulgm(samples, peer.config, self.weight)

    def prepare(self, batch: Batch) -> Prepared:
        """Arrays, labels and rows of a batch, copied to the device without waiting."""
        labels, rows = (moved(x, self.weight.device) for x in targets(batch))
        return Prepared(self.peer.collate(batch), labels, rows)

    def take(self, given: Prepared, epoch: int = 1) -> Outputs:
        """One training step, like `Core.train_step` with `accumulate=1`."""
        self.optimizer.zero_grad(set_to_none=True)
        out = self._outputs(given)
        losses = self.peer.losses(out, given.labels, self.ulgm.pseudo_labels(given.rows, given.labels))
        losses["total"].backward()
        self.ulgm.step(epoch, given.rows, given.labels, out)
        self.optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()}

    @torch.inference_mode()
    def predict(self, given: Prepared) -> Tensor:
        """Scores; the peer must be in evaluation mode."""
        return self._outputs(given)["y_multimodal"]

    def step(self, batch: Batch, epoch: int = 1) -> Outputs:
        return self.take(self.prepare(batch), epoch)

    def scores(self, batch: Batch) -> Tensor:
        return self.predict(self.prepare(batch))

    def _outputs(self, given: Prepared) -> Outputs:
        with self._casting():
            out = self.forward(given.arrays)
        return out if self.autocast is None else {name: value.float() for name, value in out.items()}

    def _casting(self) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.weight.device.type, dtype=self.autocast)


def targets(batch: Batch) -> tuple[Tensor, Tensor]:
    """Labels and dataset indices."""
    labels = batch["labels"]["M"] if isinstance(batch["labels"], Mapping) else batch["labels"]
    return torch.as_tensor(labels), torch.as_tensor(np.asarray(batch["index"]))

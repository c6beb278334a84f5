"""Recurrent Attended Variation Embedding Network.

Wang, Shen, Liu, Liang, Zadeh, Morency: Words Can Shift: Dynamically Adjusting Word Representations Using
Nonverbal Behaviors, AAAI 2019. For each word, of embedding e and with the audio and vision frames A, V:

    h_a = LSTM_a(A),  h_v = LSTM_v(V)                       nonverbal sub-networks: last states of a word
    w_a = sigmoid(W_ha [h_a; e] + b_a), w_v likewise        gated modality mixing: one number each
    h_m = w_v (W_v h_v) + w_a (W_a h_a) + b_h               the nonverbal shift
    e_m = e + alpha h_m;  alpha = min(beta |e| / |h_m|, 1)  multimodal shifting
    h   = LSTM_e(e_m of all words),  y = W h + b            of the last word's state

Left open by the paper, or wrong in the public code, and what was chosen here:

- Which frames belong to a word: the paper has time stamps, published data sets have none. Where audio or
  vision is as long as text, each word has one frame; else T frames are divided evenly, in order, among n
  words: frame t goes to word floor(t n / T). With fewer frames than words, some words have none; their state
  is zero, as in the code. A BERT's [CLS] and [SEP] have none either, unless lengths are equal.
- The code cuts the gradient (.data) between the shift and the words, so its nonverbal networks are never
  trained; here they are. It has no sigmoid in the gates, and scales the shift by 0.2 |e| / max(|h_m|, 1):
  here both are as in the paper, with the code's 0.2 as beta.
- The code maps frames linearly before the LSTM, audio after a batch normalisation over positions, padding
  included; the paper and we have neither. We keep its dropout of frames and of shifted words.
- It minimises the squared error; we, as for every baseline, L1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import pydantic
import torch
from torch import Tensor, nn

from .blocks import LSTM
from .inputs import Inputs, Sequence
from .network import Network, Outputs, Settings, Widths


class RAVENSettings(Settings):
    """Hyper-parameters of RAVEN.

    Attributes:
        nonverbal_hidden: Width of the LSTMs over the frames of a word.
        hidden: Width of the LSTM over words.
        beta: Largest length of a shift, relative to the embedding's length.
        dropout: Dropout of frames and of shifted words.
    """

    # All from the public code's consts.py, which is set to MOSI.
    batch_size: int = pydantic.Field(20, ge=1)
    lr: float = pydantic.Field(1e-3, ge=0, allow_inf_nan=False)
    nonverbal_hidden: Annotated[int, pydantic.Field(ge=1)] = 150
    hidden: Annotated[int, pydantic.Field(ge=1)] = 300
    beta: Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)] = 0.2
    dropout: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.2


def word_of_frame(frames: Sequence, words: Tensor, *, marked: bool) -> Tensor:
    """The word of each frame, (B, T); undefined after an utterance's end.

    Args:
        frames: Frames of audio or vision.
        words: (B,), the number of words.
        marked: Whether the first and last word are [CLS] and [SEP], which nobody speaks.
    """
    edge = ((frames.lengths != words) & (words > 2) & marked).long()  # (B,): marks at each end
    steps = torch.arange(frames.frames.shape[1], device=words.device)
    return edge[:, None] + steps * (words - 2 * edge)[:, None] // frames.lengths[:, None]


class NonverbalNetwork(nn.Module):
    """An LSTM that restarts at each word; returns its last states, (B, words, hidden)."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.lstm = LSTM(width, hidden)
        self.hidden = hidden

    def forward(self, frames: Sequence, words: Sequence, *, marked: bool) -> Tensor:
        size, steps = words.frames.shape[:2]
        owner = word_of_frame(frames, words.lengths, marked=marked)  # (B, T)
        owner = owner + steps * torch.arange(size, device=owner.device)[:, None]  # of all words of the batch
        count = torch.bincount(owner[frames.mask], minlength=size * steps)  # (B * words,)
        heard = count > 0
        # A word's frames are contiguous, and words are in order: splitting separates them.
        _, last = self.lstm(Sequence.of(self.dropout(frames.frames[frames.mask]), count[heard]))
        states = last.new_zeros(size * steps, self.hidden)
        return states.masked_scatter(heard[:, None], last).reshape(size, steps, self.hidden)


class RAVEN(Network):
    """Recurrent Attended Variation Embedding Network (Wang et al., 2019)."""

    Settings = RAVENSettings
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mosi": {},
        # The publication has no MOSEI: the settings of MOSI, with a larger batch as our choice.
        "mosei": {"batch_size": 64},
    }

    def __init__(self, settings: RAVENSettings, widths: Widths, bert: nn.Module | None = None) -> None:
        super().__init__(settings, widths, bert)
        s, hidden = settings, settings.nonverbal_hidden
        self.audio = NonverbalNetwork(widths["audio"], hidden, s.dropout)
        self.vision = NonverbalNetwork(widths["vision"], hidden, s.dropout)
        self.audio_gate = nn.Linear(hidden + widths["text"], 1)
        self.vision_gate = nn.Linear(hidden + widths["text"], 1)
        self.mix = nn.Linear(2 * hidden, widths["text"])  # W_a and W_v side by side, with b_h
        self.dropout = nn.Dropout(s.dropout)
        self.lstm = LSTM(widths["text"], s.hidden)
        self.out = nn.Linear(s.hidden, 1)

    def forward(self, x: Inputs) -> Outputs:
        """``M`` (B,); ``alpha`` (B, words) and ``shifted`` (B, words, width), zeros after each end."""
        assert x.audio is not None and x.vision is not None
        words = self.read_text(x)
        e, marked = words.frames, self.bert is not None  # (B, words, width)
        h_a = self.audio(x.audio, words, marked=marked)  # (B, words, nonverbal_hidden)
        h_v = self.vision(x.vision, words, marked=marked)
        w_a = torch.sigmoid(self.audio_gate(torch.cat([h_a, e], 2)))  # (B, words, 1)
        w_v = torch.sigmoid(self.vision_gate(torch.cat([h_v, e], 2)))
        h_m = self.mix(torch.cat([w_a * h_a, w_v * h_v], 2))  # (B, words, width)
        length, shift = e.norm(dim=2, keepdim=True), h_m.norm(dim=2, keepdim=True)
        alpha = (self.settings.beta * length / shift.clamp_min(1e-12)).clamp_max(1)
        shifted = words.map(e + alpha * h_m)
        _, last = self.lstm(words.map(self.dropout(shifted.frames)))
        return {"M": self.out(last)[:, 0], "alpha": alpha[:, :, 0] * words.mask, "shifted": shifted.frames}

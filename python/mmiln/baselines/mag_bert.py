"""MAG-BERT: a BERT whose word-piece embeddings are shifted by audio and vision.

Rahman, Hasan, Lee, Zadeh, Mao, Morency, Hoque: Integrating Multimodal Information in Large Pretrained
Transformers, ACL 2020. For each word piece, of embedding Z and with frames A and V:

    g_a   = ReLU(W_ga [Z; A] + b_a)
    g_v   = ReLU(W_gv [Z; V] + b_v)
    H     = g_a * (W_a A) + g_v * (W_v V) + b_H
    alpha = min(beta |Z| / |H|, 1)                the shift is never longer than beta |Z|
    Z'    = dropout(LayerNorm(Z + alpha H))
    y     = a linear map of BERT's pooler of BERT's layers of Z'

Left open, and what was chosen here:

- The shift applies to the output of BERT's embedding layer, as in the published code.
- The code has a bias within each gated term, (g_a * (W_a A + b)), in place of the paper's one b_H: as in the
  paper. It adds 1e-6 to |H|: so do we, a shift of length zero is then no division by zero.
- [CLS] and [SEP] have no frames: the code writes zeros for them; so do we (`alignment.py`). MMSA and the code
  pad all three modalities to the same 50 steps, whatever their true lengths; here true lengths that differ
  are refused.
- The code minimises the squared error; we, as for every baseline, L1. It has no schedule that works (warm-up
  steps and all steps are swapped, so that the rate rises to the end): the rate is constant here.
- A BERT that comes without a pooler gets one of random weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pydantic
import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .inputs import Inputs
from .network import Network, Outputs, Settings, Widths


class MagBERTSettings(Settings):
    """Hyper-parameters of MAG-BERT.

    Attributes:
        beta: Largest length of a shift, relative to the embedding's length.
        gate_dropout: Dropout of the shifted embeddings.
        head_dropout: Dropout of the pooler's output.
    """

    # Defaults of the published multimodal_driver.py, for MOSI: one rate for all parameters.
    batch_size: int = pydantic.Field(48, ge=1)
    lr: float = pydantic.Field(1e-5, ge=0, allow_inf_nan=False)
    decay: float = pydantic.Field(0.01, ge=0, allow_inf_nan=False)
    lr_text: float = pydantic.Field(1e-5, ge=0, allow_inf_nan=False)
    decay_text: float = pydantic.Field(0.01, ge=0, allow_inf_nan=False)
    optimizer: Literal["adam", "adamw"] = "adamw"
    beta: float = pydantic.Field(1.0, gt=0, allow_inf_nan=False)
    gate_dropout: float = pydantic.Field(0.5, ge=0, lt=1)
    head_dropout: float = pydantic.Field(0.1, ge=0, lt=1)


class Gate(nn.Module):
    """The Multimodal Adaptation Gate: embeddings (B, T, w) shifted by frames (B, T, a), (B, T, v)."""

    def __init__(self, width: int, audio: int, vision: int, beta: float, dropout: float) -> None:
        super().__init__()
        self.beta = beta
        self.gate_audio = nn.Linear(width + audio, width)
        self.gate_vision = nn.Linear(width + vision, width)
        self.shift_audio = nn.Linear(audio, width, bias=False)
        self.shift_vision = nn.Linear(vision, width, bias=False)
        self.bias = nn.Parameter(torch.zeros(width))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, z: Tensor, audio: Tensor, vision: Tensor) -> Tensor:
        g_a = torch.relu(self.gate_audio(torch.cat([z, audio], 2)))  # (B, T, w)
        g_v = torch.relu(self.gate_vision(torch.cat([z, vision], 2)))
        shift = g_a * self.shift_audio(audio) + g_v * self.shift_vision(vision) + self.bias
        # The gradient of vector_norm is zero at zero.
        lengths = [torch.linalg.vector_norm(x, dim=2, keepdim=True) for x in (z, shift)]
        alpha = (self.beta * lengths[0] / (lengths[1] + 1e-6)).clamp(max=1)  # (B, T, 1)
        out: Tensor = self.dropout(self.norm(z + alpha * shift))
        return out


class MagBERT(Network):
    """BERT with a Multimodal Adaptation Gate (Rahman et al., 2020)."""

    Settings = MagBERTSettings
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mosi": {},  # the defaults
        "mosei": {},  # the published code has the same defaults for both
    }
    ALIGNED = True

    def __init__(self, settings: MagBERTSettings, widths: Widths, bert: nn.Module | None = None) -> None:
        if bert is None:
            raise ConfigError("MAG-BERT shifts the embeddings of a BERT: it needs text_encoder=")
        super().__init__(settings, widths, bert)
        s, config = settings, getattr(bert, "config", None)
        width = int(config.hidden_size)  # type: ignore[union-attr]
        self.gate = Gate(width, widths["audio"], widths["vision"], s.beta, s.gate_dropout)
        self.pooler = nn.Linear(width, width) if getattr(bert, "pooler", None) is None else None
        self.dropout = nn.Dropout(s.head_dropout)
        self.head = nn.Linear(width, 1)

    def forward(self, x: Inputs) -> Outputs:
        """``M`` (B,)."""
        assert x.tokens is not None
        assert x.audio is not None
        assert x.vision is not None
        bert: Any = self.bert
        ids, segments = x.tokens.frames.unbind(2)  # (B, T)
        z = bert.embeddings(input_ids=ids, token_type_ids=segments)  # (B, T, w)
        z = self.gate(z, x.audio.frames, x.vision.frames)
        # Added to attention scores, (B, 1, 1, T), so that no query sees padding.
        mask = torch.zeros_like(z[:, None, None, :, 0])
        mask = mask.masked_fill(~x.tokens.mask[:, None, None], torch.finfo(z.dtype).min)
        states = bert.encoder(z, attention_mask=mask).last_hidden_state  # (B, T, w)
        own = self.pooler
        pooled = bert.pooler(states) if own is None else torch.tanh(own(states[:, 0]))  # (B, w)
        return {"M": self.head(self.dropout(pooled))[:, 0]}

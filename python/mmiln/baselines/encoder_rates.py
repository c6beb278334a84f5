"""Encoders of audio and vision with learning rates of their own, which Self-MM and EMT share."""

from __future__ import annotations

from .network import Network, Settings


class EncoderRates(Settings):
    """Hyper-parameters of the encoders; the defaults are those of both public repositories for MOSI.

    Attributes:
        lr_audio, lr_vision, decay_audio, decay_vision: Rates and decays of the audio and vision encoders.
        text_hidden: Width of the LSTM over given text features, which is our choice.
        audio_hidden, vision_hidden: Widths of the LSTMs.
    """

    accumulate: int = 4
    lr_audio: float = 1e-3
    lr_vision: float = 1e-4
    decay: float = 1e-3
    decay_text: float = 1e-3
    decay_audio: float = 1e-2
    decay_vision: float = 1e-3
    text_hidden: int = 64
    audio_hidden: int = 32
    vision_hidden: int = 64


class RatedEncoders(Network):
    """A network with an ``audio`` and a ``vision`` encoder, set by :class:`EncoderRates`."""

    def learning_rates(self) -> dict[str, tuple[float, float]]:
        """The rates and decays of the text encoder, of audio, of vision, and of all others."""
        s = self.settings
        return super().learning_rates() | {
            "audio": (s.lr_audio, s.decay_audio),
            "vision": (s.lr_vision, s.decay_vision),
        }

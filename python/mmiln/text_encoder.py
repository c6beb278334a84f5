"""Pretrained text encoders: any BERT or RoBERTa of Hugging Face, by directory or hub name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from . import hub
from .errors import BatchError, ConfigError, MissingFileError, WeightsError
from .files import read_json, read_safetensors, sha256
from .tokenizer import FILES as TOKENIZER_FILES
from .tokenizer import Tokenizer

# Values of model_type whose graph is RoBERTa's.
ROBERTA = ("roberta", "xlm-roberta", "camembert")
# Defaults of Hugging Face's BertConfig and RobertaConfig, for fields that older files leave out.
DEFAULTS = {
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
}
SIZES = (
    "hidden_size",
    "vocab_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
# By model_type of a saved mmiln model, the prefix of its text encoder's weights.
SAVED = {"mmiln": "text.bert.", "mmiln-baseline": "bert."}


class TextEncoder:
    """A BERT or RoBERTa on disk: its configuration; weights and tokenizer are read when they are needed.

    Args:
        directory: Holds ``config.json`` and ``model.safetensors``, of a BERT or RoBERTa; or of a saved mmiln
            model, whose fine-tuned encoder is then used.
        name: Its name on the hub, where it comes from there.

    Raises:
        MissingFileError: The directory or its ``config.json`` is not there.
        ConfigError: ``config.json`` is not that of an encoder of either family.
    """

    def __init__(self, directory: Path, name: str | None = None) -> None:
        self.directory = directory
        self.name = name or str(directory)
        config = _read_config(directory)
        kind = config.get("model_type")
        self._prefix = SAVED.get(kind) if isinstance(kind, str) else None
        if self._prefix is not None:
            config = config.get("text_encoder") or {}
        if not isinstance(config, dict):
            raise ConfigError(f"{directory / 'config.json'}: 'text_encoder' is of another kind")
        self.config = _check(config)
        self.tokenizer = Tokenizer(directory, self.name, roberta=self.is_roberta, longest=self.longest)

    @property
    def width(self) -> int:
        """Width of its output, ``text_dim``."""
        width: int = self.config["hidden_size"]
        return width

    @property
    def layers(self) -> int:
        """Number of its layers."""
        count: int = self.config["num_hidden_layers"]
        return count

    @property
    def is_roberta(self) -> bool:
        """Whether it is of RoBERTa's family, in which positions count from the one after the padding's."""
        return self.config.get("model_type") in ROBERTA

    @property
    def longest(self) -> int:
        """The largest number of tokens that it reads of a sentence."""
        first = self.config["pad_token_id"] + 1 if self.is_roberta else 0
        positions: int = self.config["max_position_embeddings"]
        return positions - first

    def weights(self) -> dict[str, Tensor]:
        """All weights under the names of ``state_dict()``, float32 or wider.

        Raises:
            MissingFileError: There is no ``model.safetensors``.
            WeightsError: The file is damaged.
        """
        path = self.directory / "model.safetensors"
        if not path.is_file():
            convert = (
                "Convert it once with transformers: `from transformers import AutoModel, AutoTokenizer; "
                f"[kind.from_pretrained({self.name!r}).save_pretrained(DIR, safe_serialization=True) "
                "for kind in (AutoModel, AutoTokenizer)]`, then text_encoder=DIR"
            )
            if (self.directory / "pytorch_model.bin").is_file():
                raise WeightsError(
                    f"{self.name} holds its weights as pytorch_model.bin, a pickle that can run code. "
                    + convert
                )
            raise MissingFileError(
                f"the text encoder {self.name} has no model.safetensors. If it has its weights in another "
                f"form, such as pytorch_model.bin: {convert}"
            )
        tensors = read_safetensors(path)
        if (prefix := self._prefix) is not None:
            held = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            return {f"text.bert.{name.removeprefix(prefix)}": tensor for name, tensor in held.items()}
        return {f"text.bert.{_bare(n)}": tensor for n, tensor in tensors.items() if _is_encoder(n)}

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the weights' file: equal weights, equal fingerprint."""
        path = self.directory / "model.safetensors"
        state = path.stat()
        return _digest(path, state.st_mtime_ns, state.st_size)

    def check(self, tokens: Tensor, lengths: Tensor) -> None:
        """Refuses packed tokens (sum T, 2), ids and segments, of sentences (B,) without an embedding.

        Raises:
            BatchError: An id, a segment or a position is beyond the tables.
        """
        for what, got, most in (
            ("token id", tokens[:, 0].max(), self.config["vocab_size"] - 1),
            ("segment", tokens[:, 1].max(), self.config["type_vocab_size"] - 1),
            ("number of tokens", lengths.max(), self.longest),
        ):
            if got > most:
                raise BatchError(
                    f"text_bert: the largest {what} is {int(got)}, the text encoder knows up to {most}: "
                    "these tokens are another tokenizer's; without text_bert, raw_text is tokenized as the "
                    "encoder reads it"
                )


@cache
def _digest(path: Path, _changed: int, _size: int) -> str:
    return sha256(path)


def find_text_encoder(name: str | Path) -> TextEncoder:
    """A text encoder by directory or hub name.

    Raises:
        MissingFileError: It is not a directory, and the hub does not provide it.
        ConfigError: It is not a name, or not that of an encoder of BERT's or RoBERTa's family.
    """
    if not isinstance(name, (str, Path)):
        raise ConfigError(
            f"text_encoder must be a directory or a hub name, got {type(name).__name__}: save an encoder and "
            "its tokenizer by save_pretrained(DIR), and give text_encoder=DIR"
        )
    try:
        path = Path(name).expanduser()
        there = path.is_dir()
    except (OSError, RuntimeError) as error:  # a name that is too long, ~ of an unknown user
        raise MissingFileError(f"text_encoder: there is no such directory: {error}") from None
    if there:
        return TextEncoder(path)
    if not hub.NAME.fullmatch(str(name)):
        raise MissingFileError(f"text_encoder: there is no directory {path}")
    files = ["config.json", "model.safetensors", *TOKENIZER_FILES]
    return TextEncoder(hub.download(str(name), files, "text_encoder"), str(name))


def least_encoder_weights(encoder: Mapping[str, Any]) -> int:
    """A lower bound of the number of weights of a text encoder with this configuration."""
    width = encoder["hidden_size"]
    embedded = encoder["vocab_size"] + encoder["max_position_embeddings"] + encoder["type_vocab_size"]
    layer = 4 * width**2 + 2 * width * encoder["intermediate_size"]
    count: int = width * embedded + encoder["num_hidden_layers"] * layer
    return count


def _bare(name: str) -> str:
    """The name without the prefix that heads add, and with the current names of LayerNorm's weights."""
    bare = name.removeprefix("bert.").removeprefix("roberta.")
    return bare.replace(".gamma", ".weight").replace(".beta", ".bias")


def _is_encoder(name: str) -> bool:
    """Heads, pooler and the position buffer of old files are no part of the encoder."""
    heads = ("cls.", "lm_head.", "pooler.", "classifier.", "qa_outputs.", "embeddings.position_ids")
    return not _bare(name).startswith(heads)


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if not path.is_file():
        raise MissingFileError(f"the text encoder's directory {directory} has no config.json")
    config = read_json(path)
    if not isinstance(config, dict):
        raise ConfigError(f"{path} must hold a JSON object")
    return config


def _check(config: dict[str, Any]) -> dict[str, Any]:
    kind = config.get("model_type", "bert")
    if kind not in ("bert", *ROBERTA):
        raise ConfigError(
            "text_encoder must be of BERT's or RoBERTa's family, which alone run inside the graph "
            f"(model_type bert, {', '.join(ROBERTA)}), got {kind!r}: let `mmiln convert --text-features` "
            "compute features with that once, and give no text_encoder"
        )
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ConfigError(
            f"text_encoder must have absolute position embeddings, got {config['position_embedding_type']!r}"
        )
    if config.get("is_decoder"):
        raise ConfigError("text_encoder must be an encoder, got a BERT decoder (is_decoder)")
    config = {**DEFAULTS, **({"pad_token_id": 1} if kind in ROBERTA else {}), **config}
    for name in SIZES:
        size = config.get(name)
        if type(size) is not int or not 1 <= size < 2**31:
            raise ConfigError(
                f"text_encoder: {name} in config.json must be a whole number, at least 1, "
                f"got {size!r:.100}: is it that of a BERT model?"
            )
    pad, positions = config.get("pad_token_id"), config["max_position_embeddings"]
    if kind in ROBERTA and (type(pad) is not int or not 0 <= pad < positions - 1):
        raise ConfigError(
            f"text_encoder: pad_token_id in config.json must be a whole number, at least 0 and below "
            f"max_position_embeddings - 1, got {pad!r:.100}"
        )
    return config

"""Pretrained text encoders: any Hugging Face ``BertModel`` directory or hub name."""

from __future__ import annotations

import bisect
import re
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import ConfigError, MissingFileError, MmilnError, WeightsError
from .files import read_json, read_safetensors, sha256

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")
# Defaults of Hugging Face's BertConfig, for fields that older files leave out.
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
    """A BERT on disk: its configuration, weights and tokenizer, each read when it is needed.

    Args:
        directory: Holds ``config.json`` and ``model.safetensors``, of a BERT; or of a saved mmiln model,
            whose fine-tuned encoder is then used.

    Raises:
        MissingFileError: The directory or its ``config.json`` is not there.
        ConfigError: ``config.json`` is not that of a BERT encoder.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        config = _read_config(directory)
        kind = config.get("model_type")
        self._prefix = SAVED.get(kind) if isinstance(kind, str) else None
        if self._prefix is not None:
            config = config.get("text_encoder") or {}
        if not isinstance(config, dict):
            raise ConfigError(f"{directory / 'config.json'}: 'text_encoder' is of another kind")
        self.config = _check(config)

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

    def weights(self) -> dict[str, Tensor]:
        """All weights under the names of ``state_dict()``, float32 or wider.

        Raises:
            MissingFileError: There is no ``model.safetensors``.
            WeightsError: The file is damaged.
        """
        path = self.directory / "model.safetensors"
        if not path.is_file():
            if (self.directory / "pytorch_model.bin").is_file():
                raise WeightsError(
                    f"{self.directory} holds its weights as pytorch_model.bin, a pickle that can run code. "
                    "Convert it once: `from transformers import AutoModel; "
                    "AutoModel.from_pretrained(DIR).save_pretrained(DIR, safe_serialization=True)`"
                )
            raise MissingFileError(f"the text encoder's directory {self.directory} has no model.safetensors")
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

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = self._read_tokenizer()
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.config["max_position_embeddings"])
        return tokenizer

    def _read_tokenizer(self) -> Any:
        from tokenizers import BertWordPieceTokenizer, Tokenizer

        if (self.directory / "tokenizer.json").is_file():
            return Tokenizer.from_file(str(self.directory / "tokenizer.json"))
        if (self.directory / "vocab.txt").is_file():
            path = self.directory / "tokenizer_config.json"
            settings = read_json(path) if path.is_file() else {}
            if not isinstance(settings, dict):
                raise ConfigError(f"{path} must hold a JSON object")
            lower = settings.get("do_lower_case", True)
            return BertWordPieceTokenizer(str(self.directory / "vocab.txt"), lowercase=lower)
        raise MissingFileError(
            f"raw_text needs a tokenizer: {self.directory} has neither tokenizer.json nor vocab.txt. "
            "Add one, or give text_bert"
        )

    def tokenize(self, sentences: list[str]) -> list[Tensor]:
        """One (3, T) tensor a sentence: ids with [CLS] and [SEP], mask, segments.

        Raises:
            MissingFileError: There is no tokenizer.
            ConfigError: The tokenizer can't be used.
        """
        encodings = self._encode(sentences)
        return [torch.from_numpy(np.array([e.ids, e.attention_mask, e.type_ids])) for e in encodings]

    def words(self, sentences: list[str]) -> list[Tensor]:
        """One (T,) tensor a sentence: for each token of :meth:`tokenize` the number of its word, where white
        space separates words; -1 for [CLS] and [SEP].

        Raises:
            MissingFileError: There is no tokenizer.
            ConfigError: The tokenizer can't be used.
        """
        numbers = []
        for sentence, encoding in zip(sentences, self._encode(sentences), strict=True):
            starts = [match.start() for match in re.finditer(r"\S+", sentence)]
            numbers.append(
                torch.tensor(
                    [
                        -1 if special else bisect.bisect_right(starts, begin) - 1
                        for (begin, _), special in zip(
                            encoding.offsets, encoding.special_tokens_mask, strict=True
                        )
                    ]
                )
            )
        return numbers

    def _encode(self, sentences: list[str]) -> list[Any]:
        try:
            encodings: list[Any] = self._tokenizer.encode_batch(sentences)
        except MmilnError:
            raise
        except Exception as error:  # tokenizers raises nothing narrower
            raise ConfigError(f"the tokenizer in {self.directory} can't be used: {error}") from error
        return encodings

    def pieces(self, ids: Sequence[int]) -> tuple[list[str], list[list[int]]]:
        """The names of these tokens, and for each word the places of its pieces among them.

        A WordPiece that begins with ``##`` continues a word; [CLS], [SEP] and other tokens that the tokenizer
        puts around every sentence belong to no word.

        Raises:
            MissingFileError: There is no tokenizer.
            ConfigError: The tokenizer can't be used.
        """
        (around,) = self.tokenize([""])
        added = set(around[0].tolist())
        names = [self._tokenizer.id_to_token(id_) or f"#{id_}" for id_ in ids]
        words: list[list[int]] = []
        for place, (id_, name) in enumerate(zip(ids, names, strict=True)):
            if id_ in added:
                continue
            if name.startswith("##") and words and words[-1][-1] == place - 1:
                words[-1].append(place)
            else:
                words.append([place])
        return names, words

    def tokenizer_files(self) -> list[Path]:
        """The files that :meth:`tokenize` reads."""
        return [path for name in TOKENIZER_FILES if (path := self.directory / name).is_file()]


@cache
def _digest(path: Path, _changed: int, _size: int) -> str:
    return sha256(path)


def find_text_encoder(name: str | Path) -> TextEncoder:
    """A text encoder by directory or hub name.

    Raises:
        MissingFileError: It is not a directory, and the hub does not provide it.
        ConfigError: It is not a name, or not a BERT encoder's.
    """
    if not isinstance(name, (str, Path)):
        raise ConfigError(f"text_encoder must be a directory or a hub name, got {name!r}")
    try:
        path = Path(name).expanduser()
        there = path.is_dir()
    except (OSError, RuntimeError) as error:  # a name that is too long, ~ of an unknown user
        raise MissingFileError(f"text_encoder: there is no such directory: {error}") from None
    if there:
        return TextEncoder(path)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(name)) or str(name).startswith("."):
        raise MissingFileError(f"text_encoder: there is no directory {path}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    files = ["config.json", "model.safetensors", *TOKENIZER_FILES]
    try:
        return TextEncoder(Path(snapshot_download(str(name), allow_patterns=files)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        if isinstance(error, MissingFileError):
            raise
        raise MissingFileError(
            f"text_encoder {str(name)!r} is not a directory, and the Hugging Face hub did not provide it "
            f"({type(error).__name__})"
        ) from error


def least_encoder_weights(encoder: Mapping[str, Any]) -> int:
    """A lower bound of the number of weights of a text encoder with this configuration."""
    width = encoder["hidden_size"]
    embedded = encoder["vocab_size"] + encoder["max_position_embeddings"] + encoder["type_vocab_size"]
    layer = 4 * width**2 + 2 * width * encoder["intermediate_size"]
    count: int = width * embedded + encoder["num_hidden_layers"] * layer
    return count


def _bare(name: str) -> str:
    """The name without the prefix that heads add, and with the current names of LayerNorm's weights."""
    return name.removeprefix("bert.").replace(".gamma", ".weight").replace(".beta", ".bias")


def _is_encoder(name: str) -> bool:
    """Heads, pooler and the position buffer of old files are no part of the encoder."""
    return not _bare(name).startswith(("cls.", "pooler.", "classifier.", "embeddings.position_ids"))


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
    if kind != "bert":
        raise ConfigError(f'text_encoder must be a BERT model (model_type "bert"), got {kind!r}')
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ConfigError(
            f"text_encoder must have absolute position embeddings, got {config['position_embedding_type']!r}"
        )
    if config.get("is_decoder"):
        raise ConfigError("text_encoder must be an encoder, got a BERT decoder (is_decoder)")
    config = {**DEFAULTS, **config}
    for name in SIZES:
        size = config.get(name)
        if type(size) is not int or not 1 <= size < 2**31:
            raise ConfigError(
                f"text_encoder: {name} in config.json must be a whole number, at least 1, "
                f"got {size!r:.100}: is it that of a BERT model?"
            )
    return config

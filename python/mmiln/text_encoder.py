"""Pretrained text encoders: any BERT or RoBERTa of Hugging Face, by directory or hub name."""

from __future__ import annotations

import bisect
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import hub
from .errors import BatchError, ConfigError, DataWarning, MissingFileError, MmilnError, WeightsError
from .files import read_json, read_safetensors, sha256

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt",
    "special_tokens_map.json",
)  # fmt: skip
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

COMPARED = 8  # sentences that are tokenized anew to compare them with text_bert

_COUNTING = threading.Lock()  # of the sentences that an encoder cuts


class TextEncoder:
    """A BERT or RoBERTa on disk: its configuration, weights and tokenizer, each read when it is needed.

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
        self._compared = False  # whether text_bert was compared with own tokens
        # By identity, the sets of sentences under way: those seen, and those of them that were cut.
        self._sets = dict[int, tuple[set[str], set[str]]]()
        self._told = set[str]()  # cut sentences that were warned of
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

    @property
    def is_roberta(self) -> bool:
        """Whether it is of RoBERTa's family, in which positions count from the one after the padding's."""
        return self.config.get("model_type") in ROBERTA

    @property
    def unknown(self) -> int:
        """The id of the token for what its tokenizer does not know.

        Raises:
            MissingFileError: There is no tokenizer.
            ConfigError: The tokenizer can't be used, or has no such token.
        """
        self._encode([""])  # reads it
        for name in ("[UNK]", "<unk>"):
            if (found := self._tokenizer.token_to_id(name)) is not None:
                return int(found)
        raise ConfigError(f"the tokenizer of {self.name} has neither [UNK] nor <unk>")

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

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = self._read_tokenizer()
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.longest)
        return tokenizer

    def _read_tokenizer(self) -> Any:
        from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer, Tokenizer
        from tokenizers.processors import RobertaProcessing

        whole, words, pieces, merges, path = (
            self.directory / name
            for name in ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer_config.json")
        )
        if whole.is_file():
            return Tokenizer.from_file(str(whole))
        settings = read_json(path) if path.is_file() else {}
        if not isinstance(settings, dict):
            raise ConfigError(f"{path} must hold a JSON object")
        if self.is_roberta and pieces.is_file() and merges.is_file():
            prefix = settings.get("add_prefix_space", False)
            tokenizer = ByteLevelBPETokenizer(str(pieces), str(merges), add_prefix_space=prefix)
            tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
            first, last = ((name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>"))
            tokenizer.post_processor = RobertaProcessing(last, first, add_prefix_space=prefix)
            return tokenizer
        if not self.is_roberta and words.is_file():  # RoBERTas with a vocab.txt have other pieces than words
            lower = settings.get("do_lower_case", True)
            return BertWordPieceTokenizer(str(words), lowercase=lower)
        listed = "vocab.json with merges.txt" if self.is_roberta else "vocab.txt"
        raise MissingFileError(
            f"raw_text needs a tokenizer: {self.name} has neither tokenizer.json nor {listed}. Give "
            "text_bert; or make tokenizer.json once, DIR being the text encoder's (a sentencepiece.bpe.model "
            "also needs the package sentencepiece): `from transformers import AutoTokenizer; "
            f"AutoTokenizer.from_pretrained({self.name!r}).save_pretrained(DIR)`"
        )

    def tokenize(self, sentences: list[str]) -> list[Tensor]:
        """One (3, T) tensor a sentence: ids with [CLS] and [SEP] (or ``<s>`` and ``</s>``), mask, segments.

        A sentence of more than :attr:`longest` tokens is cut. :class:`mmiln.errors.DataWarning` says so: at
        once, or at the end of :meth:`one_set`.

        Raises:
            MissingFileError: There is no tokenizer.
            ConfigError: The tokenizer can't be used.
        """
        encodings = self._encode(sentences)
        with nullcontext() if self._sets else self.one_set(), _COUNTING:
            for seen, cut in self._sets.values():
                seen.update(sentences)
                cut.update(s for s, e in zip(sentences, encodings, strict=True) if e.overflowing)
        return [torch.from_numpy(np.array([e.ids, e.attention_mask, e.type_ids])) for e in encodings]

    @contextmanager
    def one_set(self) -> Iterator[None]:
        """Sentences that are tokenized within are one set: at the end a single warning counts those that were
        cut, unless it has been given for the same sentences before.
        """
        one = seen, cut = set[str](), set[str]()
        with _COUNTING:
            self._sets[id(one)] = one
        try:
            yield
        finally:
            with _COUNTING:
                del self._sets[id(one)]
                new = not cut <= self._told
                self._told |= cut
            if new:
                warnings.warn(
                    f"{len(cut)} of {len(seen)} different sentences have more than {self.longest} tokens, "
                    f"all that the text encoder {self.name} reads, and were cut, such as {min(cut)!r:.60}",
                    DataWarning,
                    stacklevel=3,
                )

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_sets": {}}

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

    def compare(self, tokens: Sequence[Tensor], sentences: Any) -> None:
        """Compares ``text_bert``, (3, T) each, with the encoder's own tokens of the first sentences, if there
        are any: once. :class:`mmiln.errors.DataWarning` warns where most of them differ.

        Raises:
            BatchError: Most do not begin and end with the encoder's own special tokens.
        """
        if self._compared or not isinstance(sentences, (list, tuple)) or len(sentences) != len(tokens):
            return
        some = sentences[:COMPARED]
        if not all(isinstance(sentence, str) for sentence in some):
            return
        try:
            *own, empty = (encoding.ids for encoding in self._encode([*some, ""]))
        except (ConfigError, MissingFileError):
            return  # there is nothing to compare with
        given = [row[0][row[1] != 0].long().tolist() for row in tokens[:COMPARED]]
        # The last token of a sentence that was cut may be any.
        same = [ids[:-1] == mine[: len(ids) - 1] for ids, mine in zip(given, own, strict=True)]
        ends = [
            not empty or (ids[0] == empty[0] and (ids[-1] == empty[-1] or alike))
            for ids, alike in zip(given, same, strict=True)
        ]
        fault = f"text_bert was made by another tokenizer than that of the text encoder {self.name}"
        anew = (
            "give batches without text_bert (split.text_bert = None, or `mmiln convert --no-text-bert`) to "
            "have raw_text tokenized anew"
        )
        if 2 * sum(ends) < len(ends):
            first, *_, last = given[ends.index(False)] * 2
            raise BatchError(
                f"{fault}: expected ids that begin with {empty[0]} and end with {empty[-1]}, got {first} and "
                f"{last}; {anew}"
            )
        self._compared = True
        if 2 * sum(same) < len(same):
            at = same.index(False)
            warnings.warn(
                f"{fault}, or of other sentences than raw_text: {same.count(False)} of the first {len(same)} "
                f"differ, such as {some[at]!r:.60}: expected ids {own[at][:8]}, got {given[at][:8]}; {anew}",
                DataWarning,
                stacklevel=2,
            )

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
                        -1 if special else bisect.bisect_right(starts, _letter(sentence, begin)) - 1
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
        except BaseException as error:  # tokenizers raises nothing narrower, and panics on some merges.txt
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise ConfigError(f"the tokenizer in {self.directory} can't be used: {error}") from error
        return encodings

    def pieces(self, ids: Sequence[int]) -> tuple[list[str], list[list[int]], list[str]]:
        """The names of these tokens, for each word the places of its pieces among them, and the words.

        A WordPiece that begins with ``##`` continues a word, as does a piece of other tokenizers that does
        not begin with their sign for a space (``Ġ`` or ``▁``). [CLS], [SEP] and other tokens that the
        tokenizer puts around every sentence belong to no word.

        Raises:
            MissingFileError: There is no tokenizer.
            ConfigError: The tokenizer can't be used.
        """
        from tokenizers.models import BPE, Unigram

        (around,) = self._encode([""])
        added = set(around.ids)
        spaced = isinstance(self._tokenizer.model, (BPE, Unigram))
        names = [self._tokenizer.id_to_token(id_) or f"#{id_}" for id_ in ids]

        def blank(name: str) -> bool:
            return spaced and not name.strip("Ġ▁")

        words: list[list[int]] = []
        for place, (id_, name) in enumerate(zip(ids, names, strict=True)):
            if id_ in added:
                continue
            inside = bool(words) and words[-1][-1] == place - 1
            if spaced:  # several spaces are a word's first pieces
                continues = not name.startswith(("Ġ", "▁")) or (inside and blank(names[place - 1]))
            else:
                continues = name.startswith("##")
            if continues and inside:
                words[-1].append(place)
            else:
                words.append([place])
        if len(words) > 1 and all(blank(names[place]) for place in words[-1]):  # spaces at the end
            last = words.pop()
            words[-1] += last
        decoder = self._tokenizer.decoder
        join = "".join if decoder is None else decoder.decode
        return names, words, [join([names[i] for i in at]).strip() for at in words]

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
        ConfigError: It is not a name, or not that of an encoder of BERT's or RoBERTa's family.
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


def _letter(sentence: str, begin: int) -> int:
    """The place of the first character from ``begin`` on that is no white space."""
    found = re.compile(r"\S").search(sentence, begin)
    return found.start() if found else len(sentence)


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

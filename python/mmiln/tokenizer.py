"""Tokenizers of pretrained text encoders: sentences to tokens, words and back."""

from __future__ import annotations

import bisect
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import BatchError, ConfigError, DataWarning, MissingFileError, MmilnError
from .files import read_json

FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt",
    "special_tokens_map.json",
)  # fmt: skip
COMPARED = 8  # sentences that are tokenized anew to compare them with text_bert

_COUNTING = threading.Lock()  # of the sentences that a tokenizer cuts


class Tokenizer:
    """The tokenizer of a BERT or RoBERTa on disk, read when it is needed.

    Args:
        directory: That of the text encoder.
        name: The text encoder's name, for messages.
        roberta: Whether it is of RoBERTa's family.
        longest: The largest number of tokens of a sentence; longer ones are cut.
    """

    def __init__(self, directory: Path, name: str, *, roberta: bool, longest: int) -> None:
        self.directory = directory
        self.name = name
        self.roberta = roberta
        self.longest = longest
        self._compared = False  # whether text_bert of the set under way was compared with own tokens
        self._differed = False  # whether that which was compared last was found to differ
        # By identity, the sets of sentences under way: those seen, those of them that were cut, and those of
        # which most tokens are the unknown one.
        self._sets = dict[int, tuple[set[str], set[str], set[str]]]()
        self._told = set[str](), set[str]()  # cut and unknown sentences that were warned of

    @property
    def unknown(self) -> int:
        """The id of the token for what its tokenizer does not know.

        Raises:
            MissingFileError: There is no tokenizer.
            ConfigError: The tokenizer can't be used, or has no such token.
        """
        self._encode([""])  # reads it
        if self._unknown is None:
            raise ConfigError(f"the tokenizer of {self.name} has neither [UNK] nor <unk>")
        return self._unknown

    @cached_property
    def _unknown(self) -> int | None:
        ids = [self._tokenizer.token_to_id(name) for name in ("[UNK]", "<unk>")]
        return next((int(id_) for id_ in ids if id_ is not None), None)

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
        if self.roberta and pieces.is_file() and merges.is_file():
            prefix = settings.get("add_prefix_space", False)
            tokenizer = ByteLevelBPETokenizer(str(pieces), str(merges), add_prefix_space=prefix)
            tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
            first, last = ((name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>"))
            tokenizer.post_processor = RobertaProcessing(last, first, add_prefix_space=prefix)
            return tokenizer
        if not self.roberta and words.is_file():  # RoBERTas with a vocab.txt have other pieces than words
            lower = settings.get("do_lower_case", True)
            return BertWordPieceTokenizer(str(words), lowercase=lower)
        listed = "vocab.json with merges.txt" if self.roberta else "vocab.txt"
        raise MissingFileError(
            f"raw_text needs a tokenizer: {self.name} has neither tokenizer.json nor {listed}. Give "
            "text_bert; or make tokenizer.json once, DIR being the text encoder's (a sentencepiece.bpe.model "
            "also needs the package sentencepiece): `from transformers import AutoTokenizer; "
            f"AutoTokenizer.from_pretrained({self.name!r}).save_pretrained(DIR)`"
        )

    def tokenize(self, sentences: list[str]) -> list[Tensor]:
        """One (3, T) tensor a sentence: ids with [CLS] and [SEP] (or ``<s>`` and ``</s>``), mask, segments.

        A sentence of more than :attr:`longest` tokens is cut. :class:`mmiln.errors.DataWarning` says so, and
        where more than half of a sentence's tokens are unknown: at once, or at the end of :meth:`one_set`.

        Raises:
            MissingFileError: There is no tokenizer.
            ConfigError: The tokenizer can't be used.
        """
        encodings = self._encode(sentences)
        with nullcontext() if self._sets else self.one_set(), _COUNTING:
            pairs = list(zip(sentences, encodings, strict=True))
            long = {s for s, e in pairs if e.overflowing}
            foreign = {s for s, e in pairs if 2 * e.ids.count(self._unknown) > _words(e)}
            for seen, cut, unknown in self._sets.values():
                seen.update(sentences)
                cut |= long
                unknown |= foreign
        return [torch.from_numpy(np.array([e.ids, e.attention_mask, e.type_ids])) for e in encodings]

    @contextmanager
    def one_set(self) -> Iterator[None]:
        """Sentences within are one set, whose first ``text_bert`` is compared: at the end one warning counts
        those that were cut, and one those that are mostly unknown, unless it has been given for the same
        sentences before.
        """
        one = seen, cut, unknown = set[str](), set[str](), set[str]()
        with _COUNTING:
            self._sets[id(one)] = one
            self._compared = False
        try:
            yield
        finally:
            with _COUNTING:
                del self._sets[id(one)]
                told_cut, told_unknown = self._told
                new_cut, new_unknown = not cut <= told_cut, not unknown <= told_unknown
                self._told = told_cut | cut, told_unknown | unknown
            if new_unknown:
                warnings.warn(
                    f"{len(unknown)} of {len(seen)} different sentences are mostly unknown to the text "
                    f"encoder {self.name}, such as {min(unknown)!r:.60}: more than half of their tokens are "
                    "not in its vocabulary. Give an encoder of their language",
                    DataWarning,
                    stacklevel=3,
                )
            if new_cut:
                warnings.warn(
                    f"{len(cut)} of {len(seen)} different sentences have more than {self.longest} tokens, "
                    f"all that the text encoder {self.name} reads, and were cut, such as {min(cut)!r:.60}",
                    DataWarning,
                    stacklevel=3,
                )

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_sets": {}}

    def compare(self, tokens: Sequence[Tensor], sentences: Any) -> None:
        """Compares ``text_bert``, (3, T) each, with the encoder's own tokens of the first sentences, if there
        are any: once for each set. :class:`mmiln.errors.DataWarning` warns where most of them differ, unless
        those of the set before differed too, as in the epochs of a run.

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
        differed, self._differed = self._differed, 2 * sum(same) < len(same)
        self._compared = True
        if self._differed and not differed:
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

    def files(self) -> list[Path]:
        """The files that :meth:`tokenize` reads."""
        return [path for name in FILES if (path := self.directory / name).is_file()]


def _words(encoding: Any) -> int:
    """The number of a sentence's own tokens, without [CLS] and [SEP]."""
    count: int = len(encoding.ids) - sum(encoding.special_tokens_mask)
    return count


def _letter(sentence: str, begin: int) -> int:
    """The place of the first character from ``begin`` on that is no white space."""
    found = re.compile(r"\S").search(sentence, begin)
    return found.start() if found else len(sentence)

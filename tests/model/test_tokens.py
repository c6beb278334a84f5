"""Sentences and tokens: tokenizers of every family, sentences that are cut, tokens of another vocabulary."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mmiln
from mmiln.data import Split
from mmiln.errors import BatchError, ConfigError, DataWarning, MissingFileError
from mmiln.text_encoder import TextEncoder
from mmiln.training import loaders
from reference import configs
from support import small_bert

ALONE = {"audio_dim": 0, "vision_dim": 0}
SENTENCES = ["the film  was badly made", " very good, ", "", "  ", "good", "café 好看"]
WRITERS = {
    "bert": small_bert.write,
    "roberta": small_bert.write_roberta,
    "xlm-roberta": small_bert.write_xlm_roberta,
}


@pytest.fixture(params=WRITERS)
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> TextEncoder:
    return TextEncoder(WRITERS[request.param](tmp_path))


def roberta(folder: Path) -> TextEncoder:
    return TextEncoder(small_bert.write_roberta(folder))


def model_of(directory: Path, **fields: Any) -> mmiln.Model:
    return mmiln.Model("mosi", text_encoder=directory, **configs.tiny(text_dim=8, **ALONE), **fields)


# Tokenizers


@pytest.mark.parametrize("prefix", [False, True])
def test_vocab_json_and_merges_txt_as_transformers_reads_them(prefix: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="its tokenizer is the peer compared with")
    own = roberta(tmp_path).tokenizer
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"add_prefix_space": prefix}))
    peer = transformers.RobertaTokenizerFast.from_pretrained(tmp_path)
    sentences = [*SENTENCES, "bad </s> film"]
    for sentence, tokens in zip(sentences, own.tokenize(sentences), strict=True):
        ids = peer(sentence)["input_ids"]
        assert tokens.tolist() == [ids, [1] * len(ids), [0] * len(ids)], sentence
    saved = tmp_path / "saved"
    peer.save_pretrained(saved)  # writes tokenizer.json
    (tmp_path / "config.json").rename(saved / "config.json")
    again = TextEncoder(saved).tokenizer.tokenize(sentences)
    assert all(torch.equal(a, b) for a, b in zip(again, own.tokenize(sentences), strict=True))


@pytest.mark.filterwarnings("ignore:.* mostly unknown")
def test_each_piece_belongs_to_a_word_that_white_space_parts(encoder: TextEncoder) -> None:
    for sentence, number, tokens in zip(
        SENTENCES, encoder.tokenizer.words(SENTENCES), encoder.tokenizer.tokenize(SENTENCES), strict=True
    ):
        said = sentence.split()
        inner = number[1:-1].tolist()
        assert len(number) == tokens.shape[1]
        assert number[[0, -1]].tolist() == [-1, -1]
        assert sorted(set(inner)) == (list(range(len(said))) or [-1] * bool(inner))
        assert inner == sorted(inner)
    names = encoder.tokenizer.pieces(encoder.tokenizer.tokenize(SENTENCES[:1])[0][0].tolist())[0]
    of_badly = [
        name for name, word in zip(names, encoder.tokenizer.words(SENTENCES[:1])[0], strict=True) if word == 3
    ]
    assert "".join(of_badly).strip("▁Ġ").replace("##", "") == "badly"


def test_offsets_that_begin_with_the_space(tmp_path: Path) -> None:
    """As in tokenizer.json files that do not trim offsets."""
    from tokenizers.processors import RobertaProcessing

    own = roberta(tmp_path).tokenizer
    expected = own.words(SENTENCES)
    own._tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=False)
    assert own._encode(["the film"])[0].offsets[2] == (3, 8)
    assert all(torch.equal(a, b) for a, b in zip(own.words(SENTENCES), expected, strict=True))


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta"])
def test_pieces_are_joined_to_words(family: str, tmp_path: Path) -> None:
    own = TextEncoder(WRITERS[family](tmp_path)).tokenizer
    sentence = " very  badly made, café " if family == "roberta" else " very  badly, 好看 "
    ids = own.tokenize([sentence])[0][0].tolist()
    names, places, texts = own.pieces(ids)
    assert texts == sentence.split()
    assert [place for at in places for place in at] == list(range(1, len(ids) - 1))
    assert (names[0], names[-1]) == ("<s>", "</s>")
    for i, at in enumerate(places):  # the same words as those of white space
        assert {int(word) for word in own.words([sentence])[0][at]} == {i}
    assert own.pieces([0, 2]) == (["<s>", "</s>"], [], [])


def test_words_of_a_roberta_are_explained(tmp_path: Path) -> None:
    model = model_of(small_bert.write_roberta(tmp_path), seed=3)
    part = Split(["a", "b"], [1, -1], raw_text=["the film was badly made, café", "good"])
    explained = model.explain(part, "a")
    assert [word.text for word in explained.words] == ["the", "film", "was", "badly", "made,", "café"]
    without = model.predict({"raw_text": ["the film was badly café"]}).score[0]
    assert explained.words[4].weight == pytest.approx(explained.score - without, abs=1e-5)


def test_the_unknown_token(encoder: TextEncoder) -> None:
    assert encoder.tokenizer.unknown == {"bert": 1}.get(encoder.config["model_type"], 3)


def no_file(folder: Path) -> None:
    for name in ("vocab.json", "tokenizer.json", "vocab.txt"):
        (folder / name).unlink(missing_ok=True)


def words_alone(folder: Path) -> None:
    """As those RoBERTas have it whose vocab.txt holds pieces of another kind than WordPiece's."""
    no_file(folder)
    (folder / "vocab.txt").write_text("\n".join(small_bert.WORDS))


@pytest.mark.parametrize(
    ("family", "change", "expected"),
    [
        ("bert", no_file, r"neither tokenizer\.json nor vocab\.txt"),
        ("roberta", no_file, r"neither tokenizer\.json nor vocab\.json with merges\.txt"),
        ("roberta", words_alone, r"neither tokenizer\.json nor vocab\.json with merges\.txt"),
        ("xlm-roberta", no_file, r"sentencepiece\.bpe\.model also needs the package sentencepiece"),
    ],
)
def test_no_tokenizer(family: str, change: Callable[[Path], None], expected: str, tmp_path: Path) -> None:
    change(WRITERS[family](tmp_path))
    with pytest.raises(MissingFileError, match=f"{expected}.*AutoTokenizer.from_pretrained"):
        model_of(tmp_path).predict({"raw_text": ["good"]})
    assert len(model_of(tmp_path).predict({"text_bert": np.array([[[0, 6, 2], [1, 1, 1], [0, 0, 0]]])})) == 1


@pytest.mark.parametrize("setting", ['{"add_prefix_space": "perhaps"}', "[]", "{"])
def test_settings_that_are_none(setting: str, tmp_path: Path) -> None:
    own = roberta(tmp_path).tokenizer
    (tmp_path / "tokenizer_config.json").write_text(setting)
    with pytest.raises(ConfigError):
        own.tokenize(["good"])


@pytest.mark.parametrize(
    ("name", "content"), [("vocab.json", '{"a": 0}'), ("merges.txt", "a"), ("vocab.json", "[")]
)
def test_a_vocabulary_that_is_none(name: str, content: str, tmp_path: Path) -> None:
    own = roberta(tmp_path).tokenizer
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=r"the tokenizer in .* can't be used"):
        own.tokenize(["good"])


# Sentences that are cut

LONG = "good bad " * 20


def split_of(sentences: list[str]) -> Split:
    return Split(
        [f"{i} of {len(sentences)}" for i in range(len(sentences))],
        np.linspace(-2, 2, len(sentences)),
        raw_text=sentences,
    )


def test_cut_sentences_are_counted_once_for_each_set(encoder: TextEncoder) -> None:
    model = model_of(encoder.directory, batch_size=2, accumulate=1)
    train = split_of(["good", LONG, "bad", f"{LONG} film", "film", "very good", LONG])
    valid = split_of(["bad", f"{LONG} very"])
    with pytest.warns(DataWarning) as told:
        model.fit(train, valid, epochs=3, progress=False)
    assert [str(w.message)[:57] for w in told if w.category is DataWarning] == [
        "2 of 6 different sentences have more than 16 tokens, all ",
        "1 of 2 different sentences have more than 16 tokens, all ",
    ]
    with pytest.warns(DataWarning, match="1 of 3 different"):
        model.predict(split_of(["good", "bad", f"{LONG} was"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(train)  # told already
        pickle.loads(pickle.dumps(model)).predict(train)
    with pytest.warns(DataWarning, match="1 of 1 different"):
        encoder.tokenizer.tokenize([LONG])


def test_a_set_within_another_is_told_at_its_own_end(tmp_path: Path) -> None:
    """Also where the outer one never ends, as that of a run whose error a notebook keeps."""
    model = model_of(small_bert.write_roberta(tmp_path))
    outer = loaders.each([1, 2], model.encoder)
    next(outer)
    with pytest.warns(DataWarning, match="1 of 1 different"):
        model.predict({"raw_text": [LONG]})
    model.forward({"raw_text": [f"{LONG} film", "good"]})
    with pytest.warns(DataWarning, match="2 of 3 different"):
        outer.close()


def test_a_copy_made_within_a_set_still_warns(tmp_path: Path) -> None:
    own = roberta(tmp_path).tokenizer
    with own.one_set():
        copy = pickle.loads(pickle.dumps(own))
    with pytest.warns(DataWarning, match="1 of 1 different"):
        copy.tokenize([LONG])


def test_sentences_of_another_script_are_counted(tmp_path: Path) -> None:
    model = model_of(small_bert.write(tmp_path))
    said = ["good film", "фильм был хорошим", "очень good плохой", "good очень", "", "фильм был хорошим"]
    with pytest.warns(DataWarning, match=r"2 of 5 different sentences are mostly unknown .* 'очень good"):
        model.predict(split_of(said))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(split_of(said))  # told already
    assert model.encoder.tokenizer.unknown == 1


# Tokens of another vocabulary


def tokens_of(encoder: TextEncoder, sentences: list[str]) -> list[Any]:
    return [tokens.numpy() for tokens in encoder.tokenizer.tokenize(sentences)]


SAID = ["the film was good", "very bad", "badly good film"]


def test_tokens_of_another_family_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bert").mkdir()
    bert = TextEncoder(small_bert.write(tmp_path / "bert"))
    model = model_of(small_bert.write_roberta(tmp_path))
    batch = {"raw_text": SAID, "text_bert": tokens_of(bert, SAID), "labels": [1.0, 2.0, 0.0]}
    for _ in range(2):  # no second call lets it pass
        with pytest.raises(
            BatchError, match="begin with 0 and end with 2, got 2 and 3; give batches without"
        ):
            model.fit([batch], epochs=1, progress=False)
    del batch["text_bert"]
    model.fit([batch], epochs=1, progress=False)


def test_tokens_of_another_vocabulary_are_warned_of(encoder: TextEncoder) -> None:
    model = model_of(encoder.directory)
    tokens = tokens_of(encoder, SAID)
    for row in tokens[1:]:
        row[0, 1:-1] = row[0, -2:0:-1] + 1
    batch = {"raw_text": SAID, "text_bert": tokens}
    what = r"another tokenizer.*2 of the first 3 differ, such as 'very bad'"
    with pytest.warns(DataWarning, match=what):
        model.predict(batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(batch)  # told already
        model.predict({"raw_text": SAID, "text_bert": tokens_of(encoder, SAID)})
    with pytest.warns(DataWarning, match=what):
        model.predict(batch)  # other data than before


def test_own_tokens_are_not_warned_of(encoder: TextEncoder) -> None:
    """Nor where some were cut, padded, or no tokenizer is there."""
    tokens = tokens_of(encoder, SAID)
    padded = np.zeros((3, 3, 5), np.float32)
    for row, own in zip(padded, tokens, strict=True):
        row[:, : own.shape[1]] = own[:, :5]
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        model_of(encoder.directory).predict({"raw_text": SAID, "text_bert": tokens})
        model_of(encoder.directory).predict({"raw_text": SAID, "text_bert": padded})
        model_of(encoder.directory).predict(
            {"raw_text": ["a", "b"], "text_bert": tokens}
        )  # two are not three
        no_file(encoder.directory)
        model_of(encoder.directory).predict({"raw_text": ["bad"] * 3, "text_bert": tokens})

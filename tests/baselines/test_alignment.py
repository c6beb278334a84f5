"""Aligned frames of words, and their alignment to the word pieces of a text encoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmiln.baselines import NETWORKS, Baseline
from mmiln.baselines.alignment import to_pieces
from mmiln.errors import BatchError, DataWarning
from mmiln.text_encoder import find_text_encoder

pytest.importorskip("transformers", reason="BertModel is the encoder")

SENTENCES = ["the film, was bad", "good", "not  very-good film"]
ALIGNED = [name for name, network in NETWORKS.items() if network.ALIGNED]


def frames(lengths: list[int], width: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, width)).astype(np.float32) for n in lengths]


def words() -> dict[str, object]:
    lengths = [len(sentence.split()) for sentence in SENTENCES]
    return {"raw_text": SENTENCES, "audio": frames(lengths, 5), "vision": frames(lengths, 3, 1)}


def test_each_piece_belongs_to_the_word_that_white_space_parts(tiny_bert):
    encoder = find_text_encoder(tiny_bert)
    numbers = encoder.tokenizer.words(SENTENCES)
    tokens = encoder.tokenizer.tokenize(SENTENCES)
    assert [len(n) for n in numbers] == [each.shape[1] for each in tokens]
    assert numbers[1].tolist() == [-1, 0, -1]
    for number, sentence in zip(numbers, SENTENCES, strict=True):
        inner = number[1:-1]
        assert int(number[0]) == int(number[-1]) == -1
        assert sorted(set(inner.tolist())) == list(range(len(sentence.split())))
        assert bool((inner.diff() >= 0).all())
    assert len(numbers[0]) == 2 + 5  # "film," are two pieces


@pytest.mark.parametrize("padded", [None, "right", "left"])
def test_the_frame_of_a_word_stands_at_each_of_its_pieces(padded, tiny_bert):
    encoder, batch = find_text_encoder(tiny_bert), words()
    given = dict(batch) | ({"padding_side": padded} if padded else {})
    if padded:
        for name in ("audio", "vision"):
            rows = [torch.from_numpy(each) for each in batch[name]]
            given[name] = torch.nn.utils.rnn.pad_sequence(
                rows, batch_first=True, padding_value=9.0, padding_side=padded
            )
            given[f"{name}_lengths"] = [len(each) for each in rows]
    spread = to_pieces(given, encoder)
    for name in ("audio", "vision"):
        for got, own, number in zip(
            spread[name], batch[name], encoder.tokenizer.words(SENTENCES), strict=True
        ):
            expected = [own[i] if i >= 0 else np.zeros(own.shape[1]) for i in number.tolist()]
            np.testing.assert_array_equal(got.numpy(), np.stack(expected))


def test_a_frame_a_piece_needs_none_for_cls_and_sep(tiny_bert):
    encoder = find_text_encoder(tiny_bert)
    tokens = encoder.tokenizer.tokenize(SENTENCES)
    inner = [each.shape[1] - 2 for each in tokens]
    batch = {"text_bert": tokens, "audio": frames(inner, 5), "vision": frames([n + 2 for n in inner], 3)}
    spread = to_pieces(batch, encoder)
    for got, own in zip(spread["audio"], batch["audio"], strict=True):
        np.testing.assert_array_equal(got.numpy(), np.pad(own, ((1, 1), (0, 0))))
    assert spread["vision"] is batch["vision"]


def test_tokens_under_the_name_of_text_are_tokens(tiny_bert):
    """MMSA's loader puts tokens there, padded and as floats; sentences beside them are then not read."""
    encoder = find_text_encoder(tiny_bert)
    tokens = encoder.tokenizer.tokenize(SENTENCES)
    lengths = [each.shape[1] for each in tokens]
    padded = np.zeros((len(tokens), 3, max(lengths) + 2), np.float32)
    for row, each in zip(padded, tokens, strict=True):
        row[:, : each.shape[1]] = each
    inner = [n - 2 for n in lengths]
    given = {"audio": frames(inner, 5), "vision": frames(inner, 3, 1)}
    batch = {"text": padded, "raw_text": ["of", "other", "lengths of words"], **given}
    spread = to_pieces(batch, encoder)
    for name, own in given.items():
        for got, each in zip(spread[name], own, strict=True):
            np.testing.assert_array_equal(got.numpy(), np.pad(each, ((1, 1), (0, 0))))
    model = Baseline("ef_lstm", text_encoder=tiny_bert)
    with pytest.warns(DataWarning, match="or of other sentences than raw_text"):
        score = model.predict([batch]).score
    np.testing.assert_array_equal(score, model.predict([{"text_bert": tokens, **given}]).score)


@pytest.mark.parametrize("name", ALIGNED)
def test_words_with_a_text_encoder_are_trained_on(name, tiny_bert):
    batch = words() | {"labels": np.array([-1.0, 1.0, 0.5])}
    model = Baseline(name, text_encoder=tiny_bert)
    before = model.predict([batch]).score
    assert model.fit([batch], epochs=1, progress=False).epochs == 1
    after = model.predict([batch]).score
    assert np.isfinite(after).all() and not np.array_equal(before, after)
    # The same as with the frame of each piece written out.
    written = to_pieces(batch, find_text_encoder(tiny_bert))
    np.testing.assert_array_equal(model.predict([written]).score, after)


@pytest.mark.parametrize("name", ALIGNED)
def test_frames_of_other_lengths_are_refused(name, tiny_bert):
    """They are refused also if padding hides the difference."""
    batch = words()
    batch["vision"] = np.zeros((3, 7, 3), np.float32)
    batch["vision_lengths"] = [4, 2, 3]
    with pytest.raises(BatchError, match=r"a word piece, or a word .* vision \[4, 2"):
        Baseline(name, text_encoder=tiny_bert).predict([batch])

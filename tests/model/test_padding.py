"""Padding does not exist for the model: the same true frames give the same bits, however they come."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mmiln
from reference import batches, configs

LENGTHS = {"text": [4, 1, 7], "audio": [5, 1, 9], "vision": [3, 6, 1]}
MODALITIES = ("text", "audio", "vision")
FILLS = {
    "zeros": lambda shape: np.zeros(shape, np.float32),
    "noise": lambda shape: np.random.default_rng(0).normal(0, 1e4, shape).astype(np.float32),
    "nan": lambda shape: np.full(shape, np.nan, np.float32),
    "inf": lambda shape: np.full(shape, np.inf, np.float32),
    "minus inf": lambda shape: np.full(shape, -np.inf, np.float32),
}


def ragged(seed: int = 0) -> dict[str, Any]:
    batch = batches.random_batch(configs.tiny(), LENGTHS, seed)
    frames = {m: [u.float().numpy() for u in batch[m]] for m in MODALITIES}
    return {**frames, "labels": np.array([1.0, -2.5, 0.0], np.float32)}


def pad(utterances: list[np.ndarray], width: int, side: str, fill: str) -> np.ndarray:
    out = FILLS[fill]((len(utterances), width, *utterances[0].shape[1:]))
    for row, frames in zip(out, utterances, strict=True):
        true = slice(width - len(frames), width) if side == "left" else slice(0, len(frames))
        row[true] = frames
    return out


def padded(batch: dict[str, Any], extra: int, side: str, fill: str) -> dict[str, Any]:
    """The same batch as arrays, each `extra` wider than its longest utterance."""
    out: dict[str, Any] = {"labels": batch["labels"], "padding_side": side}
    for m in MODALITIES:
        lengths = [len(u) for u in batch[m]]
        out |= {m: pad(batch[m], max(lengths) + extra, side, fill), f"{m}_lengths": lengths}
    return out


def results(model: mmiln.Model, batch: dict[str, Any]) -> dict[str, Tensor | list[Tensor]]:
    """All results of a batch: outputs, losses, gradients."""
    found = dict(model.forward(batch, intermediates=True))
    found |= {f"loss {name}": value for name, value in model.losses(batch).items()}
    return found | {f"gradient {name}": value for name, value in model.gradients(batch).items()}


def same_bits(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    assert set(actual) == set(expected)
    for name, value in expected.items():
        pairs = zip(actual[name], value, strict=True) if isinstance(value, list) else [(actual[name], value)]
        assert all(torch.equal(mine, theirs) for mine, theirs in pairs), name


@pytest.fixture(scope="module")
def model() -> mmiln.Model:
    return mmiln.Model("mosi", **configs.tiny())


@pytest.fixture(scope="module")
def expected(model: mmiln.Model) -> dict[str, Any]:
    found = results(model, ragged())
    tensors = [t for value in found.values() for t in (value if isinstance(value, list) else [value])]
    assert all(bool(t.isfinite().all()) for t in tensors)
    return found


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("extra", [0, 1, 20])
def test_padding_of_any_width_and_content(
    model: mmiln.Model, expected: dict, extra: int, side: str, fill: str
) -> None:
    same_bits(results(model, padded(ragged(), extra, side, fill)), expected)


def test_padding_stands_on_the_right_unless_told(model: mmiln.Model, expected: dict) -> None:
    batch = padded(ragged(), 2, "right", "noise")
    del batch["padding_side"]
    same_bits(results(model, batch), expected)


def negative_strides(x: np.ndarray) -> np.ndarray:
    out = np.ascontiguousarray(x[::-1, ::-1, ::-1])[::-1, ::-1, ::-1]
    assert min(out.strides) < 0
    return out


def every_second(x: np.ndarray) -> np.ndarray:
    out = np.full([2 * n for n in x.shape], np.nan, x.dtype)[::2, ::2, ::2]
    out[...] = x
    return out


def read_only(x: np.ndarray) -> np.ndarray:
    out = x.copy()
    out.flags.writeable = False
    return out


@pytest.mark.parametrize("is_padded", [False, True])
def test_a_batch_has_memory_of_its_own(is_padded: bool) -> None:
    batch = padded(ragged(), 0, "right", "nan") if is_padded else ragged()
    arrays = [x for m in MODALITIES for x in ([batch[m]] if is_padded else batch[m])] + [batch["labels"]]
    shared = {key: torch.from_numpy(x) for key, x in batch.items() if isinstance(x, np.ndarray)}
    shared |= {m: list(map(torch.from_numpy, batch[m])) for m in MODALITIES if not is_padded}
    packed = mmiln._core.Batch(device="cpu", dtype="float32", **batch | shared)
    parts = packed.parts()
    copies = {name: part.clone() for name, part in parts.items()}
    for x in [*arrays, *parts.values()]:
        x[...] = 1  # as a holder of the tensors may do later
    for name, part in packed.parts().items():
        assert torch.equal(part, copies[name]), name


LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "Fortran order": np.asfortranarray,
    "time first": lambda x: np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1),
    "negative strides": negative_strides,
    "every second element": every_second,
    "read-only": read_only,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "torch": torch.from_numpy,
    "torch, channels first": lambda x: torch.from_numpy(x).transpose(1, 2).contiguous().transpose(1, 2),
    "torch, part of a larger tensor": lambda x: torch.from_numpy(every_second(x)),
    "float64": lambda x: x.astype(np.float64),
}


@pytest.mark.parametrize("fill", ["zeros", "nan"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_padded_memory_of_any_layout(model: mmiln.Model, expected: dict, layout: str, fill: str) -> None:
    batch = padded(ragged(), 3, "left", fill)
    before = {m: batch[m].copy() for m in MODALITIES}
    batch |= {m: LAYOUTS[layout](batch[m]) for m in MODALITIES}
    same_bits(results(model, batch), expected)
    for m in MODALITIES:  # and the caller's arrays are as they were
        np.testing.assert_array_equal(np.asarray(batch[m]), before[m])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ragged_memory_of_any_layout(model: mmiln.Model, expected: dict, layout: str) -> None:
    batch = ragged()
    for m in MODALITIES:
        batch[m] = [LAYOUTS[layout](frames[None])[0] for frames in batch[m]]
    same_bits(results(model, batch), expected)


LENGTH_TYPES: dict[str, Callable[[list[int]], Any]] = {
    "tuple": tuple,
    "numpy int32": lambda n: np.array(n, np.int32),
    "numpy uint8": lambda n: np.array(n, np.uint8),
    "numpy float": lambda n: np.array(n, np.float64),
    "column": lambda n: np.array(n)[:, None],
    "torch": torch.tensor,
    "numpy scalars": lambda n: [np.int64(length) for length in n],
}


@pytest.mark.parametrize("kind", LENGTH_TYPES)
def test_lengths_of_any_type(model: mmiln.Model, expected: dict, kind: str) -> None:
    batch = padded(ragged(), 1, "right", "nan")
    batch |= {f"{m}_lengths": LENGTH_TYPES[kind](batch[f"{m}_lengths"]) for m in MODALITIES}
    same_bits(results(model, batch), expected)


def test_an_expanded_tensor(model: mmiln.Model) -> None:
    """Three times the same utterance, without memory of its own."""
    first = {m: torch.from_numpy(ragged()[m][2])[None] for m in MODALITIES}
    rows = {m: frames.expand(3, -1, -1) for m, frames in first.items()}
    lengths = {f"{m}_lengths": [frames.shape[1]] * 3 for m, frames in first.items()}
    copied = {m: [frames[0].clone()] * 3 for m, frames in first.items()}
    same_bits(
        model.forward({**rows, **lengths}, intermediates=True), model.forward(copied, intermediates=True)
    )


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("modality", MODALITIES)
def test_the_first_and_last_true_frame_count(
    model: mmiln.Model, expected: dict, modality: str, side: str
) -> None:
    for utterance, length in enumerate(LENGTHS[modality]):
        for frame in {0, length - 1}:
            batch = ragged()
            batch[modality][utterance][frame, 0] += 1
            changed = model.forward(padded(batch, 2, side, "nan"))["F_multimodal"][utterance]
            assert not torch.equal(changed, expected["F_multimodal"][utterance])


def test_a_batch_is_its_utterances() -> None:
    """An utterance's results depend neither on the rest of the batch nor on the order."""
    model = mmiln.Model("mosi", dtype="float64", **configs.tiny())
    batch = ragged()
    together = model.forward(batch, intermediates=True)
    for b in range(3):
        alone = model.forward({m: [batch[m][b]] for m in MODALITIES}, intermediates=True)
        for name, value in alone.items():
            torch.testing.assert_close(value[0], together[name][b], rtol=1e-12, atol=1e-12)
    backwards = {name: value[::-1] for name, value in batch.items()}
    for name, loss in model.losses(backwards).items():
        torch.testing.assert_close(loss, model.losses(batch)[name], rtol=1e-12, atol=1e-12)


def test_training_on_padded_batches(model: mmiln.Model) -> None:
    weights = []
    for batch in (ragged(), padded(ragged(), 4, "left", "nan"), padded(ragged(), 9, "right", "inf")):
        trained = mmiln.Model("mosi", **configs.tiny())
        trained.fit([{**batch, "index": np.arange(3)}] * 3, epochs=3, progress=False)
        weights.append(trained.state_dict())
    same_bits(weights[1], weights[0])
    same_bits(weights[2], weights[0])


def test_text_features_are_no_mask(model: mmiln.Model) -> None:
    """Text of three frames is not MMSA's (batch, 3, tokens), whatever else is as wide as it."""
    text = np.ones((2, 3, 7), np.float32)
    text[:, 1, 4:] = 0
    batch = {"text": text, "text_lengths": [3, 3], "audio": np.ones((2, 7, 5), np.float32)}
    batch |= {"vision": np.ones((2, 4, 6), np.float32), "vision_lengths": [4, 4]}
    with pytest.raises(mmiln.errors.BatchError, match="audio_lengths"):
        model.forward(batch)


# Token ids


@pytest.fixture(scope="module")
def bert_model(tmp_path_factory: pytest.TempPathFactory) -> mmiln.Model:
    transformers = pytest.importorskip("transformers", reason="BertModel writes the encoder")
    directory: Path = tmp_path_factory.mktemp("bert")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BertModel(transformers.BertConfig(**configs.TINY_BERT)).save_pretrained(directory)
    return mmiln.Model("mosi", text_encoder=directory, **configs.tiny(text_dim=8))


def token_batch() -> dict[str, Any]:
    tokens = batches.random_batch(configs.tiny(), LENGTHS, 0, configs.TINY_BERT)["text_bert"]
    batch = ragged()
    del batch["text"]
    return {**batch, "text_bert": [t.numpy() for t in tokens]}


def pad_tokens(tokens: list[np.ndarray], width: int, side: str, fill: int) -> np.ndarray:
    """(B, 3, width), the mask zero and everything else `fill` where there is no token."""
    out = np.full((len(tokens), 3, width), fill)
    out[:, 1] = 0
    for row, true in zip(out, tokens, strict=True):
        length = true.shape[1]
        row[:, slice(width - length, width) if side == "left" else slice(0, length)] = true
    return out


@pytest.fixture(scope="module")
def bert_expected(bert_model: mmiln.Model) -> dict[str, Any]:
    return results(bert_model, token_batch())


@pytest.mark.parametrize("fill", [0, 10**6, -1], ids=["zeros", "unknown ids", "negative"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("width", [7, 40])
def test_tokens_are_found_by_their_mask(
    bert_model: mmiln.Model, bert_expected: dict, width: int, side: str, fill: int
) -> None:
    array = pad_tokens(token_batch()["text_bert"], width, side, fill)
    for given in (array, torch.from_numpy(array), array.astype(np.float32), list(array)):
        same_bits(results(bert_model, {**token_batch(), "text_bert": given}), bert_expected)


def test_ids_that_are_not_numbers_may_stand_in_padding(bert_model: mmiln.Model, bert_expected: dict) -> None:
    batch = token_batch()
    array = pad_tokens(batch["text_bert"], 9, "right", 0).astype(np.float32)
    array[:, 0][array[:, 1] == 0] = np.nan
    same_bits(results(bert_model, {**batch, "text_bert": array}), bert_expected)


def test_mmsa_batches(bert_model: mmiln.Model, bert_expected: dict) -> None:
    """Keys, shapes and types as MMSA's loader gives them to a model that fine-tunes BERT."""
    batch = token_batch()
    array = pad_tokens(batch["text_bert"], 12, "right", 0)
    mmsa = {
        "raw_text": ["a", "b", "c"],
        "text": torch.from_numpy(array).float(),
        "index": torch.arange(3),
        "id": ["x$_$1", "x$_$2", "y$_$1"],
        "labels": {"M": torch.from_numpy(batch["labels"])[:, None], "T": torch.full((3,), torch.nan)},
    }
    for m in ("audio", "vision"):
        mmsa[m] = torch.from_numpy(pad(batch[m], 12, "right", "zeros"))
        mmsa[f"{m}_lengths"] = LENGTHS[m]
        mmsa |= {f"{m}_m": mmsa[m], f"{m}_mask": torch.ones(3, 12), f"{m}_missing_mask": torch.ones(3, 12)}
    same_bits(results(bert_model, mmsa), bert_expected)


@pytest.mark.parametrize("key", ["text", "text_bert"])
@pytest.mark.parametrize(("side", "told"), [("right", True), ("left", True), ("left", False)])
def test_aligned_arrays_take_the_frames_of_their_tokens(
    bert_model: mmiln.Model, side: str, told: bool, key: str
) -> None:
    """The mask tells which frames are true; `padding_side` need not repeat it."""
    frames = batches.random_batch(configs.tiny(), dict.fromkeys(MODALITIES, LENGTHS["text"]), 1)
    true = {m: [u.float().numpy() for u in frames[m]] for m in ("audio", "vision")}
    true["labels"] = ragged()["labels"]
    tokens = token_batch()["text_bert"]
    aligned = {m: pad(true[m], 10, side, "zeros") for m in ("audio", "vision")}
    aligned |= {key: pad_tokens(tokens, 10, side, 0), "labels": true["labels"]}
    if told:
        aligned["padding_side"] = side
    same_bits(results(bert_model, aligned), results(bert_model, {**true, "text_bert": tokens}))


def test_aligned_features_take_the_length_of_their_tokens(model: mmiln.Model) -> None:
    """This holds also if the model reads features and `text_bert` only gives their lengths."""
    frames = batches.random_batch(configs.tiny(), dict.fromkeys(MODALITIES, LENGTHS["text"]), 1)
    true: dict[str, Any] = {m: [u.float().numpy() for u in frames[m]] for m in MODALITIES}
    true["labels"] = ragged()["labels"]
    aligned = {m: pad(true[m], 10, "right", "nan") for m in MODALITIES}
    aligned |= {"text_bert": pad_tokens(token_batch()["text_bert"], 10, "right", 0), "labels": true["labels"]}
    same_bits(results(model, aligned), results(model, true))

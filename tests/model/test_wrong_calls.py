"""Wrong calls: each has its exception and a sentence that helps, and leaves the model in working order."""

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone

import mmiln
from mmiln.errors import (
    BatchError,
    ConfigError,
    DataError,
    DeviceError,
    MissingFileError,
    NonFiniteError,
    StateError,
)
from reference import batches, configs

LENGTHS = {"text": [4, 1, 3], "audio": [2, 1, 4], "vision": [3, 2, 1]}
DROPOUTS = ("multimodal", "audio", "vision", "attn", "residual", "embed")
CHOICES = ("pooling", "variant", "optimizer", "accumulate_mode")
HERE = Path(__file__).parent
Batch = dict[str, Any]
Model = mmiln.Model


def valid() -> Batch:
    batch = batches.random_batch(configs.TINY, LENGTHS, 0)
    frames = {m: [u.float().numpy() for u in batch[m]] for m in LENGTHS}
    return {**frames, "labels": np.array([1.0, -2.0, 0.0]), "index": np.arange(3)}


def tokens() -> Batch:
    batch = valid()
    del batch["text"]
    return {**batch, "text_bert": [np.array([[2, 5, 3], [1, 1, 1], [0, 1, 1]])] * 3}


@pytest.fixture(scope="module")
def model() -> Model:
    built = Model("mosi", **configs.tiny(num_layers=1))
    built.fit([valid()], epochs=1, progress=False)
    return built


@pytest.fixture(scope="module")
def bert_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    transformers = pytest.importorskip("transformers", reason="BertModel writes the encoder")
    directory: Path = tmp_path_factory.mktemp("bert")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BertModel(transformers.BertConfig(**configs.TINY_BERT)).save_pretrained(directory)
    (directory / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood", encoding="utf-8")
    return Model("mosi", text_encoder=directory, **configs.tiny(num_layers=1, text_dim=8))


def refused(model: Model, good: Batch, call: Callable[[], Any], error: type[Exception], message: str) -> None:
    """The call raises this error, the weights stay, and the model can train and predict."""
    before = model.state_dict()
    with pytest.raises(error, match=re.escape(message)) as caught:
        call()
    assert type(caught.value) is error
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    history = model.fit([good], epochs=1, progress=False)
    assert math.isfinite(history["train_total"][0])
    assert not all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert np.isfinite(model.predict(good).score).all()


def audio(*utterances: Any) -> Batch:
    return {"audio": list(utterances)}


def padded(lengths: Any, shape: tuple[int, ...] = (3, 4, 5)) -> Batch:
    return {"audio": np.ones(shape, np.float32), "audio_lengths": lengths}


def spoilt(utterance: int, frame: int, value: float) -> Batch:
    frames = [u.astype(np.float64) for u in valid()["audio"]]
    frames[utterance][frame, 3] = value
    return {"audio": frames}


NO_TEXT = {"text": None}
NONE: Batch = {name: [] for name in ("text", "audio", "vision", "labels", "index")}
ONE, TWO = np.ones((1, 5), np.float32), np.ones((2, 5), np.float32)
BATCHES: dict[str, tuple[Batch, str]] = {
    "text too wide": ({"text": [np.ones((2, 8))] * 3}, "text must be 7 wide (text_dim), got 8"),
    "audio too narrow": ({"audio": [np.ones((2, 4))] * 3}, "audio must be 5 wide (audio_dim), got 4"),
    "vision too wide": ({"vision": [np.ones((2, 9))] * 3}, "vision must be 6 wide (vision_dim), got 9"),
    "widths that differ": (audio(ONE, ONE[:, :4], ONE), "utterance 1 of the batch must have shape (time, 5)"),
    "a list of three axes": (audio(ONE, ONE, ONE[None]), "utterance 2 of the batch must have shape"),
    "a list of vectors": (audio(*[ONE[0]] * 3), "utterance 0 of the batch must have shape"),
    "two axes": (padded([1, 1, 1], (3, 5)), "audio must be a padded array (batch, time, width) or a list"),
    "four axes": (padded([1, 1, 1], (3, 1, 1, 5)), "audio must be a padded array"),
    "a number": ({"audio": 5.0, "audio_lengths": [1, 1, 1]}, "audio must be a padded array"),
    "no lengths": ({"audio": np.ones((3, 4, 5))}, "audio_lengths is needed"),
    "length negative": (padded([1, -1, 2]), "utterance 1 of the batch has length -1"),
    "length past the array": (padded([4, 1, 5]), "utterance 2 of the batch has length 5, expected 1 to 4"),
    "lengths too few": (padded([4, 1]), "audio_lengths must hold one length an utterance: audio has 3"),
    "lengths too many": (padded([4, 1, 1, 1]), "audio_lengths must hold one length an utterance"),
    "lengths fractional": (padded([1, 2.5, 1]), "audio_lengths must hold whole numbers"),
    "lengths NaN": (padded([1, math.nan, 1]), "audio_lengths must hold whole numbers"),
    "lengths infinite": (padded([1, math.inf, 1]), "audio_lengths"),
    "lengths huge": (padded([1, 1e30, 1]), "audio"),
    "lengths words": (padded(["1", "2", "1"]), "audio_lengths must hold real numbers"),
    "label NaN": ({"labels": [0.0, math.nan, 1.0]}, "utterance 1 of the batch has the label NaN"),
    "label infinite": ({"labels": [math.inf, 0.0, 1.0]}, "utterance 0 of the batch has the label inf"),
    "label out of bounds": ({"labels": [0.0, 3.5, 1.0]}, "labels must lie in [-3, 3] (label_bound), got"),
    "no label": ({"labels": None}, "the batch has no labels"),
    "labels without M": ({"labels": {"T": [1, 2, 3]}}, "labels must hold 'M'"),
    "labels words": ({"labels": ["good", "bad", "good"]}, "labels must hold real numbers"),
    "labels too few": ({"labels": [1.0, 2.0]}, "got text 3, audio 3, vision 3, labels 2"),
    "labels two-dimensional": ({"labels": np.ones((3, 2))}, "same number of utterances"),
    "key misspelt": ({"lables": [0, 1, 2]}, "unknown key 'lables' in the batch; did you mean 'labels'?"),
    "key unknown": ({"speaker": 1}, "unknown key 'speaker'"),
    "key no name": ({7: 1}, "unknown key 7"),
    "objects": (audio(ONE.astype(object), ONE, ONE), "utterance 0 of the batch must hold real numbers"),
    "complex numbers": (audio(ONE, ONE * 1j, ONE), "must hold real numbers, got dtype complex"),
    "complex torch numbers": (audio(ONE, ONE, torch.ones(1, 5) * 1j), "real numbers, got torch.complex64"),
    "truth values": (padded([1, 1, 1]) | {"audio": np.ones((3, 4, 5), bool)}, "numbers, got dtype bool"),
    "words": ({"audio": "loud"}, "audio must hold real numbers"),
    "ragged nested lists": (audio([[1, 2], [3]], ONE, ONE), "utterance 0 of the batch must be an array"),
    "index negative": ({"index": [0, -1, 2]}, "index must not be negative, got -1"),
    "index fractional": ({"index": [0, 0.5, 2]}, "index must hold whole numbers"),
    "index NaN": ({"index": [0, math.nan, 2]}, "index must hold whole numbers"),
    "index infinite": ({"index": [0, math.inf, 2]}, "index must hold whole numbers"),
    "index all negative": ({"index": [-1, -2, -3]}, "index must not be negative"),
    "index truth values": ({"index": [True, False, True]}, "index must hold real numbers"),
    "index with a gap": ({"index": [0, None, 2]}, "index must hold real numbers"),
    "index too short": ({"index": [0, 1]}, "same number of utterances"),
    "NaN in a true frame": (spoilt(2, 3, math.nan), "utterance 2 of the batch holds a value that is not "
                            "finite in its true frame 3 of 4"),
    "infinity in a true frame": (spoilt(0, 1, -math.inf), "utterance 0 of the batch holds a value that is "
                                 "not finite in its true frame 1 of 2"),
    "overflow in float32": (spoilt(1, 0, 1e300), "utterance 1 of the batch holds a value that is not finite"),
    "sizes that differ": (audio(ONE, TWO), "same number of utterances, got text 3, audio 2, vision 3"),
    "no utterance": (NONE, "at least one utterance"),
    "no audio": ({"audio": None}, "the batch has no 'audio', which this model was built with"),
    "no text": (NO_TEXT, "the batch has no 'text' (features)"),
    "sentences for features": (NO_TEXT | {"raw_text": ["a"] * 3}, "build the model with text_encoder="),
    "tokens for features": (NO_TEXT | {"text_bert": np.ones((3, 3, 4))}, "to use its text_bert, build the"),
    "padding in the middle": (padded([1, 2, 3]) | {"padding_side": "middle"}, 'must be "right" or "left"'),
    "padding side no name": (padded([1, 2, 3]) | {"padding_side": 1}, 'must be "right" or "left"'),
}  # fmt: skip


@pytest.mark.parametrize("case", BATCHES)
def test_batches(case: str, model: Model) -> None:
    changes, message = BATCHES[case]
    batch = {**valid(), **changes}
    if case != "no utterance":
        refused(model, valid(), lambda: model.fit([batch], epochs=1, progress=False), BatchError, message)
    refused(model, valid(), lambda: model.losses(batch), BatchError, message)


def ids(*rows: Any) -> Batch:
    return {"text_bert": [np.array(rows)] * 3}


NO_IDS = {"text_bert": None}
TOKENS: dict[str, tuple[Batch, str]] = {
    "id beyond the vocabulary": (ids([2, 30], [1, 1], [0, 0]), "id is 30, the text encoder knows up to 29"),
    "id negative": (ids([2, -3], [1, 1], [0, 0]), "text_bert must not hold negative numbers"),
    "id fractional": (ids([2, 3.5], [1, 1], [0, 0]), "must hold whole numbers"),
    "segment unknown": (ids([2, 3], [1, 1], [0, 2]), "segment is 2, the text encoder knows up to 1"),
    "too many tokens": (ids([2] * 17, [1] * 17, [0] * 17), "tokens is 17, the text encoder knows up to 16"),
    "no token": (ids([2, 3], [0, 0], [0, 0]), "utterance 0 of the batch has length 0 (its mask is zero"),
    "two rows": (ids([2, 3], [1, 1]), "utterance 0 of the batch must have shape (3, tokens)"),
    "an array of two rows": ({"text_bert": np.ones((3, 2, 4))}, "must have shape (batch, 3, tokens)"),
    "words": ({"text_bert": np.full((3, 3, 4), "a")}, "text_bert must hold real numbers"),
    "none": (NO_IDS, "the batch has no text_bert or raw_text"),
    "features alone": (NO_IDS | {"text": [np.ones((2, 8))] * 3}, "the batch has no text_bert or raw_text"),
    "one sentence": (NO_IDS | {"raw_text": "good"}, "raw_text must be a list of sentences"),
    "sentences that are none": (NO_IDS | {"raw_text": ["good", 2, "a"]}, "must be a list of sentences"),
    "a number for sentences": (NO_IDS | {"raw_text": 3}, "raw_text must be a list of sentences"),
    "sentences too few": (NO_IDS | {"raw_text": ["good"]}, "same number of utterances, got text_bert 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", TOKENS)
def test_tokens(case: str, bert_model: Model) -> None:
    changes, message = TOKENS[case]
    batch = {**tokens(), **changes}
    refused(bert_model, tokens(), lambda: bert_model.losses(batch), BatchError, message)


class Unsized:
    """Can be read again and again, but tells no size."""

    def __iter__(self) -> Iterator[Batch]:
        return iter([valid()])


class Sized(Unsized):
    """Tells one utterance more than its batches hold, which have no index."""

    dataset = range(4)

    def __iter__(self) -> Iterator[Batch]:
        return iter([{**valid(), "index": None}])


def fit(loader: Any = None, *rest: Any, **more: Any) -> Callable[[Model], Any]:
    return lambda m: m.fit([valid()] if loader is None else loader, *rest, **{"progress": False, **more})


def trained_on_text() -> Model:
    built = Model("mosi", **configs.tiny(num_layers=1, audio_dim=0, vision_dim=0))
    built.fit([valid()], epochs=1, progress=False)
    return built


NO_LABEL, NO_INDEX = {"labels": None}, {"index": None}
CALLS: dict[str, tuple[Callable[[Model], Any], type[Exception], str]] = {
    "empty loader": (fit([]), BatchError, "the loader yields no batch"),
    "empty loader to predict": (lambda m: m.predict([]), BatchError, "the loader yields no batch"),
    "empty loader to evaluate": (lambda m: m.evaluate([]), BatchError, "the loader yields no batch"),
    "an iterator to train on": (fit(iter([1])), BatchError, "an iterator can be read only once"),
    "a generator to train on": (fit(valid() for _ in "a"), BatchError, "an iterator can be read only once"),
    "a loader without size": (fit(Unsized()), StateError, "whose size this loader does not tell"),
    "a path": (fit("data.pkl"), BatchError, "got a path: read it by mmiln.data.load('data.pkl')"),
    "a path to predict": (lambda m: m.predict(HERE), BatchError, "got a path: read it by mmiln.data.load"),
    "a folder by name": (lambda m: m.predict(str(HERE)), BatchError, "got a path: read it by"),
    "bytes": (fit(b"data"), BatchError, "got bytes"),
    "a number": (fit(3), BatchError, "got int"),
    "one batch to train on": (fit(valid()), BatchError, "a loader must be an iterable of batches"),
    "a number to predict": (lambda m: m.predict(3), BatchError, "a loader must be an iterable of batches"),
    "batches that are none": (fit([1, 2]), BatchError, "a batch must be a mapping"),
    "tuples": (lambda m: m.predict([(1, 2)]), BatchError, "got tuple"),
    "an array": (lambda m: m.forward(np.ones((3, 4, 5))), BatchError, "got ndarray"),
    "nothing": (lambda m: m.losses(None), BatchError, "got NoneType"),
    "no index": (fit([valid() | NO_INDEX]), StateError, "every batch needs an 'index'"),
    "no index, though the size is known": (fit(Sized()), BatchError, "the batch has no index"),
    "index out of range": (lambda m: m.losses(valid() | {"index": [0, 1, 7]}), BatchError,
                           "index 7 is out of range: the training set has 3 utterances, 0 to 2"),
    "evaluation without labels": (lambda m: m.evaluate(valid() | NO_LABEL), BatchError, "needs labels"),
    "no epoch": (fit(epochs=0), ConfigError, "epochs must be at least 1, got 0"),
    "epochs negative": (fit(epochs=-2), ConfigError, "epochs must be at least 1"),
    "epochs fractional": (fit(epochs=1.5), ConfigError, "epochs must be"),
    "no patience": (fit(patience=0), ConfigError, "patience must be at least 1, got 0"),
    "patience negative": (fit(patience=-3), ConfigError, "patience must be at least 1, got -3"),
    "other layers": (lambda m: m.set_params(num_layers=3), StateError, "num_layers can't change"),
    "other widths": (lambda m: m.set_params(lr_text=1.0, audio_dim=9), StateError, "audio_dim can't change"),
    "other precision": (lambda m: m.set_params(dtype="float64"), StateError, "dtype can't change"),
    "rate negative": (lambda m: m.set_params(lr_other=-1.0), ConfigError, "lr_other must be finite and at"),
    "rate no number": (lambda m: m.set_params(lr_other="fast"), ConfigError, "lr_other"),
    "field misspelt": (lambda m: m.set_params(lr_others=1.0), ConfigError, "did you mean 'lr_other'?"),
    "measures of nothing": (lambda m: mmiln.Metrics.of([], []), DataError, "at least one"),
    "no saved model": (lambda m: Model.from_pretrained("no/such/model"), MissingFileError, "is not there"),
    "another directory": (lambda m: Model.from_pretrained(HERE), MissingFileError, "config.json"),
    "no encoder": (lambda m: Model(text_encoder="./no/bert"), MissingFileError, "is no directory no/bert"),
    "an encoder that is none": (lambda m: Model(text_encoder=HERE), MissingFileError, "config.json"),
    "labels before training": (lambda m: Model(**configs.TINY).pseudo_labels, StateError, "no pseudo-labels"),
    "labels of text alone": (lambda m: trained_on_text().pseudo_labels, StateError, "no pseudo-labels"),
    "summary without widths": (lambda m: Model(text_dim=7).summary(), StateError, "give audio_dim, vision"),
    "weights without widths": (lambda m: Model().state_dict(), StateError, "give text_dim, audio_dim"),
    "loading without widths": (lambda m: Model().load_state_dict({}), StateError, "no weights yet"),
    "saving without widths": (lambda m: Model().save_pretrained("nowhere"), StateError, "no weights yet"),
}  # fmt: skip


@pytest.mark.parametrize("case", CALLS)
def test_calls(case: str, model: Model) -> None:
    call, error, message = CALLS[case]
    arguments = model.get_params()
    refused(model, valid(), lambda: call(model), error, message)
    assert model.get_params() == arguments


AT_LEAST_1 = (
    "d_model num_heads num_layers audio_hidden vision_hidden multimodal_features audio_features "
    "vision_features batch_size accumulate patience"
)
AT_LEAST_0 = "alpha beta lr_text lr_audio lr_vision lr_other decay_text decay_audio decay_vision decay_other"
WRONG_TYPES = [
    ("d_model", "50"), ("d_model", 50.0), ("num_layers", True), ("alpha", "much"), ("beta", False),
    ("diff_normalize", 1), ("exclude_zero", "yes"), ("pooling", 1), ("seed", -1), ("seed", 1.5),
    ("seed", 2**64), ("batch_size", 2**70), ("text_dim", "7"), ("audio_dim", 2.5), ("vision_dim", True),
    ("alpha", math.nan), ("beta", math.inf), ("lr_other", [0.1]), ("decay_text", {}), ("preset", 3),
]  # fmt: skip
FIELDS: list[tuple[dict[str, Any], str]] = [
    (
        {"preset": "mosy"},
        'unknown preset "mosy": expected one of mosi, mosi-mmsa, mosei, mosei-mmsa, sims, simsv2',
    ),
    ({"num_layer": 3}, "unknown field 'num_layer'; did you mean 'num_layers'?"),
    ({"hidden": 3}, "unknown field 'hidden'; did you mean 'd_model' or 'audio_hidden'?"),
    ({"lr": 0.1}, "unknown field 'lr'; did you mean 'lr_other' or 'lr_text'?"),
    ({"epochs": 3}, "unknown field 'epochs'; did you mean 'fit(epochs=)'?"),
    ({"task": "mosi"}, "unknown field 'task'; did you mean 'preset='?"),
    ({"batchsize": 8}, "unknown field 'batchsize'; did you mean 'batch_size'?"),
    ({"hidden_size": 8}, "unknown field 'hidden_size'; did you mean 'd_model' or 'audio_hidden'?"),
    ({"xyz": 8}, "unknown field 'xyz': config.to_dict() of a model has all fields"),
    *[({name: 0}, f"{name} must be at least 1, got 0") for name in AT_LEAST_1.split()],
    *[({name: -0.1}, f"{name} must be finite and at least 0, got -0.1") for name in AT_LEAST_0.split()],
    *[({name: -1}, f"{name} must be a width, or 0") for name in ("text_dim", "audio_dim", "vision_dim")],
    *[({f"{part}_dropout": 1.0}, f"{part}_dropout must be in [0, 1), got 1") for part in DROPOUTS],
    *[({f"{part}_dropout": -1e-9}, f"{part}_dropout must be in [0, 1), got -") for part in DROPOUTS],
    *[({f"{m}_kernel": k}, f"{m}_kernel must be odd") for m, k in zip(LENGTHS, (2, 0, -1), strict=True)],
    *[({name: value}, name) for name, value in WRONG_TYPES],
    *[({name: "other"}, f"{name}: unknown variant `other`, expected") for name in CHOICES],
    ({"label_bound": 0.0}, "label_bound must be finite and above 0"),
    ({"d_model": 50, "num_heads": 4}, "multiple of num_heads, got d_model=50 and num_heads=4"),
    ({"text_dim": 0}, "needs exactly one of audio_dim and vision_dim above 0"),
    ({"text_dim": 0, "audio_dim": 0, "vision_dim": 0}, "needs exactly one of audio_dim and vision_dim"),
    ({"dtype": "float16"}, 'dtype must be "float32" or "float64"'),
    ({"dtype": torch.float32}, 'dtype must be "float32" or "float64"'),
]


@pytest.mark.parametrize(("changes", "message"), FIELDS)
def test_fields(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Model(**{"preset": "mosi", **changes})


DEVICES = ["gpu", "cuda:", "cuda:-1", "cpu:0", "CPU", 3, None, "cuda:99"]


@pytest.mark.parametrize("device", DEVICES)
def test_devices(device: Any) -> None:
    with pytest.raises(DeviceError, match="device") as caught:
        Model("mosi", device=device)
    assert repr(device) in str(caught.value)


def test_a_torch_device_is_a_device(model: Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    cpu = torch.device("cpu")
    built = [
        Model("mosi", device=cpu),
        mmiln.baselines.Baseline("lmf", device=cpu),
        Model.from_pretrained(tmp_path, device=cpu),
        mmiln.load_pretrained(tmp_path, device=cpu),
    ]
    assert [one.device for one in built] == ["cpu"] * 4
    with pytest.raises(DeviceError, match="'cuda:99' is not available"):
        Model("mosi", device=torch.device("cuda:99"))


def test_presets_are_known_in_capitals() -> None:
    for name in ("MOSI", "Mosi", "mosi"):
        assert Model(name).config == Model("mosi").config
        assert clone(Model(name)).preset == "mosi"
        assert mmiln.baselines.Baseline("lmf", name).preset == "mosi"
    assert Model("MOSEI-MMSA").preset == "mosei-mmsa"


def test_an_encoder_in_memory_is_named_by_its_type() -> None:
    with pytest.raises(ConfigError, match=r"got Linear: save an encoder .* text_encoder=DIR$") as caught:
        Model("mosi", text_encoder=torch.nn.Linear(2, 3))  # type: ignore[arg-type]
    assert "in_features" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(model: Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    for build in (lambda d: Model("mosi", device=d), lambda d: Model.from_pretrained(tmp_path, device=d)):
        with pytest.raises(DeviceError, match="is not available: torch says"):
            build("cuda")


# Each of another width than a good batch
FIRST: dict[str, Batch] = {
    "text of two axes": {"text": np.ones((3, 9)), "text_lengths": [1, 1, 1]},
    "audio of two axes": padded([1, 1, 1], (3, 9)),
    "vision with a NaN": {"vision": [np.full((1, 4), math.nan)] * 3},
    "audio a number": {"audio": 5.0, "audio_lengths": [1, 1, 1]},
}


@pytest.mark.parametrize("case", FIRST)
def test_a_refused_first_batch_decides_no_width(case: str) -> None:
    widths = dict.fromkeys(("text_dim", "audio_dim", "vision_dim"))
    built = Model("mosi", **{**configs.tiny(num_layers=1), **widths})
    with pytest.raises(BatchError):
        built.fit([valid() | FIRST[case]], epochs=1, progress=False)
    built.fit([valid()], epochs=1, progress=False)


def test_a_loss_that_is_not_finite(model: Model) -> None:
    batch = valid() | {"text": [np.full((2, 7), 1e30, np.float32)] * 3}
    message = "the loss of this batch is not finite"
    refused(model, valid(), lambda: fit([batch])(model), NonFiniteError, message)


def test_validation_on_nothing(model: Model) -> None:
    """The validation loader is read after an epoch of training."""
    with pytest.raises(BatchError, match="the loader yields no batch"):
        model.fit([valid()], [], epochs=1, progress=False)
    model.fit([valid()], [valid()], epochs=1, progress=False)


def test_calls_that_only_look_wrong(model: Model) -> None:
    """Duplicates of an index, labels at the bound, one-shot iterators to predict, None for no lengths."""
    batch = {**valid(), "index": [1, 1, 0], "labels": [3.0, -3.0, np.float32(3.00005)], "audio_lengths": None}
    model.fit([batch, batch], [batch], epochs=2, progress=False)
    assert len(model.predict(iter([batch, batch]))) == 6
    assert len(model.predict(batch)) == 3
    model.set_params(batch_size=2, lr_text=0.0, patience=np.int64(4))
    assert model.config.train["patience"] == 4


def test_settings_change_without_the_encoders_files(bert_model: Model, tmp_path: Path) -> None:
    """A model that has its weights needs its encoder's directory no more."""
    directory = tmp_path / "saved"
    bert_model.save_pretrained(directory)
    loaded = Model.from_pretrained(directory)
    directory.rename(tmp_path / "moved")
    loaded.set_params(lr_text=1e-4)
    loaded.fit([tokens()], epochs=1, progress=False)
    assert len(loaded.predict(tokens())) == 3


# What users of PyTorch do by habit


@pytest.mark.parametrize(
    ("attribute", "hint"),
    [
        ("parameters", r"model\.to_torch\(\) is a torch module"),
        ("to", r"give device=\"cuda\" to the constructor.*model\.to_torch\(\)"),
        ("cuda", r"give device=\"cuda\" to the constructor.*model\.to_torch\(\)"),
        ("train", r"fit\(\) trains with dropout and predict\(\) scores without"),
        ("eval", r"fit\(\) trains with dropout and predict\(\) scores without"),
        ("half", "give dtype= or precision="),
    ],
)
def test_methods_of_torch_modules(attribute: str, hint: str, model: Model) -> None:
    assert not hasattr(model, attribute)
    with pytest.raises(AttributeError, match=f"'Model' object has no attribute '{attribute}': .*{hint}"):
        getattr(model, attribute)()
    with pytest.raises(AttributeError, match=r"model\.core\.network|constructor"):
        getattr(mmiln.baselines.Baseline("text_only"), attribute)()
    with pytest.raises(AttributeError, match=r"no attribute 'predictt'$"):
        _ = model.predictt  # type: ignore[attr-defined]


def test_a_model_is_no_function(model: Model) -> None:
    with pytest.raises(TypeError, match=r"predict\(batch\) gives scores, forward\(batch\).*model\.to_torch"):
        model(valid())  # type: ignore[operator]

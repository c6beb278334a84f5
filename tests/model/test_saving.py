"""Weights in and out: saved models, state dicts, pretrained text encoders, damaged and foreign files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

import mmiln
from mmiln.errors import ConfigError, MissingFileError, StateError, WeightsError
from reference import batches, configs, params

Tensors = dict[str, Tensor]
MODALITIES = ("text", "audio", "vision")
LENGTHS = {"text": [4, 1, 7], "audio": [5, 1, 9], "vision": [3, 6, 1]}
TEXT_ALONE = {"audio_dim": 0, "vision_dim": 0}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with pooler and vocabulary, as transformers saves it."""
    transformers = pytest.importorskip("transformers", reason="BertModel writes the encoder")
    directory = tmp_path_factory.mktemp("bert")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BertModel(transformers.BertConfig(**configs.TINY_BERT)).save_pretrained(directory)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Good", "good", "bad"]
    (directory / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text('{"do_lower_case": false}', encoding="utf-8")
    return directory


def data(config: dict[str, Any], raw_text: bool = False) -> list[dict[str, Any]]:
    lengths = LENGTHS if config["text_dim"] else {**LENGTHS, "text": [1, 1, 1]}
    batch = batches.random_batch(config | {"text_dim": config["text_dim"] or 1}, lengths, 0)
    batch |= {"index": np.arange(3)}
    if raw_text:
        batch["raw_text"] = ["Good good", "bad", "good Bad good"]
    if raw_text or not config["text_dim"]:
        del batch["text"]
    return [batch]


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "float64": {"dtype": "float64"},
    "text alone": TEXT_ALONE,
    "no vision": {"vision_dim": 0, "variant": "no_gate_fusion"},
    "audio control": {"text_dim": 0, "vision_dim": 0},
    "other fields": {"preset": "mosei-mmsa", "pooling": "first", "alpha": 0.7, "lr_other": 3e-3, "seed": 5},
    "text encoder": {"text_dim": 8},
}


def model_of(kind: str, bert: Path | None) -> tuple[mmiln.Model, list[dict[str, Any]]]:
    changes = KINDS[kind]
    settings = {"preset": "mosi", "accumulate": 1, **configs.TINY, **changes}
    if kind == "text encoder":
        settings["text_encoder"] = bert
    return mmiln.Model(**settings), data(configs.TINY | changes, raw_text=kind == "text encoder")


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_is_the_same_model(kind: str, bert: Path, tmp_path: Path) -> None:
    model, loader = model_of(kind, bert)
    model.fit(loader, epochs=2, progress=False)
    directory = tmp_path / "some" / "where"
    model.save_pretrained(directory)
    loaded = mmiln.Model.from_pretrained(directory)
    assert same(loaded.state_dict(), model.state_dict())
    assert loaded.config == model.config
    assert (loaded.preset, loaded.dtype) == (model.preset, model.dtype)
    np.testing.assert_array_equal(loaded.predict(loader).score, model.predict(loader).score)
    assert same(loaded.forward(loader[0]), model.forward(loader[0]))
    assert loaded.summary() == model.summary()
    # and trains on as the one that was never saved
    histories = [dict(m.fit(loader, loader, epochs=3, progress=False)) for m in (model, loaded)]
    assert same(loaded.state_dict(), model.state_dict())
    assert histories[0] | {"seconds": []} == histories[1] | {"seconds": []}
    # saving what was loaded, over itself, changes no file
    before = files(directory)
    mmiln.Model.from_pretrained(directory).save_pretrained(directory)
    assert files(directory) | {"README.md": b""} == before | {"README.md": b""}


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_model_can_be_built_anew_from_its_arguments(kind: str, bert: Path, tmp_path: Path) -> None:
    """The error of `set_params` recommends this."""
    model, loader = model_of(kind, bert)
    model.save_pretrained(tmp_path)
    loaded = mmiln.Model.from_pretrained(tmp_path)
    with pytest.raises(StateError, match="get_params"):
        loaded.set_params(num_layers=1)
    again = mmiln.Model(**(loaded.get_params() | {"num_layers": 1}))
    assert again.predict(loader).score.shape == (3,)


def test_the_files_and_their_names(bert: Path, tmp_path: Path) -> None:
    tokenizer = {"vocab.txt", "tokenizer_config.json"}
    for kind, extra, shapes in (
        ("full", set(), params.parameter_shapes(configs.TINY)),
        ("text encoder", tokenizer, params.parameter_shapes(configs.tiny(text_dim=8), configs.TINY_BERT)),
    ):
        model, _ = model_of(kind, bert)
        model.save_pretrained(tmp_path / kind)
        assert set(files(tmp_path / kind)) == {"config.json", "model.safetensors", "README.md", *extra}
        weights = safetensors.torch.load_file(tmp_path / kind / "model.safetensors")
        assert {name: tuple(weight.shape) for name, weight in weights.items()} == shapes
        assert same(weights, model.state_dict())
        card = (tmp_path / kind / "README.md").read_text(encoding="utf-8")
        assert "library_name: mmiln" in card
        assert f"{model.summary().total:,} parameters" in card


def without(name: str) -> Callable[[Tensors], Any]:
    return lambda state: {n: w for n, w in state.items() if n != name}


def replaced(name: str, value: Any) -> Callable[[Tensors], Any]:
    return lambda state: {**state, name: value}


BIAS, WEIGHT = "text.conv.bias", "heads.audio.linear1.weight"
UNFIT = [
    (without(BIAS), r"missing: text\.conv\.bias \[4\]"),
    (replaced("text.conv.scale", torch.ones(4)), r"unexpected: text\.conv\.scale"),
    (replaced(BIAS, torch.ones(5)), r"misshapen: text\.conv\.bias expected \[4\], got \[5\]"),
    (replaced(BIAS, torch.ones(4, 1)), r"expected \[4\], got \[4, 1\]"),
    (replaced(BIAS, torch.tensor([0, torch.nan, 0, 0])), r"not finite: text\.conv\.bias"),
    (replaced(BIAS, torch.tensor([0, 0, 0, -torch.inf])), r"not finite: text\.conv\.bias"),
    (replaced(BIAS, torch.full((4,), 1e300, dtype=torch.float64)), r"not finite|overflow|float32"),
    (replaced(BIAS, torch.ones(4, dtype=torch.int64)), r"not floating point: text\.conv\.bias"),
    (replaced(BIAS, torch.ones(4, dtype=torch.complex64)), r"text\.conv\.bias must hold real numbers"),
    (replaced(BIAS, "four"), r"text\.conv\.bias must hold real numbers"),
    (lambda state: {**without(BIAS)(state), "bias": torch.ones(4)}, r"(?s)missing: text.*unexpected: bias"),
    (lambda state: {}, r"(?s)missing.*and \d+ more"),
    (lambda state: {f"module.{n}": w for n, w in state.items()}, r"and \d+ more"),
    (lambda state: list(state.items()), "a state dict is a mapping from names to tensors, got list"),
]


@pytest.mark.parametrize(("change", "message"), UNFIT)
def test_weights_that_do_not_fit(change: Callable, message: str) -> None:
    """The error lists all faults at once, and nothing is loaded."""
    model, _ = model_of("full", None)
    before = model.state_dict()
    given = change({name: weight + 1 for name, weight in before.items()})
    with pytest.raises(WeightsError, match=message):
        model.load_state_dict(given)
    assert same(model.state_dict(), before)


LOADABLE: dict[str, Callable[[Tensor], Any]] = {
    "numpy": lambda w: w.numpy(),
    "float64": lambda w: w.double(),
    "float16": lambda w: w.half(),
    "bfloat16": lambda w: w.bfloat16(),
    "parameters": torch.nn.Parameter,
    "transposed memory": lambda w: w.T.contiguous().T if w.ndim == 2 else w,
}


@pytest.mark.parametrize("kind", LOADABLE)
def test_weights_of_any_type(kind: str) -> None:
    model, _ = model_of("full", None)
    given = {name: LOADABLE[kind](weight + 0.3) for name, weight in model.state_dict().items()}
    expected = {n: torch.as_tensor(w).detach().float().clone() for n, w in given.items()}
    model.load_state_dict(given)
    assert same(model.state_dict(), expected)
    for weight in [*given.values(), *model.state_dict().values()]:  # copies: the model keeps its own
        torch.as_tensor(weight).detach().zero_()
    assert same(model.state_dict(), expected)


def edit(part: str = "", **changes: Any) -> Callable[[Path], None]:
    """Replaces entries of config.json or of one of its parts; None removes one."""

    def change(directory: Path) -> None:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        entries = config[part] if part else config
        entries |= changes
        for name in [name for name, value in changes.items() if value is None]:
            del entries[name]
        (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")

    return change


def overwrite(name: str, content: bytes | Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        path = directory / name
        path.write_bytes(content(path.read_bytes()) if callable(content) else content)

    return change


def one_weight_less(directory: Path) -> None:
    weights = safetensors.torch.load_file(directory / "model.safetensors")
    del weights["text.conv.bias"]
    safetensors.torch.save_file(weights, directory / "model.safetensors")


BROKEN = {
    "no directory": (shutil.rmtree, MissingFileError, "is not there"),
    "no config": (lambda d: (d / "config.json").unlink(), MissingFileError, "config.json"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), MissingFileError, "model.safetensors"),
    "cut weights": (overwrite("model.safetensors", lambda b: b[:-9]), WeightsError, "can't be read"),
    "cut header": (overwrite("model.safetensors", lambda b: b[:50]), WeightsError, "can't be read"),
    "empty weights": (overwrite("model.safetensors", b""), WeightsError, "can't be read"),
    "a pickle": (overwrite("model.safetensors", b"\x80\x04" + b"." * 99), WeightsError, "can't be read"),
    "fewer weights": (one_weight_less, WeightsError, "missing: text.conv.bias"),
    "other widths": (edit("model", d_model=8), WeightsError, "misshapen"),
    "empty config": (overwrite("config.json", b""), ConfigError, "JSON"),
    "no text": (overwrite("config.json", b"\xff\xfe\x00"), ConfigError, "JSON"),
    "a list": (overwrite("config.json", b"[1]"), ConfigError, "not that of a saved mmiln model"),
    "another's config": (edit(model_type="bert"), ConfigError, "not that of a saved mmiln model"),
    "no kind": (edit(model_type=None), ConfigError, "not that of a saved mmiln model"),
    "no fields": (edit(model=None), ConfigError, "not that of a saved mmiln model"),
    "fields no object": (edit(model=[1, 2]), ConfigError, "config.json"),
    "training no object": (edit(train="quick"), ConfigError, "config.json"),
    "preset no name": (edit(preset=7), ConfigError, "preset"),
    "unknown preset": (edit(preset="mosy"), ConfigError, "unknown preset"),
    "unknown dtype": (edit(dtype="int8"), ConfigError, "dtype"),
    "unknown field": (edit("model", depth=3), ConfigError, "unknown field 'depth'"),
    "field of wrong type": (edit("model", d_model="four"), ConfigError, "d_model"),
    "no width": (edit("model", text_dim=None), ConfigError, "text_dim"),
    "text encoder no object": (edit(text_encoder=3), ConfigError, "text_encoder|text encoder"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_directory(fault: str, tmp_path: Path) -> None:
    model_of("full", None)[0].save_pretrained(tmp_path / "model")
    spoil, error, message = BROKEN[fault]
    spoil(tmp_path / "model")
    with pytest.raises(error, match=message):
        mmiln.Model.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("failing", ["model.safetensors", "README.md", "config.json"])
def test_a_save_that_fails_half_way(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model that was there is whole, and nothing else is left behind."""
    old, new = model_of("full", None)[0], model_of("other fields", None)[0]
    old.save_pretrained(tmp_path / "old")
    before = files(tmp_path / "old")
    write_text, save_file = Path.write_text, safetensors.torch.save_file

    def failing_save(tensors: Tensors, path: Path, *rest: Any) -> None:
        save_file(tensors, path, *rest)
        fail_on(path)

    def failing_text(path: Path, *rest: Any, **more: Any) -> int:
        written = write_text(path, *rest, **more)
        fail_on(path)
        return written

    def fail_on(path: Path) -> None:
        if failing in Path(path).name:
            with Path(path).open("rb+") as file:
                file.truncate(20)
            raise OSError("no space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", failing_save)
    monkeypatch.setattr(Path, "write_text", failing_text)
    with pytest.raises(OSError, match="no space left"):
        new.save_pretrained(tmp_path / "old")
    monkeypatch.undo()
    assert files(tmp_path / "old") == before
    assert same(mmiln.Model.from_pretrained(tmp_path / "old").state_dict(), old.state_dict())


def renamed(rename: Callable[[str], str]) -> Callable[[Tensors], Tensors]:
    return lambda weights: {rename(name): weight for name, weight in weights.items()}


def old_norm_names(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


HEADS = {
    "cls.predictions.bias": torch.ones(30),
    "cls.predictions.transform.LayerNorm.gamma": torch.ones(8),
    "cls.seq_relationship.weight": torch.ones(2, 8),
    "classifier.weight": torch.ones(3, 8),
    "bert.embeddings.position_ids": torch.arange(16)[None],
}
ENCODERS: dict[str, Callable[[Tensors], Tensors]] = {
    "BertModel": lambda w: w,
    "without pooler": lambda w: {n: t for n, t in w.items() if not n.startswith("pooler.")},
    "BertForPreTraining": lambda w: {f"bert.{n}": t for n, t in w.items()} | HEADS,
    "gamma and beta": renamed(old_norm_names),
    "as bert-base-uncased on the hub": lambda w: renamed(lambda n: f"bert.{old_norm_names(n)}")(w) | HEADS,
    "float16": lambda w: {n: t.half() for n, t in w.items()},
    "bfloat16": lambda w: {n: t.bfloat16() for n, t in w.items()},
}


def encoder_like(bert: Path, directory: Path, change: Callable[[Tensors], Tensors]) -> Tensors:
    """A copy of the encoder with other names or types; returns what it holds, under its first names."""
    shutil.copytree(bert, directory, dirs_exist_ok=True)
    weights = change(safetensors.torch.load_file(bert / "model.safetensors"))
    safetensors.torch.save_file({n: w.clone() for n, w in weights.items()}, directory / "model.safetensors")
    return weights


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders_under_any_of_their_names(kind: str, bert: Path, tmp_path: Path) -> None:
    held = encoder_like(bert, tmp_path, ENCODERS[kind])
    dtype = next(iter(held.values())).dtype
    original = safetensors.torch.load_file(bert / "model.safetensors")
    state = mmiln.Model("mosi", text_encoder=tmp_path, **configs.tiny(text_dim=8)).state_dict()
    own = {n.removeprefix("text.bert."): w for n, w in state.items() if n.startswith("text.bert.")}
    assert own.keys() == {n for n in original if not n.startswith("pooler.")}
    assert all(torch.equal(w, original[n].to(dtype).float()) for n, w in own.items())


def fewer(weights: Tensors) -> Tensors:
    return {n: w for n, w in weights.items() if n != "embeddings.LayerNorm.bias"}


def spoilt(change: Callable[[Tensors], Tensors]) -> Callable[[Path, Path], Any]:
    return lambda bert, directory: encoder_like(bert, directory, change)


def without_file(name: str) -> Callable[[Path, Path], Any]:
    return lambda bert, directory: shutil.copytree(
        bert, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns(name)
    )


def as_pickle(bert: Path, directory: Path) -> None:
    without_file("model.safetensors")(bert, directory)
    (directory / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def configured(**changes: Any) -> Callable[[Path, Path], Any]:
    return lambda bert, directory: edit(**changes)(without_file("")(bert, directory))


UNUSABLE = {
    "a pickle": (as_pickle, WeightsError, "save_pretrained.*safe_serialization=True"),
    "no weights": (without_file("model.safetensors"), MissingFileError, "no model.safetensors"),
    "no config": (without_file("config.json"), MissingFileError, "no config.json"),
    "a weight missing": (spoilt(fewer), WeightsError, r"missing: text\.bert\.embeddings\.LayerNorm\.bias"),
    "a layer too many": (configured(num_hidden_layers=1), WeightsError, r"unexpected: text\.bert\.encoder"),
    "wrong shape": (configured(vocab_size=31), WeightsError, "misshapen"),
    "another architecture": (configured(model_type="deberta-v2"), ConfigError, "family.*'deberta-v2'"),
    "no architecture": (configured(model_type=["bert"]), ConfigError, r"family.*\['bert'\]"),
    "a decoder": (configured(is_decoder=True), ConfigError, "decoder"),
    "relative positions": (configured(position_embedding_type="relative_key"), ConfigError, "relative_key"),
    "unknown activation": (configured(hidden_act="swish"), ConfigError, "hidden_act"),
    "heads that do not divide": (configured(num_attention_heads=3), ConfigError, "num_attention_heads"),
    "no width": (configured(hidden_size=None), ConfigError, "hidden_size"),
    "width no number": (configured(hidden_size="eight"), ConfigError, "hidden_size"),
}


@pytest.mark.parametrize("fault", UNUSABLE)
def test_encoders_that_can_not_be_used(fault: str, bert: Path, tmp_path: Path) -> None:
    make, error, message = UNUSABLE[fault]
    make(bert, tmp_path)
    with pytest.raises(error, match=message):
        mmiln.Model("mosi", text_encoder=tmp_path, audio_dim=5, vision_dim=6).state_dict()


def test_raw_text_needs_a_tokenizer(bert: Path, tmp_path: Path) -> None:
    without_file("vocab.txt")(bert, tmp_path)
    model = mmiln.Model("mosi", text_encoder=tmp_path, **configs.tiny(text_dim=8, **TEXT_ALONE))
    with pytest.raises(MissingFileError, match=r"neither tokenizer\.json nor vocab\.txt"):
        model.predict({"raw_text": ["good"]})
    assert len(model.predict({"text_bert": np.array([[[2, 6, 3], [1, 1, 1], [0, 0, 0]]])})) == 1

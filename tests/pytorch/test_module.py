"""MMILN in plain PyTorch against the core and the oracle."""

import copy
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

import mmiln
from mmiln.errors import ConfigError, StateError, WeightsError
from mmiln.pytorch import MMILN, padded
from reference import batches, configs, losses, model
from support import small_bert
from support.model_checks import (
    FROZEN,
    LENGTHS,
    PRESENT,
    PRESENT_IDS,
    SINGLE,
    VARIANTS,
    agree,
    as_float32,
    build,
    oracle_losses,
)

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
SEVERAL = {"text": [13, 2, 1], "audio": [1, 31, 6], "vision": [17, 5, 2]}
Encoder = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module", params=["bert", "roberta"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """A text encoder of each family: its folder and its configuration."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "bert":
        return small_bert.write(folder), configs.TINY_BERT
    return small_bert.write_roberta(folder), configs.TINY_ROBERTA


def check(built: mmiln.Model, p: dict[str, Tensor], config: dict, batch: dict, bert: Any = None) -> None:
    """Outputs and gradients of the module are those of the core and of the oracle, whatever padding holds."""
    tolerance = TOLERANCE[built.dtype]
    module = built.to_torch().eval()
    assert {n: w.shape for n, w in module.state_dict().items()} == {n: w.shape for n, w in p.items()}
    inputs = padded(batch)
    for name in ("text", "audio", "vision"):  # two frames more than the longest has
        if name in inputs:
            frames, lengths = inputs[name], inputs[f"{name}_lengths"]
            frames = torch.cat([frames, frames[:, :1].expand(-1, 2, -1)], 1)
            frames[torch.arange(frames.shape[1]) >= lengths[:, None]] = torch.nan
            inputs[name] = frames.to(next(module.parameters()).dtype)
    if "text_bert" in inputs:
        more = torch.tensor([10**9, 0, 7])[None, :, None].expand(len(batch["text_bert"]), -1, 2)
        inputs["text_bert"] = torch.cat([inputs["text_bert"], more], 2)

    out = module(**inputs)
    expected = model.forward(p, config, batch, bert)
    expected = {name: value for name, value in expected.items() if not name.startswith("fusion.")}
    score = out.pop("score")
    agree({name: value.detach() for name, value in out.items()}, expected, tolerance)
    np.testing.assert_allclose(score.detach(), built.predict([batch]).score, rtol=1e-5, atol=1e-5)

    _, gradients = oracle_losses(p, config, batch, bert=bert)
    labels = batch["labels"].to(score.dtype)
    pseudo = dict.fromkeys(model.sources(config), labels)
    losses.losses(out, labels, pseudo, config)["total"].backward()
    found = {n: torch.zeros_like(w) if w.grad is None else w.grad for n, w in module.named_parameters()}
    agree(found, gradients, tolerance)
    agree(found, built.gradients(batch), tolerance)


@pytest.mark.parametrize("lengths", [LENGTHS, SINGLE, SEVERAL], ids=["ragged", "single", "several"])
@pytest.mark.parametrize("present", PRESENT, ids=PRESENT_IDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant(variant: str, present: dict, lengths: dict) -> None:
    config = configs.tiny(variant=variant, pooling="first" if lengths is SEVERAL else "mean", **present)
    built, p = build(config)
    check(built, p, config, batches.random_batch(config, lengths, 0))


@pytest.mark.parametrize("changes", [{}, {"d_model": 9, "num_heads": 3, "num_layers": 3, "audio_kernel": 7}])
def test_float32(changes: dict) -> None:
    config = configs.tiny(**changes)
    built, p = build(config, "float32")
    check(built, p, config, as_float32(batches.random_batch(config, LENGTHS, 0)))


@pytest.mark.parametrize("present", PRESENT, ids=PRESENT_IDS)
def test_text_encoders(encoder: Encoder, present: dict) -> None:
    directory, bert = encoder
    config = configs.tiny(text_dim=8, **present)
    built, p = build(config, bert=bert, text_encoder=directory)
    check(built, p, config, batches.random_batch(config, LENGTHS, 0, bert), bert)


@pytest.mark.parametrize("act", ["gelu_new", "gelu_pytorch_tanh", "relu"])
def test_activations_of_text_encoders(act: str, tmp_path: Path) -> None:
    directory = small_bert.write(tmp_path)
    settings = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(settings | {"hidden_act": act}))
    config = configs.tiny(text_dim=8)
    built, _ = build(config, bert=configs.TINY_BERT, text_encoder=directory)
    batch = batches.random_batch(config, LENGTHS, 0, configs.TINY_BERT)
    found = built.to_torch().eval()(**padded(batch))
    expected = built.forward(batch)
    agree({name: found[name].detach() for name in expected}, expected, 1e-10)


@pytest.mark.parametrize("absent", ["audio", "vision"])
def test_the_control_of_one_modality(absent: str) -> None:
    config = configs.tiny(text_dim=0, **{f"{absent}_dim": 0})
    built = mmiln.Model("mosi", dtype="float64", **config)
    batch = batches.random_batch(config | {"text_dim": 1}, LENGTHS, 0)
    del batch["text"]
    found = built.to_torch().eval()(**padded(batch))
    expected = built.forward(batch)
    agree({name: found[name].detach() for name in expected}, expected, 1e-10)


@pytest.mark.parametrize("among", [(1.0, 5.0), (-1.0, 1.0), (-5.0, 5.0)])
def test_scores_are_in_the_unit_of_the_labels(among: tuple[float, float]) -> None:
    data = mmiln.data.synthetic(8, 4, 4)
    built = mmiln.Model("mosi", num_layers=1, label_range=among, dtype="float64")
    batch = next(iter(data.test.loader(4)))
    expected = built.forward(batch)["y_multimodal"]
    found = built.to_torch().eval()(
        **{n: v.double() if v.is_floating_point() else v for n, v in padded(batch).items()}
    )
    torch.testing.assert_close(found["y_multimodal"], expected)
    split = mmiln.data.Split.from_items(
        [{k: v for k, v in item.items() if k != "labels"} for item in data.test]
    )
    np.testing.assert_allclose(found["score"].detach(), built.predict(split).score, rtol=1e-5)


def test_dropout_is_the_configs() -> None:
    built = mmiln.Model("mosi", **configs.tiny())
    batch = padded(as_float32(batches.random_batch(configs.tiny(), LENGTHS, 0)))
    batch = {n: v.float() if v.is_floating_point() else v for n, v in batch.items()}
    module = built.to_torch()
    assert not module.training
    scores = module(**batch)["score"]
    assert torch.equal(module(**batch)["score"], scores)
    module.train()
    assert not torch.equal(module(**batch)["score"], module(**batch)["score"])
    rates = dict.fromkeys([n for n in configs.TINY if n.endswith("dropout")], 0.0)
    plain = mmiln.Model("mosi", **configs.tiny(**rates))
    plain.load_state_dict(built.state_dict())
    torch.testing.assert_close(plain.to_torch().train()(**batch)["score"], scores)


@FROZEN
def test_frozen_parts_stay_frozen(freeze: Any, layers: int, tmp_path: Path) -> None:
    config = configs.tiny(text_dim=8)
    directory = small_bert.write(tmp_path)
    built = mmiln.Model("mosi", text_encoder=directory, freeze_text=freeze, **config)
    module = built.to_torch().train()
    still = {name for name, weight in module.named_parameters() if not weight.requires_grad}
    assert still == set(built.core.frozen())
    assert [part.training for part in module.text.bert.encoder["layer"]] == [i >= layers for i in range(2)]
    assert not module.text.bert.embeddings.training


def test_frozen_encoders_of_audio_and_vision_stay_frozen() -> None:
    built = mmiln.Model("mosi", **configs.tiny(), freeze_vision=True)
    still = {name for name, weight in built.to_torch().named_parameters() if not weight.requires_grad}
    assert still == set(built.core.frozen()) == {n for n in built.state_dict() if n.startswith("vision.")}


def test_a_training_step_in_pytorch() -> None:
    """The loss falls, and the model takes the weights back."""
    data = mmiln.data.synthetic(32, 8, 8)
    built = mmiln.Model("mosi", num_layers=1, seed=0)
    built.predict(data.test)  # reads the widths
    before = built.evaluate(data.train).mae
    module = built.to_torch().train()
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for epoch in range(8):
        for batch in data.train.loader(8, shuffle=True, seed=epoch):
            loss = (module(**padded(batch))["score"] - torch.from_numpy(batch["labels"]["M"])).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    built.load_state_dict(module.state_dict())
    assert built.evaluate(data.train).mae < 0.8 * before


COPIES: dict[str, Callable[[MMILN], MMILN]] = {
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "deepcopy": copy.deepcopy,
    "torch.save": lambda module: torch.load(_saved(module), weights_only=False),
}


def _saved(module: MMILN) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("how", COPIES)
def test_copies(how: str) -> None:
    built, _ = build(configs.tiny())
    batch = padded(batches.random_batch(configs.tiny(), LENGTHS, 0))
    module = built.to_torch()
    again = COPIES[how](module)
    assert torch.equal(again(**batch)["score"], module(**batch)["score"])


def test_a_module_from_the_files_of_a_saved_model(encoder: Encoder, tmp_path: Path) -> None:
    """As someone would who copies the two files into a project without mmiln."""
    config = configs.tiny(text_dim=8)
    built = mmiln.Model("mosi", text_encoder=encoder[0], **config)
    built.save_pretrained(tmp_path)
    module = MMILN(json.loads((tmp_path / "config.json").read_text())).eval()
    module.load_state_dict(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    batch = as_float32({**batches.random_batch(config, LENGTHS, 0)})
    batch |= {"text_bert": batches.random_batch(config, LENGTHS, 0, encoder[1])["text_bert"]}
    del batch["text"]
    inputs = {n: v.float() if v.is_floating_point() else v for n, v in padded(batch).items()}
    np.testing.assert_allclose(module(**inputs)["score"].detach(), built.predict([batch]).score, atol=1e-5)


def test_a_model_from_a_module(encoder: Encoder) -> None:
    config = configs.tiny(text_dim=8, num_layers=1)
    built = mmiln.Model(
        "sims", text_encoder=encoder[0], label_range=(1, 5), lr_text=1e-4, dtype="float64", **config
    )
    module = built.to_torch()
    with torch.no_grad():
        module.text.conv.bias += 1
    again = mmiln.Model.from_torch(module)
    assert (again.config, again.label_range_, again.preset) == (built.config, (1.0, 5.0), "sims")
    assert again.dtype == "float64"
    for name, weight in again.state_dict().items():
        assert torch.equal(weight, module.state_dict()[name]), name
    sentences = {
        "raw_text": ["good film", "bad"],
        "audio": [np.ones((2, 5))] * 2,
        "vision": [np.ones((3, 6))] * 2,
    }
    tokens = built.encoder.tokenizer.tokenize(sentences["raw_text"])
    scores = module(**padded({**sentences, "text_bert": tokens}))["score"].detach()
    np.testing.assert_allclose(again.predict(sentences).score, scores, rtol=1e-5)
    assert (mmiln.Model.from_torch(module.float()).dtype, built.dtype) == ("float32", "float64")


def test_modules_that_are_no_model(encoder: Encoder) -> None:
    with pytest.raises(
        ConfigError, match=r"expected the module that model\.to_torch\(\) returned, got Linear"
    ):
        mmiln.Model.from_torch(torch.nn.Linear(1, 1))
    config = configs.tiny(text_dim=8)
    built = mmiln.Model("mosi", text_encoder=encoder[0], **config)
    with pytest.raises(ConfigError, match=r"float32 or float64, got torch\.bfloat16"):
        mmiln.Model.from_torch(built.to_torch().bfloat16())
    module = built.to_torch()
    module.text.conv = torch.nn.Conv1d(8, 4, 5)
    with pytest.raises(WeightsError, match=r"text\.conv\.weight"):
        mmiln.Model.from_torch(module)
    alone = MMILN({name: value for name, value in module.config.items() if name != "tokenizer"})
    with pytest.raises(ConfigError, match="text_encoder="):
        mmiln.Model.from_torch(alone)
    assert mmiln.Model.from_torch(alone, text_encoder=encoder[0]).config == built.config


def test_batches_that_are_padded_or_hold_more_than_is_read(tmp_path: Path) -> None:
    config = configs.tiny(text_dim=8, num_layers=1)
    built = mmiln.Model("mosi", text_encoder=small_bert.write(tmp_path), dtype="float64", **config)
    module = built.to_torch()
    batch = batches.random_batch(config, LENGTHS, 0, configs.TINY_BERT)
    scores = module(**padded(batch))["score"]
    more = padded(
        {**batch, "text": [torch.ones(2, 300).double()] * 3, "id": ["a", "b", "c"], "raw_text": None}
    )
    assert torch.equal(module(**more)["score"], scores)  # the lengths of text are not those of text_bert
    lists = {name: value.tolist() if name.endswith("_lengths") else value for name, value in more.items()}
    assert torch.equal(module(**lists)["score"], scores)
    assert torch.equal(module(**padded(lists))["score"], scores)


def test_wrong_calls() -> None:
    with pytest.raises(StateError, match="no weights yet"):
        mmiln.Model("mosi").to_torch()
    module = mmiln.Model("mosi", **configs.tiny()).to_torch()
    with pytest.raises(ValueError, match="reads vision, and the call gives none"):
        module(text=torch.ones(1, 2, 7), audio=torch.ones(1, 2, 5))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, as is the next
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.parametrize("kind", [pytest.param("text features", marks=pytest.mark.slow), "text encoder"])
def test_torch_export_of_any_batch_and_lengths(kind: str, tmp_path: Path) -> None:
    bert = configs.TINY_BERT if kind == "text encoder" else None
    config = configs.tiny(text_dim=8, num_layers=1, **{"audio_dim" if bert else "vision_dim": 0})
    arguments = {"text_encoder": small_bert.write(tmp_path)} if bert else {}
    module = mmiln.Model("mosi", dtype="float64", **arguments, **config).to_torch()
    example = padded(batches.random_batch(config, LENGTHS, 0, bert))
    free = torch.export.Dim.DYNAMIC
    time = {"text": 1, "audio": 1, "vision": 1, "text_bert": 2}
    axes = {name: {0: free} | ({time[name]: free} if name in time else {}) for name in example}
    program = torch.export.export(module, (), example, dynamic_shapes=axes).module()
    for lengths in (SINGLE, SEVERAL, {n: [2, 2] for n in LENGTHS}):
        batch = padded(batches.random_batch(config, lengths, 1, bert))
        torch.testing.assert_close(program(**batch), module(**batch))

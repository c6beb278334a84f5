"""The core's forward pass, losses and gradients against the float64 oracle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mmiln
from mmiln.errors import DataWarning
from reference import batches, configs, layers, model, params
from support.model_checks import (
    LENGTHS,
    PRESENT,
    PRESENT_IDS,
    SETTINGS,
    SINGLE,
    VARIANTS,
    agree,
    as_float32,
    build,
    check_model,
    check_text_encoder,
    oracle_losses,
    save_bert,
)


@pytest.mark.parametrize("present", PRESENT, ids=PRESENT_IDS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("pooling", "diff_normalize"), [("mean", True), ("first", False)])
def test_every_variant_in_float64(variant: str, present: dict, pooling: str, diff_normalize: bool) -> None:
    check_model(
        configs.tiny(variant=variant, pooling=pooling, diff_normalize=diff_normalize, **present), LENGTHS
    )


@pytest.mark.parametrize("present", PRESENT, ids=PRESENT_IDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_in_float32(variant: str, present: dict) -> None:
    check_model(configs.tiny(variant=variant, **present), LENGTHS, "float32")


@pytest.mark.parametrize("lengths", [LENGTHS, SINGLE], ids=["ragged", "single"])
@pytest.mark.parametrize("present", PRESENT, ids=PRESENT_IDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_attention_maps_of_every_variant(variant: str, present: dict, lengths: dict) -> None:
    config = configs.tiny(variant=variant, **present)
    built, p = build(config)
    batch = batches.random_batch(config, lengths, 0)
    maps = built.attention_maps(batch)
    agree(maps, model.attention_maps(p, config, batch), 1e-9)
    assert len(maps) == config["num_layers"] * len(model.text_streams(config))
    for name, utterances in maps.items():
        sizes = zip(lengths["text"], lengths[name.partition("_")[2]], strict=True)
        assert [u.shape for u in utterances] == [(config["num_heads"], *size) for size in sizes]
        for rows in utterances:
            torch.testing.assert_close(rows.sum(-1), torch.ones_like(rows[..., 0]))


def test_attention_maps_ignore_padding_and_need_every_part() -> None:
    config = configs.tiny()
    built, _ = build(config, "float32")
    batch = as_float32(batches.random_batch(config, LENGTHS, 0))
    padded = dict(batch)
    for m in LENGTHS:
        frames = [torch.cat([u, torch.full((12 - len(u), u.shape[1]), torch.nan)]) for u in batch[m]]
        padded |= {m: torch.stack(frames), f"{m}_lengths": LENGTHS[m]}
    expected = built.attention_maps(batch)
    for name, utterances in built.attention_maps(padded).items():
        for mine, theirs in zip(utterances, expected[name], strict=True):
            assert torch.equal(mine, theirs)
    with pytest.raises(mmiln.errors.BatchError, match="no 'vision'"):
        built.attention_maps({name: value for name, value in batch.items() if name != "vision"})


@pytest.mark.parametrize(("changes", "lengths"), SETTINGS)
def test_settings_and_lengths(changes: dict, lengths: dict) -> None:
    check_model(configs.tiny(**changes), lengths)


KINDS = {
    "numpy float16": lambda x: x.half().numpy(),
    "numpy float32": lambda x: x.float().numpy(),
    "numpy float64": lambda x: x.numpy(),
    "numpy float64, big-endian": lambda x: x.numpy().astype(">f8"),
    "numpy long double": lambda x: x.numpy().astype(np.longdouble),
    "numpy int16": lambda x: (x * 100).numpy().astype(np.int16),
    "numpy uint8": lambda x: (x.abs() * 20).numpy().astype(np.uint8),
    "nested lists": lambda x: x.tolist(),
    "torch bfloat16": lambda x: x.bfloat16(),
    "torch float16": lambda x: x.half(),
    "torch float32": lambda x: x.float(),
    "torch float64 that needs a gradient": lambda x: x.clone().requires_grad_(),
    "torch int64": lambda x: (x * 100).long(),
}


def values(x: Any) -> Tensor:
    """The values of a converted array, in float64."""
    return torch.as_tensor(np.asarray(x.detach().double() if isinstance(x, Tensor) else x, np.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_input_types(kind: str) -> None:
    """A batch of any type is the batch of its values."""
    config = configs.tiny(num_layers=1)
    built, p = build(config)
    batch = batches.random_batch(config, LENGTHS, 0)
    given = {m: [KINDS[kind](u) for u in batch[m]] for m in ("text", "audio", "vision")}
    given["labels"] = KINDS[kind](batch["labels"]) if "int" not in kind else np.array([-3, 0, 2])
    plain = {m: [values(u) for u in utterances] for m, utterances in given.items() if m != "labels"}
    plain["labels"] = values(given["labels"])
    agree(built.forward(given, intermediates=True), model.forward(p, config, plain), 1e-9)
    agree(built.losses(given), oracle_losses(p, config, plain)[0], 1e-9)


@pytest.mark.parametrize("bert", [None, configs.TINY_BERT], ids=["features", "bert"])
@pytest.mark.parametrize("present", PRESENT, ids=PRESENT_IDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_parameter_names_and_shapes(variant: str, present: dict, bert: dict | None, bert_dir: Path) -> None:
    config = configs.tiny(variant=variant, **present)
    arguments: dict = {}
    if bert:
        arguments = {"text_encoder": bert_dir, "text_dim": bert["hidden_size"]}
    built = mmiln.Model("mosi", **(config | arguments))
    found = {name: tuple(weight.shape) for name, weight in built.state_dict().items()}
    assert found == params.parameter_shapes(config, bert)
    assert {weight.dtype for weight in built.state_dict().values()} == {torch.float32}
    assert built.summary().total == sum(torch.Size(shape).numel() for shape in found.values())


# Initial weights


def default_layer(owner: str, shapes: dict[str, tuple[int, ...]]) -> tuple[nn.Module, float]:
    """torch's layer with these parameters, and the bound that its weights are drawn within."""
    first = next(iter(shapes.values()))
    if owner.endswith((".lstm", ".gru")):
        hidden = shapes["weight_hh_l0"][1]
        module = nn.LSTM if owner.endswith(".lstm") else nn.GRU
        return module(first[1], hidden, bidirectional="bias_hh_l0_reverse" in shapes), hidden**-0.5
    if owner.endswith("attention"):
        return nn.MultiheadAttention(first[1], 1), (6 / sum(first)) ** 0.5
    if "norm" in owner:
        return nn.LayerNorm(first[0]), 0.0
    if owner.endswith(".conv"):
        return nn.Conv1d(first[1], first[0], first[2]), (first[1] * first[2]) ** -0.5
    return nn.Linear(first[1], first[0]), first[1] ** -0.5


def test_initial_weights_are_distributed_as_those_of_torch() -> None:
    config = configs.tiny(d_model=24, audio_hidden=8, vision_hidden=32, text_dim=40, audio_features=16)
    built, other = (mmiln.Model("mosi", dtype="float64", seed=s, **config).state_dict() for s in (1, 2))
    groups: dict[str, dict[str, Tensor]] = {}
    for name, weight in built.items():
        owner = name[: name.index("attention.") + 9] if "attention." in name else name.rpartition(".")[0]
        groups.setdefault(owner, {})[name.removeprefix(f"{owner}.")] = weight
    torch.manual_seed(0)
    for owner, weights in groups.items():
        peer, bound = default_layer(owner, {name: tuple(w.shape) for name, w in weights.items()})
        assert weights.keys() == peer.state_dict().keys()
        for name, expected in peer.state_dict().items():
            assert weights[name].shape == expected.shape
            n, limit = expected.numel(), 24**-0.5 if name == "out_proj.weight" else bound
            if n > 1 and len(expected.unique()) == 1:  # zeros or ones
                assert torch.equal(weights[name], expected.double())
                continue
            for w in (weights[name], expected.double()):
                assert limit * max(0, 1 - 20 / n) < float(w.abs().max()) <= limit * (1 + 1e-6), owner
                assert abs(float(w.mean())) < 5 * limit / n**0.5, owner
                assert n == 1 or abs(float(w.std()) - limit / 3**0.5) < 5 * limit / n**0.5, owner
            assert not torch.equal(weights[name], other[f"{owner}.{name}"])
    drawn = [tuple(w.flatten()[:4].tolist()) for w in built.values() if len(w.unique()) > 1]
    assert len(set(drawn)) == len(drawn)  # no two weights share their numbers


# Losses with pseudo-labels that differ from the labels, as training leaves them


@pytest.mark.parametrize("present", PRESENT[:3], ids=PRESENT_IDS[:3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_with_pseudo_labels(variant: str, present: dict) -> None:
    config = configs.tiny(variant=variant, **present)
    built, _ = build(config)
    batch = batches.random_batch(config, LENGTHS, 0)
    batch["labels"] = torch.tensor([1.5, -2.0, 0.5], dtype=torch.float64)
    # Rates this small leave the scores apart from the pseudo-labels, where |.| has no kink.
    rates = dict.fromkeys(("lr_text", "lr_audio", "lr_vision", "lr_other"), 1e-4)
    built.set_params(**rates)
    built.fit([{**batch, "index": np.array([2, 0, 1])}], epochs=3, progress=False)
    pseudo = {n: torch.from_numpy(y).double()[[2, 0, 1]] for n, y in built.pseudo_labels.items()}
    assert set(pseudo) == set(model.sources(config))
    for labels in pseudo.values():
        assert float((labels - batch["labels"]).abs().min()) > 1e-3
    p = {name: weight.requires_grad_() for name, weight in built.state_dict().items()}
    with_index = {**batch, "index": np.array([2, 0, 1])}
    found, gradients = oracle_losses(p, config, batch, pseudo)
    agree(built.losses(with_index), found, 1e-6)  # pseudo-labels are handed out in float32
    agree(built.gradients(with_index), gradients, 1e-6)
    # without an index the labels stand in for pseudo-labels
    found, gradients = oracle_losses(p, config, batch)
    agree(built.losses(batch), found, 1e-9)
    agree(built.gradients(batch), gradients, 1e-9)


# The controls of one modality alone


@pytest.mark.parametrize("modality", ["audio", "vision"])
@pytest.mark.parametrize("variant", ["full", "no_mfm", "no_gate_fusion"])
def test_control_of_one_modality(variant: str, modality: str) -> None:
    absent = {"audio": "vision_dim", "vision": "audio_dim"}[modality]
    config = configs.tiny(variant=variant, text_dim=0, num_layers=3, **{absent: 0})
    whole = params.perturb(params.init(configs.tiny(variant=variant, num_layers=3), 0), 1)
    own = (f"{modality}.", f"heads.{modality}.", *(f"fusion.{i}.{modality}." for i in range(3)))
    p = {name: weight.requires_grad_() for name, weight in whole.items() if name.startswith(own)}
    built = mmiln.Model("mosi", dtype="float64", **config)
    assert {name: weight.shape for name, weight in built.state_dict().items()} == {
        name: weight.shape for name, weight in p.items()
    }
    built.load_state_dict({name: weight.detach() for name, weight in p.items()})

    frames = batches.random_batch(configs.tiny(), LENGTHS, 0)
    batch = {modality: frames[modality], "labels": frames["labels"]}
    rows = []
    for utterance in batch[modality]:
        x = layers.conv1d(p, f"{modality}.conv", layers.lstm(p, f"{modality}.lstm", utterance))
        row: dict[str, Tensor] = {}
        for i in range(3):
            stream = model.gate_transformer(p, f"fusion.{i}.{modality}", x, config)
            x = stream["output"]
            if variant == "no_mfm":
                stream = {key: stream[key] for key in ("output", "attention")}
            row |= {f"fusion.{i}.{modality}.{k}": v for k, v in stream.items() if k != "control"}
        if variant != "no_mfm":
            row[f"control.{modality}"] = stream["control"]
        features, score = model.head(p, f"heads.{modality}", x.mean(dim=0))
        rows.append({**row, f"F_{modality}": features, f"y_{modality}": score})
    ragged = (".output", ".attention")
    expected = {
        name: [r[name] for r in rows] if name.endswith(ragged) else torch.stack([r[name] for r in rows])
        for name in rows[0]
    }
    agree(built.forward(batch, intermediates=True), expected, 1e-9)
    score = expected[f"y_{modality}"]
    np.testing.assert_allclose(built.predict([batch]).score, score.detach(), rtol=1e-6, atol=1e-6)

    total = ((score - batch["labels"]) ** 2).mean()
    zero = torch.zeros((), dtype=torch.float64)
    agree(built.losses(batch), {"task": total, "sim": zero, "diff": zero, "total": total}, 1e-9)
    gradients = torch.autograd.grad(total, list(p.values()))
    agree(built.gradients(batch), dict(zip(p, gradients, strict=True)), 1e-9)


# The text encoder


@pytest.fixture(scope="module")
def bert_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT as transformers saves it, with a vocabulary."""
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.mark.parametrize("present", PRESENT, ids=PRESENT_IDS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_text_encoder(bert_dir: Path, present: dict, dtype: str) -> None:
    check_text_encoder(bert_dir, present, dtype)


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"])
def test_text_encoder_against_transformers(act: str, tmp_path: Path) -> None:
    """The encoder's own weights and activation, by feeding the oracle what transformers computes."""
    directory = save_bert(tmp_path, hidden_act=act, layer_norm_eps=1e-5)
    transformers = pytest.importorskip("transformers", reason="BertModel is the peer compared with")
    peer = transformers.BertModel.from_pretrained(directory, attn_implementation="eager").double().eval()
    config = configs.tiny(text_dim=8)
    built = mmiln.Model("mosi", text_encoder=directory, dtype="float64", **config)
    p = built.state_dict()
    for name, weight in peer.state_dict().items():
        if not name.startswith("pooler."):
            assert torch.equal(p[f"text.bert.{name}"], weight), name
    batch = batches.random_batch(config, LENGTHS, 0, configs.TINY_BERT)
    features = []
    for ids, mask, segments in batch["text_bert"]:
        with torch.no_grad():
            out = peer(ids[None], attention_mask=mask[None], token_type_ids=segments[None])
        features.append(out.last_hidden_state[0])
    frames = {name: batch[name] for name in ("audio", "vision")}
    expected = model.forward(p, config, {**frames, "text": features})
    agree(built.forward(batch, intermediates=True), expected, 1e-9)


def test_raw_text_is_tokenized_as_by_transformers(bert_dir: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="BertTokenizer is the peer compared with")
    sentences = ["The film was GOOD", "not very unheard-of, bad", ""]
    peer = transformers.BertTokenizer(str(bert_dir / "vocab.txt"))(sentences, padding=True)
    rows = [peer["input_ids"], peer["attention_mask"], peer["token_type_ids"]]
    config = configs.tiny(text_dim=8)
    built = mmiln.Model("mosi", text_encoder=bert_dir, dtype="float64", **config)
    frames = batches.random_batch(config, LENGTHS, 0)
    rest = {name: frames[name] for name in ("audio", "vision", "labels")}
    expected = built.forward({**rest, "text_bert": np.array(rows).transpose(1, 0, 2)})
    with pytest.warns(DataWarning, match="1 of 3 different sentences are mostly unknown"):
        actual = built.forward({**rest, "raw_text": sentences})
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def test_raw_text_is_cut_to_what_the_encoder_holds(bert_dir: Path) -> None:
    config = configs.tiny(text_dim=8, audio_dim=0, vision_dim=0)
    built = mmiln.Model("mosi", text_encoder=bert_dir, dtype="float64", **config)
    long, cut = ("good bad " * 40).strip(), ("good bad " * 7).strip()  # 16 places with [CLS] and [SEP]
    with pytest.warns(DataWarning, match="1 of 2 different sentences have more than 16 tokens"):
        y_long, y_cut = built.forward({"raw_text": [long, cut]})["y_multimodal"]
    assert float(y_long) == float(y_cut)

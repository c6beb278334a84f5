"""The oracle against torch's own modules, literal formulas, finite differences, hand arithmetic."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reference import adam, batches, bert, configs, layers, losses, model, params, ulgm
from reference.peer import load, peer_forward

VARIANTS = ("full", "no_mrm", "no_mfm", "no_gate_fusion")
PRESENT = ({}, {"audio_dim": 0}, {"vision_dim": 0}, {"audio_dim": 0, "vision_dim": 0})
LENGTHS = {"text": [4, 1, 3], "audio": [1, 5, 2], "vision": [6, 2, 1]}


def randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def random_params(config: dict, seed: int = 0, bert_config: dict | None = None) -> dict[str, Tensor]:
    return params.perturb(params.init(config, seed, bert_config), seed + 1)


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_layers_against_torch(frames: int) -> None:
    p = random_params(configs.tiny())
    audio, x, y = randn(frames, 5), randn(frames, 4, seed=1), randn(3, 4, seed=2)

    lstm = load(nn.LSTM(5, 3, batch_first=True), p, "audio.lstm")
    close(layers.lstm(p, "audio.lstm", audio), lstm(audio[None])[0][0])

    gru = load(nn.GRU(4, 4, batch_first=True, bidirectional=True), p, "fusion.0.audio.gru")
    expected = gru(x[None])[0][0].mean(dim=0).view(2, 4).mean(dim=0)
    close(layers.control(p, "fusion.0.audio.gru", x), expected)

    name = "fusion.1.text_audio.attention"
    attention = load(nn.MultiheadAttention(4, 2, batch_first=True), p, name)
    expected = attention(x[None], y[None], y[None], need_weights=False)[0][0]
    close(layers.attention(p, name, x, y, heads=2), expected)

    for name, width, kernel in (("text", 7, 3), ("audio", 3, 1), ("vision", 5, 5)):
        conv = load(nn.Conv1d(width, 4, kernel, padding=kernel // 2), p, f"{name}.conv")
        z = randn(frames, width, seed=3)
        close(layers.conv1d(p, f"{name}.conv", z), conv(z.T[None])[0].T)

    norm = load(nn.LayerNorm(4), p, "fusion.0.vision.norm1")
    close(layers.layer_norm(p, "fusion.0.vision.norm1", x), norm(x))


@pytest.mark.parametrize("family", ["Bert", "Roberta"])
def test_bert_against_transformers(family: str) -> None:
    transformers = pytest.importorskip("transformers", reason="its models are the peers compared with")
    config = {"Bert": configs.TINY_BERT, "Roberta": configs.TINY_ROBERTA}[family]
    settings = getattr(transformers, f"{family}Config")(**config, attn_implementation="eager")
    peer = getattr(transformers, f"{family}Model")(settings, add_pooling_layer=False)
    p = random_params(configs.tiny(), bert_config=config)
    shapes = {f"text.bert.{k}": tuple(v.shape) for k, v in peer.state_dict().items()}
    assert shapes == params.bert_shapes(config)
    peer = load(peer, p, "text.bert")
    batch = batches.random_batch(configs.tiny(), LENGTHS, 0, config)
    for tokens in batch["text_bert"]:
        ids, mask, segments = tokens[:, None]
        expected = peer(ids, attention_mask=mask, token_type_ids=segments).last_hidden_state[0]
        close(bert.bert(p, config, tokens), expected)


def test_full_model_against_torch_modules() -> None:
    config = configs.tiny(num_layers=3)
    p, batch = random_params(config), batches.random_batch(config, LENGTHS, 0)
    out = model.forward(p, config, batch)
    for b in range(3):
        for key, expected in peer_forward(p, config, batch, b).items():
            close(out[key][b], expected)


def test_gate_transformer_without_gates_is_an_encoder_layer() -> None:
    config = configs.tiny(variant="no_mfm")
    p, x = random_params(config), randn(5, 4)
    peer = nn.TransformerEncoderLayer(4, 2, 16, batch_first=True).double().eval()
    names = {name: name.replace("self_attn", "attention") for name in peer.state_dict()}
    names = {k: v.replace("linear", "ffn.linear") for k, v in names.items()}
    peer.load_state_dict({k: p[f"fusion.0.audio.{v}"] for k, v in names.items()})
    close(model.gate_transformer(p, "fusion.0.audio", x, config)["output"], peer(x[None])[0])


@pytest.mark.parametrize("present", PRESENT, ids=("all", "no_audio", "no_vision", "text"))
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_uses_every_parameter(variant: str, present: dict) -> None:
    config = configs.tiny(variant=variant, diff_normalize=False, **present)
    p = {k: v.requires_grad_() for k, v in random_params(config).items()}
    batch = batches.random_batch(config, LENGTHS, 0)
    out = model.forward(p, config, batch)
    n_sources = len(model.sources(config))
    streams = model.sources(config) + model.text_streams(config)
    assert len(streams) == (n_sources if variant == "no_gate_fusion" else 2 * n_sources)
    controls = [] if variant == "no_mfm" else streams
    assert {k for k in out if k.startswith("control.")} == {f"control.{s}" for s in controls}
    assert out["y_multimodal"].shape == (3,)
    pseudo = dict.fromkeys(model.sources(config), -batch["labels"])
    loss = losses.losses(out, batch["labels"], pseudo, config)
    loss["total"].backward()
    assert [k for k, v in p.items() if v.grad is None] == []
    # the losses reported, and the weighted total
    has_pairs = bool(n_sources) and variant in ("full", "no_mrm")
    assert (loss["diff"] > 0) == has_pairs
    assert (loss["sim"] > 0) == (has_pairs and n_sources == 2)
    extra = 0.3 * loss["sim"] + 0.1 * loss["diff"] if variant == "full" else 0
    close(loss["total"], loss["task"] + extra)


def test_parameter_names_are_the_contract() -> None:
    def weights(*names: str) -> set[str]:
        return {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}

    def recurrent(name: str, suffix: str = "") -> set[str]:
        kinds = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        return {f"{name}.{kind}{suffix}" for kind in kinds}

    def attention(name: str) -> set[str]:
        kinds = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
        return {f"{name}.{kind}" for kind in kinds}

    expected = weights("text.conv", "audio.conv", "vision.conv")
    expected |= recurrent("audio.lstm") | recurrent("vision.lstm")
    for i in (0, 1):
        for stream in ("audio", "vision", "text_audio", "text_vision"):
            name = f"fusion.{i}.{stream}"
            expected |= recurrent(f"{name}.gru") | recurrent(f"{name}.gru", "_reverse")
            parts = ("retain", "compound", "norm1", "norm2", "ffn.linear1", "ffn.linear2")
            expected |= weights(*(f"{name}.{part}" for part in parts))
            expected |= attention(f"{name}.attention")
            if stream.startswith("text"):
                expected |= attention(f"{name}.self_attention") | weights(f"{name}.source")
    for u in ("multimodal", "audio", "vision"):
        expected |= weights(*(f"heads.{u}.linear{k}" for k in (1, 2, 3)))
    shapes = params.parameter_shapes(configs.tiny())
    assert set(shapes) == expected
    initial = params.init(configs.tiny(), 0)
    assert {name: tuple(p.shape) for name, p in initial.items()} == shapes


def test_fusion_results_have_their_shapes_and_relations() -> None:
    config = configs.tiny()
    p, batch = random_params(config), batches.random_batch(config, LENGTHS, 0)
    out = model.forward(p, config, batch)
    for stream, lengths in (("audio", "audio"), ("text_audio", "text"), ("text_vision", "text")):
        for key in ("output", "attention"):
            frames = [len(x) for x in out[f"fusion.1.{stream}.{key}"]]
            assert frames == LENGTHS[lengths]
        for key in ("retain", "compound"):
            gate = out[f"fusion.1.{stream}.{key}"]
            close(
                gate,
                layers.linear(p, f"fusion.1.{stream}.{key}", out[f"control.{stream}"]).sigmoid(),
            )
    assert [len(x) for x in out["fusion.0.text_vision.source"]] == LENGTHS["vision"]
    assert "fusion.0.audio.source" not in out


def test_pooling_first_takes_the_first_text_frame() -> None:
    config = configs.tiny(pooling="first")
    p, batch = random_params(config), batches.random_batch(config, LENGTHS, 0)
    out = model.forward(p, config, batch)
    mean = model.forward(p, configs.tiny(), batch)
    streams = [out[f"fusion.1.text_{n}.output"] for n in ("audio", "vision")]
    z = torch.stack([torch.cat([ta[0], tv[0]]) for ta, tv in zip(*streams, strict=True)])
    close(out["F_multimodal"], model.head(p, "heads.multimodal", z)[0])
    close(out["F_audio"], mean["F_audio"], 0)
    close(out["y_multimodal"][1], mean["y_multimodal"][1])  # a single token: the same


def test_no_gate_fusion_pools_text_and_sources() -> None:
    config = configs.tiny(variant="no_gate_fusion", vision_dim=0)
    p, batch = random_params(config), batches.random_batch(config, LENGTHS, 0)
    out = model.forward(p, config, batch)
    assert p["heads.multimodal.linear1.weight"].shape == (6, 8)
    for b in range(3):
        text = layers.conv1d(p, "text.conv", batch["text"][b]).mean(dim=0)
        z = torch.cat([text, out["fusion.1.audio.output"][b].mean(dim=0)])
        close(out["y_multimodal"][b], model.head(p, "heads.multimodal", z)[1])


def test_bert_feeds_the_model() -> None:
    config = configs.tiny()
    p = random_params(config, bert_config=configs.TINY_BERT)
    batch = batches.random_batch(config, LENGTHS, 0, configs.TINY_BERT)
    out = model.forward(p, config, batch, configs.TINY_BERT)
    text = [bert.bert(p, configs.TINY_BERT, tokens) for tokens in batch["text_bert"]]
    features = {k: v for k, v in batch.items() if k != "text_bert"} | {"text": text}
    again = model.forward(p, config, features)
    close(out["y_multimodal"], again["y_multimodal"], 0)


def test_gradients_of_the_whole_model() -> None:
    """Finite differences, module by module: all parameters of a module make one vector."""
    config = configs.tiny(diff_normalize=False, alpha=0.7, beta=0.4)
    p, batch = random_params(config), batches.random_batch(config, LENGTHS, 0)
    pseudo = {"audio": randn(3, seed=5), "vision": randn(3, seed=6)}
    modules: dict[str, list[str]] = {}
    for name in p:
        depth = 3 if name.startswith("fusion") else 2
        modules.setdefault(".".join(name.split(".")[:depth]), []).append(name)

    def loss(*vectors: Tensor) -> Tensor:
        changed = {}
        for names, vector in zip(modules.values(), vectors, strict=True):
            pieces = vector.split([p[name].numel() for name in names])
            changed |= {k: v.view_as(p[k]) for k, v in zip(names, pieces, strict=True)}
        out = model.forward(changed, config, batch)
        return losses.losses(out, batch["labels"], pseudo, config)["total"]

    inputs = [torch.cat([p[k].flatten() for k in names]) for names in modules.values()]
    inputs = [vector.requires_grad_() for vector in inputs]
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True, atol=1e-7, rtol=1e-6)


def test_task_loss_by_hand() -> None:
    predictions = {
        "multimodal": torch.tensor([1.0, -1.0]),
        "audio": torch.tensor([2.0, 0.0]),
        "vision": torch.tensor([0.5, 3.0]),
    }
    labels = torch.tensor([2.0, -2.0])
    pseudo = {"audio": torch.tensor([1.0, -2.0]), "vision": torch.tensor([2.5, -1.0])}
    # sample 0: 1 + tanh(1) * 1 + tanh(.5) * 2; sample 1: 1 + tanh(0) * 2 + tanh(1) * 4
    expected = (2 + np.tanh(1) * 5 + np.tanh(0.5) * 2) / 2
    assert float(losses.task(predictions, labels, pseudo)) == pytest.approx(expected, rel=1e-6)


def test_sim_against_a_literal_formula() -> None:
    p, q = np.tanh(randn(6, 3).numpy()), np.tanh(randn(6, 3, seed=1).numpy())
    expected = np.linalg.norm(p.mean(0) - q.mean(0)) / 2
    for k in (2, 3, 4, 5):
        difference = []
        for j in range(3):
            c_p = sum((x - p[:, j].sum() / 6) ** k for x in p[:, j]) / 6
            c_q = sum((x - q[:, j].sum() / 6) ** k for x in q[:, j]) / 6
            difference.append(c_p - c_q)
        expected += sum(x * x for x in difference) ** 0.5 / 2**k
    p, q = torch.tensor(p).requires_grad_(), torch.tensor(q).requires_grad_()
    assert losses.sim(p, q).item() == pytest.approx(expected, rel=1e-13)
    assert torch.autograd.gradcheck(losses.sim, (p, q))


@pytest.mark.parametrize("size", [1, 4])
def test_sim_has_zero_gradient_at_equal_inputs(size: int) -> None:
    p = torch.tanh(randn(size, 3)).requires_grad_()
    q = p.detach().clone().requires_grad_()
    losses.sim(p, q).backward()
    assert torch.equal(p.grad, torch.zeros(size, 3).double())
    assert torch.equal(q.grad, torch.zeros(size, 3).double())


def test_diff_against_literal_formulas() -> None:
    p, q = randn(5, 3).requires_grad_(), randn(5, 3, seed=1).requires_grad_()
    raw = sum(sum(p[b, i] * q[b, j] for b in range(5)) ** 2 for i in range(3) for j in range(3))
    close(losses.diff(p, q, normalize=False), raw)

    def scaled(x: Tensor, rows: Tensor) -> Tensor:
        return (x - x.mean(dim=0)) / (rows[:, None] + 1e-6)

    rows_p = torch.linalg.vector_norm(p - p.mean(dim=0), dim=1).detach()
    rows_q = torch.linalg.vector_norm(q - q.mean(dim=0), dim=1).detach()

    def literal(p: Tensor, q: Tensor) -> Tensor:  # the row norms are constants
        return torch.einsum("bi,bj->ij", scaled(p, rows_p), scaled(q, rows_q)).square().mean()

    close(losses.diff(p, q, normalize=True), literal(p, q))
    assert torch.autograd.gradcheck(literal, (p, q))
    ours = torch.autograd.grad(losses.diff(p, q, normalize=True), (p, q))
    for actual, expected in zip(ours, torch.autograd.grad(literal(p, q), (p, q)), strict=True):
        close(actual, expected)


def test_sim_and_diff_take_the_right_pairs() -> None:
    config = configs.tiny(diff_normalize=False)
    streams = ("audio", "vision", "text_audio", "text_vision")
    c = {s: torch.tanh(randn(3, 4, seed=i)) for i, s in enumerate(streams)}
    out = {f"control.{s}": value for s, value in c.items()} | {"y_multimodal": randn(3)}
    found = losses.losses(out, randn(3), {}, config)
    close(found["sim"], losses.sim(c["text_audio"], c["text_vision"]))
    pairs = (c["text_audio"].T @ c["audio"], c["text_vision"].T @ c["vision"])
    close(found["diff"], sum(gram.square().sum() for gram in pairs))


def centre(state: ulgm.Ulgm, u: str) -> list[float | None]:
    return [None if c is None else float(c[0]) for c in state.centres[u]]


def test_ulgm_five_steps_by_hand() -> None:
    """Labels 2, -2, 0. Audio is four wide, every entry the same: the distance over sqrt(4) is then
    the difference of one entry, as it is for the one-wide others."""
    state = ulgm.Ulgm(3, {"multimodal": 1, "audio": 4, "vision": 1})

    def step(epoch: int, index: list[int], y: list[float], *features: list[float]) -> None:
        f_m, f_a, f_v = (np.array(f)[:, None] for f in features)
        state.step(epoch, index, y, f_m, np.repeat(f_a, 4, axis=1), f_v)

    # 1. epoch 1 stores only; no negative sample yet
    step(1, [0], [2], [1], [2], [1])
    assert state.labels["audio"][0] == state.labels["vision"][0] == 2
    assert centre(state, "multimodal") == [1, None]
    assert centre(state, "audio") == [2, None]

    # 2. epoch 2, negative class still empty: labels stay; the zero label joins no centre
    step(2, [0, 2], [2, 0], [2, 5], [1, 9], [3, 7])
    assert state.labels["audio"][[0, 2]].tolist() == [2, 0]
    assert [centre(state, u) for u in state.dims] == [[2, None], [1, None], [3, None]]

    # 3. the first negative sample comes, too late for its own step
    step(2, [1], [-2], [-2], [-1], [-1])
    assert state.labels["audio"][1] == state.labels["vision"][1] == -2
    assert [centre(state, u) for u in state.dims] == [[2, -2], [1, -1], [3, -1]]

    # 4. epoch 2, sample 0, F = 1, 0, 2.5:
    #    m: D^p = 1,   D^n = 3,   alpha = 2
    #    a: D^p = 1,   D^n = 1,   alpha = 0: new = 2*0/4 + (2 + 0 - 2)/2 = 0
    #    v: D^p = 0.5, D^n = 3.5, alpha = 6: new = 2*6/4 + (2 + 6 - 2)/2 = 6, clamped to 3
    #    y_a = 1/3 * 2 + 2/3 * 0 = 2/3;  y_v = 1/3 * 2 + 2/3 * 3 = 8/3
    step(2, [0], [2], [1], [0], [2.5])
    assert state.labels["audio"] == pytest.approx([2 / 3, -2, 0], abs=1e-7)
    assert state.labels["vision"] == pytest.approx([8 / 3, -2, 0], abs=1e-7)
    assert [centre(state, u) for u in state.dims] == [[1, -2], [0, -1], [2.5, -1]]

    # 5. epoch 3 (halves), samples 2, 1 and 2 again: the last row counts for sample 2.
    #    sample 1, F = -1, 0.5, 0.5:
    #    m: D^p = 2,   D^n = 1,   alpha = -0.5
    #    a: D^p = 0.5, D^n = 1.5, alpha = 2:     new = -2*2/-1 + (-2 + 2 + 0.5)/2 = 4.25, clamped
    #    v: D^p = 2,   D^n = 1.5, alpha = -0.25: new = 0.5/-1 + (-2 - 0.25 + 0.5)/2 = -1.375
    #    y_a = (-2 + 3)/2 = 0.5;  y_v = (-2 - 1.375)/2 = -1.6875
    #    sample 2, F = 0, -0.5, 0:
    #    m: D^p = 1,   D^n = 2,   alpha = 1
    #    a: D^p = 0.5, D^n = 0.5, alpha = 0:     new = 0 + (0 + 0 - 1)/2 = -0.5
    #    v: D^p = 2.5, D^n = 1,   alpha = -0.6:  new = 0 + (0 - 0.6 - 1)/2 = -0.8
    #    y_a = (0 - 0.5)/2 = -0.25;  y_v = (0 - 0.8)/2 = -0.4
    step(3, [2, 1, 2], [0, -2, 0], [8, -1, 0], [8, 0.5, -0.5], [8, 0.5, 0])
    assert state.labels["audio"] == pytest.approx([2 / 3, 0.5, -0.25], abs=1e-7)
    assert state.labels["vision"] == pytest.approx([8 / 3, -1.6875, -0.4], abs=1e-7)
    #    audio: sample 1 is positive now, sample 2 negative. (0 + 0.5)/2 and -0.5
    #    vision: sample 2 joins sample 1 among the negative ones. (0.5 + 0)/2
    assert [centre(state, u) for u in state.dims] == [[1, -1], [0.25, -0.5], [2.5, 0.25]]
    assert state.pseudo([1], [-2])["audio"] == pytest.approx([0.5], abs=1e-7)


def test_ulgm_zero_may_count_as_positive_and_a_modality_be_absent() -> None:
    state = ulgm.Ulgm(3, {"multimodal": 1, "vision": 1}, exclude_zero=False)
    assert state.pseudo([2], [1.5])["vision"].tolist() == [1.5]
    state.step(1, [0, 1, 2], [0, 1, -1], [[1], [3], [5]], F_v=[[0], [1], [2]])
    assert centre(state, "multimodal") == [2, 5]
    assert centre(state, "vision") == [0.5, 2]
    assert "audio" not in state.pseudo([0], [0])


def test_groups() -> None:
    rates = {f"lr_{g}": i for i, g in enumerate(("text", "audio", "vision", "other"))}
    rates |= {f"decay_{g}": 10 + i for i, g in enumerate(("text", "audio", "vision", "other"))}
    names = params.parameter_shapes(configs.tiny(), configs.TINY_BERT)
    found = adam.groups(names, rates)
    assert found["text.bert.embeddings.word_embeddings.weight"] == (0, 10)
    assert found["text.bert.embeddings.LayerNorm.weight"] == (0, 0)
    assert found["text.bert.encoder.layer.1.output.dense.bias"] == (0, 0)
    assert found["text.conv.weight"] == (3, 13)
    assert found["audio.conv.bias"] == (1, 11)
    assert found["audio.lstm.bias_hh_l0"] == (1, 11)
    assert found["vision.lstm.weight_ih_l0"] == (2, 12)
    assert found["fusion.0.audio.norm1.bias"] == found["heads.audio.linear1.bias"] == (3, 13)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_adam_against_torch(optimizer: str) -> None:
    rates = {"a": (1e-2, 0.1), "b": (1e-3, 0.0), "c": (1e-1, 0.01)}
    ours = {name: randn(3, 2, seed=i) for i, name in enumerate(rates)}
    theirs = {name: p.clone().requires_grad_() for name, p in ours.items()}
    groups = [{"params": [theirs[k]], "lr": r, "weight_decay": w} for k, (r, w) in rates.items()]
    peer = (torch.optim.Adam if optimizer == "adam" else torch.optim.AdamW)(groups)
    reference = adam.Adam(ours, rates, optimizer)
    for t in range(6):
        gradients = {name: randn(3, 2, seed=10 * t + i) for i, name in enumerate(rates)}
        gradients["c"] = None if t == 2 else gradients["c"]
        for name, p in theirs.items():
            p.grad = gradients[name]
        peer.step()
        reference.step(gradients)
    for name, p in theirs.items():
        close(ours[name], p.detach())

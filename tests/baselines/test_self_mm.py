"""Self-MM against its oracle, its labels against ULGM's, and where public code is known to be wrong."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mmiln
from baselines.checks import ALL_OR_TWO, build, check_gradients, check_oracle, inputs, padded
from mmiln.baselines import Baseline
from mmiln.baselines.inputs import Inputs, Sequence
from mmiln.baselines.self_mm import SelfMM
from mmiln.errors import ConfigError
from reference import ulgm
from reference.baselines import self_mm as oracle

# By path: the module reference.baselines would hide a package of that name.

POST = {"M": 5, "T": 3, "A": 4, "V": 6}
SIZES = {
    "text_hidden": 4, "audio_hidden": 3, "vision_hidden": 2,
    "post": 5, "post_text": 3, "post_audio": 4, "post_vision": 6,
}  # fmt: skip


def small(widths: dict[str, int] | None = None, **fields: Any) -> SelfMM:
    return build(SelfMM, widths, **(SIZES | fields))


class TinyBert(nn.Module):
    """A module with the parameter names of a BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 7)
        self.dense = nn.Linear(7, 7)
        self.LayerNorm = nn.LayerNorm(7)

    def forward(self, input_ids: Tensor, **_: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.LayerNorm(self.dense(self.table(input_ids))))


def with_bert() -> tuple[SelfMM, Inputs]:
    torch.manual_seed(1)
    widths = {"text": 7, "audio": 5, "vision": 3}
    network = SelfMM(SelfMM.Settings(**SIZES), widths, TinyBert()).double().eval()
    tokens = Sequence.of(torch.randint(1, 20, (14, 2)), torch.tensor([3, 1, 6, 4]))
    return network, replace(inputs({"text": 0, "audio": 5, "vision": 3}), tokens=tokens)


@pytest.mark.parametrize("widths", ALL_OR_TWO)
@pytest.mark.parametrize("out", [{}, {"audio_out": 2, "vision_out": 5}])
@pytest.mark.parametrize("size", [5, 1])
def test_against_the_oracle(size, out, widths):
    check_oracle(small(widths, **out), oracle.forward, inputs(widths, size=size))


@pytest.mark.parametrize("widths", ALL_OR_TWO)
@pytest.mark.parametrize("out", [{}, {"audio_out": 2, "vision_out": 5}])
def test_losses_reach_every_parameter(out, widths):
    wider = {f"post{part}": 12 for part in ("", "_text", "_audio", "_vision")}  # not all behind a ReLU are 0
    check_gradients(small(widths, **out, **wider), inputs(widths, size=7))


def test_text_of_a_bert_is_its_first_token():
    network, x = with_bert()
    with torch.no_grad():
        first = network.bert(x.tokens.frames[..., 0]).last_hidden_state[:, 0]
        torch.testing.assert_close(network(x)["F_t"], network.heads["T"](first)[0])
        torch.testing.assert_close(network(padded(x))["M"], network(x)["M"], rtol=0, atol=1e-12)


def test_four_rates():
    """A BERT's biases and layer norms have no decay."""
    network, _ = with_bert()
    groups = network.groups()
    of = {id(p): g for g in groups for p in g["params"]}
    assert len(of) == sum(len(g["params"]) for g in groups) == len(list(network.parameters()))
    assert {g["lr"] for g in groups} == {5e-5, 1e-3, 1e-4}
    s = network.settings
    for name, parameter in network.named_parameters():
        expected = {
            "bert": (s.lr_text, 0.0 if "bias" in name or "LayerNorm" in name else s.decay_text),
            "audio": (s.lr_audio, s.decay_audio),
            "vision": (s.lr_vision, s.decay_vision),
        }.get(name.split(".")[0], (s.lr, s.decay))
        group = of[id(parameter)]
        assert (group["lr"], group["weight_decay"]) == expected, name


# Losses


def test_before_training_pseudo_labels_are_the_labels():
    network, x = small().train(), inputs()
    losses = network.losses(network(x), x)
    assert losses["total"] == losses["task"]
    assert all(torch.equal(y, x.labels) for y in network.ulgm.of(x).values())
    assert all(torch.equal(y, x.labels) for y in network.ulgm.of(replace(x, index=None)).values())


@pytest.mark.parametrize("widths", ALL_OR_TWO)
def test_losses_written_out(widths):
    network, x = small(widths), inputs(widths, size=5)
    network.begin_training(5)
    pseudo = {"T": x.labels + 1, "A": x.labels.clone(), "V": -x.labels}
    pseudo = {name: labels for name, labels in pseudo.items() if name in network.heads}
    assert len(pseudo) == sum(map(bool, widths.values()))
    for name, labels in pseudo.items():
        getattr(network.ulgm, f"labels_{name}")[:] = labels
    outputs = network.train()(x.select(torch.tensor([4, 2])))
    part = x.select(torch.tensor([4, 2]))  # addressed by index, not by row
    expected = oracle.total(outputs, part.labels, {n: y[[4, 2]] for n, y in pseudo.items()})
    torch.testing.assert_close(network.losses(outputs, part)["total"], expected)


def test_other_parts_are_not_judged_by_labels_of_training():
    network, x = small(), inputs()
    network.begin_training(4)
    network.ulgm.labels_T[:] = 9
    assert torch.equal(network.eval().ulgm.of(x)["T"], x.labels)
    assert bool((network.train().ulgm.of(x)["T"] == 9).all())


def test_labels_are_not_weights():
    network = small()
    network.begin_training(6)
    assert network.ulgm.labels_T.shape == (6,)
    assert network.ulgm.labels_T.dtype == torch.float64
    assert not any("labels" in n or "features" in n for n in network.state_dict())


# Pseudo-labels


def step(network: SelfMM, rows: Any, labels: Any, features: dict[str, Any]) -> Inputs:
    """One step on utterances ``rows``."""
    rows = torch.as_tensor(rows)
    x = replace(inputs(size=len(rows)), labels=torch.as_tensor(labels)[rows], index=rows)
    network.after_step({f"F_{n.lower()}": torch.as_tensor(f) for n, f in features.items()}, x)
    return x


@pytest.mark.parametrize("settings", [{}, {"exclude_zero": False}, {"label_bound": 1.2}], ids=str)
@pytest.mark.parametrize("text_as", ["audio", "vision"])
def test_labels_over_epochs_are_those_of_ulgm(text_as, settings):
    """Batches in other orders, one of a single utterance, one with an utterance given twice.

    The oracle knows two of t, a, v: text takes the place of each of them in turn.
    """
    other = {"audio": "V", "vision": "A"}[text_as]
    other_name = {"V": "vision", "A": "audio"}[other]
    network = small(**settings).train()
    state = ulgm.Ulgm(12, {"multimodal": 5, text_as: 3, other_name: POST[other]}, **settings)
    rng = np.random.default_rng(0)
    labels = rng.uniform(-3, 3, 12)
    labels[3] = 0.0
    network.begin_training(12)
    for epoch in range(1, 6):
        network.begin_epoch(epoch)
        for rows in np.split(rng.permutation(12), [5, 6]):
            if len(rows) == 5:
                rows = np.array([*rows, rows[1]])
            features = {n: rng.normal(size=(len(rows), w)) for n, w in POST.items()}
            x = step(network, rows, labels, features)
            named = {f"F_{text_as[0]}": features["T"], f"F_{other_name[0]}": features[other]}
            state.step(epoch, rows.tolist(), labels[rows], features["M"], **named)
            expected = state.pseudo(rows, labels[rows])
            for name, u in (("T", text_as), (other, other_name)):
                np.testing.assert_allclose(network.ulgm.of(x)[name].numpy(), expected[u], atol=1e-12)
        if epoch == 1:
            assert torch.equal(network.ulgm.labels_T, torch.tensor(labels))
    assert (network.ulgm.labels_T - torch.tensor(labels)).abs().max() > 0.1
    assert network.ulgm.labels_T.abs().max() <= 3
    assert torch.equal(network.ulgm.labels_M, torch.tensor(labels))


def test_momentum_written_out():
    """Follows one of three utterances, with features of width one, in the second and third epoch."""
    network = small(post=1, post_text=1, post_audio=1, post_vision=1)
    network.begin_training(3)
    labels = [1.0, -1.0, 2.0]
    start = torch.tensor([[4.0], [0.0], [2.0]], dtype=torch.float64)
    network.begin_epoch(1)
    step(network, [0, 1, 2], torch.tensor(labels, dtype=torch.float64), dict.fromkeys("MTAV", start))
    y, centre_p, kept = 1.0, (4 + 2) / 2, 4.0
    for i, (f_m, f_s) in ((2, (2.5, 2.0)), (3, (2.5, 1.0))):
        centre_m = centre_p if i == 2 else (2.5 + 2) / 2
        centre_s = centre_p if i == 2 else (kept + 2) / 2
        alpha_m = (f_m - abs(f_m - centre_m)) / (abs(f_m - centre_m) + 1e-8)
        alpha_s = (f_s - abs(f_s - centre_s)) / (abs(f_s - centre_s) + 1e-8)
        new = alpha_s / (2 * (alpha_m + 1e-8)) + (1 + alpha_s - alpha_m) / 2
        y = (i - 1) / (i + 1) * y + 2 / (i + 1) * min(max(new, -3), 3)
        network.begin_epoch(i)
        features = {n: torch.tensor([[f_m if n == "M" else f_s]], dtype=torch.float64) for n in "MTAV"}
        step(network, [0], torch.tensor(labels, dtype=torch.float64), features)
        kept = f_s
        assert [float(getattr(network.ulgm, f"labels_{n}")[0]) for n in "TAV"] == pytest.approx([y] * 3)


def epochs(labels: list[float], spoilt: int, **settings: Any) -> list[Tensor]:
    """Labels of audio after two epochs, for features of utterance ``spoilt`` near and far away."""
    results = []
    for far in (0.0, 50.0):
        network = small(**settings)
        network.begin_training(len(labels) + 1)
        rng = np.random.default_rng(2)
        for epoch in (1, 2):
            network.begin_epoch(epoch)
            features = {n: rng.normal(size=(len(labels), w)) for n, w in POST.items()}
            for f in features.values():
                f[spoilt] += far
            step(network, range(len(labels)), torch.tensor(labels, dtype=torch.float64), features)
        results.append(network.ulgm.labels_A.clone())
    return results


def test_labels_of_zero_are_of_no_class():
    """Public code counts them as positive, so their features would move the labels of all others."""
    near, far = epochs([1.0, -2.0, 0.0, 2.5], spoilt=2)
    others = [0, 1, 3]
    assert torch.equal(near[others], far[others])
    for labels, settings in (([1.0, -2.0, 0.5, 2.5], {}), ([1.0, -2.0, 0.0, 2.5], {"exclude_zero": False})):
        near, far = epochs(labels, spoilt=2, **settings)
        assert not torch.equal(near[others], far[others])


def test_bound_and_class_of_zero_are_settings_as_mmiln_s(tmp_path):
    data = mmiln.data.synthetic(24, 12, 12)
    model = Baseline("self_mm", label_bound=0.5, exclude_zero=False, batch_size=8, seed=1)
    labels = data.train.labels
    model.fit(data.train, data.valid, epochs=2, progress=False)
    # In epoch 2 a label moves by 2 / 3 to a value of at most 0.5.
    assert np.abs(model.pseudo_labels["audio"]).max() <= (np.abs(labels).max() + 2 * 0.5) / 3 + 1e-6
    unbounded = Baseline("self_mm", batch_size=8, seed=1)
    unbounded.fit(data.train, data.valid, epochs=2, progress=False)
    assert unbounded.core.network.ulgm.bound == 3
    model.save_pretrained(tmp_path)
    again = Baseline.from_pretrained(tmp_path).core.network.ulgm
    assert (again.bound, again.exclude_zero) == (0.5, False)
    for wrong in ({"label_bound": 0.0}, {"exclude_zero": 3}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Baseline("self_mm", **wrong)


def test_the_unseen_count_nowhere():
    """Public code has zeros as their features, which would pull the centres towards zero."""
    network = small()
    network.begin_training(5)
    labels = torch.tensor([1.0, -1.0, 2.0, -2.0, 2.0], dtype=torch.float64)
    features = {n: np.full((2, w), 3.0) for n, w in POST.items()}
    step(network, [0, 1], labels, features)
    assert bool(network.ulgm.labels_A[2:].isnan().all())
    feature = torch.ones(1, 4, dtype=torch.float64)
    assert float(network.ulgm._alpha("A", feature)) == pytest.approx(0)  # both centres are equally far


def test_labels_stay_while_a_class_is_empty():
    network = small()
    network.begin_training(3)
    network.begin_epoch(2)
    labels = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        step(network, range(3), labels, {n: rng.normal(size=(3, w)) for n, w in POST.items()})
    assert torch.equal(network.ulgm.labels_V, labels)


# Public code loses the dimension of a batch of one.


def test_a_batch_of_one_is_as_good_as_any():
    network, x = small(audio_out=2, vision_out=3).train(), inputs()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    network.begin_training(4)
    together = network(x)
    for epoch in (1, 2, 3):
        network.begin_epoch(epoch)
        for b in range(4):
            part = x.select(torch.tensor([b]))
            outputs = network(part)
            for name, value in together.items():
                torch.testing.assert_close(outputs[name], value[b : b + 1], rtol=0, atol=1e-10)
            total = network.losses(outputs, part)["total"]
            assert total.shape == ()
            assert bool(total.isfinite())
            network.after_step({n: v.detach() for n, v in outputs.items()}, part)
    assert bool(network.ulgm.labels_T.isfinite().all())
    assert not torch.equal(network.ulgm.labels_T, x.labels)


# The toolkit packs aligned audio and vision with the lengths of text.


@pytest.mark.parametrize(("name", "row"), [("audio", 0), ("vision", 1)])
def test_frames_beyond_the_length_of_text_are_read(name, row):
    network, x = small(), inputs()
    sequence = getattr(x, name)
    last = int(sequence.lengths[row]) - 1
    assert last >= int(x.text.lengths[row])
    frames = sequence.frames.clone()
    frames[row, last] += 1
    changed = (network(replace(x, **{name: Sequence(frames, sequence.lengths)}))["M"] - network(x)["M"]).abs()
    assert changed[row] > 1e-6
    assert changed[torch.arange(4) != row].max() < 1e-12


# Sizes


def test_presets_are_those_of_its_repository():
    """thuiar/Self-MM, config/config_regression.py."""
    mosi = SelfMM.Settings(**SelfMM.PRESETS["mosi"])
    mosei = SelfMM.Settings(**SelfMM.PRESETS["mosei"])
    rates = ("lr_text", "lr_audio", "lr_vision", "lr")
    decays = ("decay_text", "decay_audio", "decay_vision", "decay")
    sizes = ("audio_hidden", "vision_hidden", "audio_out", "vision_out")
    posts = ("post", "post_text", "post_audio", "post_vision")
    drops = ("dropout", "dropout_text", "dropout_audio", "dropout_vision")

    def of(settings: Any, names: tuple[str, ...]) -> list[float]:
        return [getattr(settings, name) for name in names]

    assert (mosi.batch_size, mosei.batch_size, mosi.patience) == (32, 32, 8)
    assert of(mosi, rates) == [5e-5, 1e-3, 1e-4, 1e-3]
    assert of(mosei, rates) == [5e-5, 5e-3, 1e-4, 1e-3]
    assert of(mosi, decays) == [0.001, 0.01, 0.001, 0.001]
    assert of(mosei, decays) == [0.001, 0.0, 0.0, 0.01]
    assert of(mosi, sizes) == [32, 64, 16, 32]
    assert of(mosei, sizes) == [32, 32, 16, 32]
    assert of(mosi, posts) == [128, 64, 16, 32]
    assert of(mosei, posts) == [128, 32, 16, 16]
    assert of(mosi, drops) == [0.1, 0.0, 0.1, 0.1]
    assert of(mosei, drops) == [0.0, 0.1, 0.0, 0.1]


def test_the_number_of_parameters_is_that_of_the_public_code():
    """At 5 audio, 20 vision features and BERT-base (not counted), by hand from its SELF_MM.py.

    Without its two classifiers that are never called (17 and 33). No published total was found.
    """
    settings = SelfMM.Settings(**SelfMM.PRESETS["mosi"])
    network = SelfMM(settings, {"text": 768, "audio": 5, "vision": 20}, nn.Identity())
    audio = 4 * 32 * (5 + 32 + 2) + (32 * 16 + 16)
    vision = 4 * 64 * (20 + 64 + 2) + (64 * 32 + 32)
    heads = sum(w * p + p + p * p + p + p + 1 for w, p in ((816, 128), (768, 64), (16, 16), (32, 32)))
    assert sum(p.numel() for p in network.parameters()) == audio + vision + heads

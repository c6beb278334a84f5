"""The text encoder's products in bfloat16: near those in float32, from copies that follow the weights."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import mmiln
from cuda import shim
from mmiln import _core
from mmiln.errors import ConfigError

BERT = {
    **{"vocab_size": 40, "hidden_size": 192, "num_hidden_layers": 2, "num_attention_heads": 3},
    **{"intermediate_size": 256, "max_position_embeddings": 16, "type_vocab_size": 2, "hidden_act": "gelu"},
    **{"layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}
FIELDS: dict[str, Any] = {
    **{"text_dim": 192, "audio_dim": 5, "vision_dim": 0, "d_model": 8, "num_heads": 2, "num_layers": 1},
    **{"accumulate": 1, "attn_dropout": 0.0, "residual_dropout": 0.0, "audio_dropout": 0.0},
    "multimodal_dropout": 0.0,
}


@pytest.fixture(autouse=True)
def emulated() -> Iterator[None]:
    _core.emulate_kernels(shim.build())
    yield
    _core.emulate_kernels(None)


def core(precision: str) -> _core.Core:
    config = mmiln.Model("mosi", **FIELDS).config
    made = _core.Core(
        json.dumps(config.model), json.dumps(BERT), seed=1, device="cpu", dtype="float32", precision=precision
    )
    generator = torch.Generator().manual_seed(0)
    state = {
        name: w + 0.05 * torch.randn(w.shape, generator=generator) for name, w in made.state_dict().items()
    }
    made.load_state_dict(state, "")
    made.begin_training(6, json.dumps(config.train))
    return made


def batch() -> _core.Batch:
    rng = np.random.default_rng(0)
    tokens = [torch.tensor(np.stack([rng.integers(1, 40, t), np.ones(t), np.zeros(t)])) for t in (5, 1, 9)]
    audio = [torch.randn(t, 5, generator=torch.Generator().manual_seed(t)) for t in (4, 7, 1)]
    return _core.Batch(
        device="cpu",
        dtype="float32",
        text_bert=tokens,
        audio=audio,
        labels=torch.tensor([1.0, -2.0, 0.5]),
        index=torch.arange(3),
    )


def test_near_float32_but_not_the_same():
    exact, half = core("float32"), core("bf16")
    given = batch()
    right, found = exact.gradients(given), half.gradients(given)
    assert not torch.equal(exact.scores(given), half.scores(given))
    torch.testing.assert_close(half.scores(given), exact.scores(given), rtol=0.05, atol=0.05)
    for name, gradient in right.items():
        apart = (found[name] - gradient).norm() / gradient.norm().clamp(min=1e-3)
        assert apart < 0.25, f"{name}: {apart:.2e}"


def test_copies_follow_the_weights():
    """After some steps, a new core with the same weights has the same scores."""
    trained, fresh = core("bf16"), core("bf16")
    given = batch()
    trained.begin_epoch(1)
    before = trained.scores(given)
    for _ in range(3):
        trained.train_step(given)
    trained.end_epoch()
    assert not torch.equal(trained.scores(given), before)
    fresh.load_state_dict(trained.state_dict(), "")
    assert torch.equal(trained.scores(given), fresh.scores(given))
    trained.keep_best()
    kept = trained.scores(given)
    trained.train_step(given)
    assert not torch.equal(trained.scores(given), kept)
    trained.restore_best()
    assert torch.equal(trained.scores(given), kept)


def test_where_it_is_refused():
    with pytest.raises(ConfigError, match=r'precision must be "float32" or "bf16", got "fp8"|got \'fp8\''):
        mmiln.Model(precision="fp8")
    with pytest.raises(ConfigError, match='needs device="cuda"'):
        mmiln.Model(precision="bf16")
    _core.emulate_kernels(None)
    with pytest.raises(ConfigError, match='needs device="cuda"'):
        core("bf16")

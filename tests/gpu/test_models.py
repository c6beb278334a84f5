"""The whole model on a card: results, intermediates, losses and gradients against the oracle and the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mmiln
from reference import batches, configs
from support import kernels, small_bert
from support.model_checks import (
    FROZEN,
    LENGTHS,
    PRESENT,
    PRESENT_IDS,
    SETTINGS,
    TOLERANCE,
    VARIANTS,
    agree,
    check_model,
    check_text_encoder,
    save_bert,
)
from support.utterances import MOSEI, MOSI, ragged

WIDTHS = {"text_dim": 768, "audio_dim": 5, "vision_dim": 20}


@pytest.fixture(scope="module")
def bert_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.mark.parametrize("present", PRESENT, ids=PRESENT_IDS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("pooling", "diff_normalize"), [("mean", True), ("first", False)])
def test_every_variant(
    variant: str, present: dict, dtype: str, pooling: str, diff_normalize: bool, device: str
) -> None:
    """Within 1e-9 of the norm in float64, 1e-5 in float32, as on the CPU."""
    config = configs.tiny(variant=variant, pooling=pooling, diff_normalize=diff_normalize, **present)
    check_model(config, LENGTHS, dtype, device=device)


@pytest.mark.parametrize(("changes", "lengths"), SETTINGS)
def test_settings_and_lengths(changes: dict, lengths: dict, device: str) -> None:
    check_model(configs.tiny(**changes), lengths, device=device)


@pytest.mark.parametrize("present", PRESENT, ids=PRESENT_IDS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_text_encoder(present: dict, dtype: str, bert_dir: Path, device: str) -> None:
    check_text_encoder(bert_dir, present, dtype, device=device)


def test_a_roberta(tmp_path: Path, device: str) -> None:
    directory = small_bert.write_roberta(tmp_path)
    check_text_encoder(directory, {}, "float64", configs.TINY_ROBERTA, device=device)


@pytest.mark.parametrize("modality", ["audio", "vision"])
def test_one_modality_alone(modality: str, device: str) -> None:
    absent = {"audio": "vision_dim", "vision": "audio_dim"}[modality]
    config = configs.tiny(text_dim=0, **{absent: 0})
    frames = batches.random_batch(configs.tiny(), LENGTHS, 0)
    compare(
        {**config, "dtype": "float64"}, {name: frames[name] for name in (modality, "labels")}, device, 1e-9
    )


def compare(settings: dict[str, Any], batch: dict[str, Any], device: str, tolerance: float) -> None:
    """A device against the CPU, on the same weights, which are moved off their first values."""
    with kernels.of_the_cpu():
        right = mmiln.Model("mosi", **{**settings, "dtype": "float64"})
        generator = torch.Generator().manual_seed(0)
        state = {
            name: weight + 0.05 * torch.randn(weight.shape, generator=generator)
            for name, weight in right.state_dict().items()
        }
        state = {name: weight.float() for name, weight in state.items()}
        right.load_state_dict(state)
        expected = [right.forward(batch, intermediates=True), right.losses(batch), right.gradients(batch)]
    built = mmiln.Model("mosi", device=device, **settings)
    built.load_state_dict(state)
    found = [built.forward(batch, intermediates=True), built.losses(batch), built.gradients(batch)]
    for results in found:
        for value in results.values():
            assert {x.device.type for x in (value if isinstance(value, list) else [value])} == {device}
    for actual, wanted in zip(found, expected, strict=True):
        agree(actual, wanted, tolerance)
    first = next(name for name in expected[0] if name.startswith("y_"))
    np.testing.assert_allclose(built.predict([batch]).score, expected[0][first], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 2e-4)])
@pytest.mark.parametrize(("lengths", "size"), [(MOSI, 32), (MOSEI, 128)], ids=["mosi", "mosei"])
def test_the_presets_at_full_size(lengths: dict, size: int, dtype: str, tolerance: float, card: str) -> None:
    """All streams of three layers, 50 wide, over batches as they are trained on."""
    (batch,) = ragged({**configs.tiny(), **WIDTHS}, lengths, [size])
    compare({**WIDTHS, "dtype": dtype}, batch, card, tolerance)


@FROZEN
def test_a_frozen_text_encoder(freeze: Any, layers: int, bert_dir: Path, device: str) -> None:
    """Cached features equal those computed anew."""
    config = configs.tiny(text_dim=8)
    batch = batches.random_batch(config, LENGTHS, 0, configs.TINY_BERT)
    settings = {**config, "text_encoder": bert_dir, "dtype": "float64", "device": device}
    whole, frozen = mmiln.Model("mosi", **settings), mmiln.Model("mosi", **settings, freeze_text=freeze)
    for _ in range(2):
        torch.testing.assert_close(frozen.forward(batch), whole.forward(batch), rtol=1e-12, atol=1e-12)


def test_a_device_by_its_number(card: str) -> None:
    config, batch = configs.tiny(), batches.random_batch(configs.tiny(), LENGTHS, 0)
    plain, numbered = (mmiln.Model("mosi", device=name, **config).forward(batch) for name in (card, "cuda:0"))
    assert all(torch.equal(plain[name], numbered[name]) for name in plain)

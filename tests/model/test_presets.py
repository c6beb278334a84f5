"""Presets for CH-SIMS: values that MMSA and Self-MM's repository have for it, the rest as for CMU-MOSI."""

import pytest

import mmiln

RATES = (
    "lr_text",
    "lr_audio",
    "lr_vision",
    "lr_other",
    "decay_text",
    "decay_audio",
    "decay_vision",
    "decay_other",
)
OWN = {
    "sims": {
        **dict(zip(RATES, (5e-5, 5e-3, 5e-3, 1e-3, 1e-3, 1e-2, 1e-2, 1e-3), strict=True)),
        "batch_size": 32, "audio_features": 16, "audio_dim": 33, "vision_dim": 709,
    },
    "simsv2": {
        **dict(zip(RATES, (5e-5, 1e-3, 1e-3, 1e-3, 1e-2, 0, 0, 1e-3), strict=True)),
        "batch_size": 16, "audio_features": 32, "audio_dim": 25, "vision_dim": 177,
    },
}  # fmt: skip
BOTH = {
    "audio_hidden": 16, "vision_hidden": 64, "multimodal_features": 128, "vision_features": 32,
    "multimodal_dropout": 0, "audio_dropout": 0.1, "vision_dropout": 0, "accumulate": 4,
    "accumulate_mode": "sum", "label_bound": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_presets_for_ch_sims(name: str) -> None:
    expected = mmiln.Model("mosi").config.to_dict() | BOTH | OWN[name]
    assert mmiln.Model(name).config.to_dict() == expected

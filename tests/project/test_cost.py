"""The formulas of docs/scale.md."""

import sys
from pathlib import Path

import pytest

import mmiln

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.cost import PASSES, Lengths, gradient_bytes, multiply_adds

MAPS = ("conv.weight", "lstm.weight", "gru.weight", "in_proj_weight", "out_proj.weight", "ffn", "source")


@pytest.mark.parametrize("layers", [1, 3])
def test_of_one_frame_each_weight_is_multiplied_once(layers):
    model = mmiln.Model("mosi", text_dim=7, audio_dim=5, vision_dim=3, num_layers=layers)
    weights = {name: weight for name, weight in model.state_dict().items() if weight.ndim > 1}
    once = [w.numel() for name, w in weights.items() if any(part in name for part in MAPS)]
    config = model.config.model
    # Attention of one to one: a product of queries and keys, one of probabilities and values. In each layer,
    # for audio and vision, of the frame to itself, of the token to itself and to the frame.
    attention = layers * 2 * 3 * 2 * config["d_model"]
    assert multiply_adds(config, Lengths(1, 1, 1)) == PASSES * (sum(once) + attention)


def test_a_bert_is_counted_by_its_weights():
    config = mmiln.Model("mosi", text_dim=8, audio_dim=5, vision_dim=3).config.model
    bert = {"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 16}
    lengths = Lengths(3, 1, 1)
    more = multiply_adds(config, lengths, bert) - multiply_adds(config, lengths)
    assert more == PASSES * 2 * (3 * (4 * 8 * 8 + 2 * 8 * 16) + 2 * 9 * 8)


def test_one_process_sends_nothing():
    assert gradient_bytes(10, 1) == 0
    assert gradient_bytes(10, 2) == 40

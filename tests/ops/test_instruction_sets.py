"""The same training on any number of threads, and right numbers from every instruction set."""

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

import mmiln
from reference import batches, configs
from support.functional_cases import same_bits, threads

MODALITIES = ("text", "audio", "vision")

# Each op that has vector code of its own, against torch's module in the same process.
CHECK = """
import torch
from torch import nn
from mmiln import functional as F

torch.manual_seed(0)
torch.set_num_threads(1)
lengths = [1, 37, 16, 5]
x = torch.randn(sum(lengths), 50)
close = dict(rtol=1e-4, atol=1e-5)

gru = nn.GRU(50, 50, bidirectional=True)
states = [gru(part)[0].mean(0).view(2, 50).mean(0) for part in x.split(lengths)]
torch.testing.assert_close(F.bigru_control(x, gru.parameters(), lengths), torch.stack(states), **close)
lstm = nn.LSTM(50, 33)
states = torch.cat([lstm(part)[0] for part in x.split(lengths)])
torch.testing.assert_close(F.lstm(x, lstm.parameters(), lengths), states, **close)
mixed = [
    nn.functional.scaled_dot_product_attention(*[part.view(-1, 5, 10).transpose(0, 1)] * 3)
    for part in x.split(lengths)
]
mixed = torch.cat([part.transpose(0, 1).reshape(-1, 50) for part in mixed])
torch.testing.assert_close(F.attention(x, x, x, lengths, num_heads=5), mixed, **close)
layer = nn.Linear(50, 70)
for name in ("relu", "sigmoid", "gelu"):
    right = getattr(torch, name, nn.functional.gelu)(layer(x))
    torch.testing.assert_close(F.linear(x, layer.weight, layer.bias, name), right, **close)
norm = nn.LayerNorm(50)
right = norm(x + x)
torch.testing.assert_close(F.gated_norm(x, x, norm.weight, norm.bias, lengths), right, **close)
kept = F.gated_norm(x, x, norm.weight, norm.bias, lengths, dropout=0.4, seed=3)
print(kept.double().sum().item())
"""


def test_every_instruction_set() -> None:
    found = []
    for name in ("scalar", "avx2", ""):
        environment = {**os.environ, "MMILN_SIMD": name}
        run = subprocess.run([sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True)
        assert run.returncode == 0, f"{name}: {run.stderr}"
        found.append(float(run.stdout))
    # the mask of a dropout is the same everywhere
    assert found == pytest.approx([found[0]] * 3, abs=1e-3)


@pytest.mark.parametrize("text_dim", [0, 24])
def test_training_does_not_depend_on_threads(text_dim: int) -> None:
    config = configs.tiny(d_model=32, num_heads=4, vision_dim=0 if text_dim == 0 else 6, text_dim=text_dim)
    batch: dict[str, Any] = batches.random_batch(
        config | {"text_dim": 24}, {m: [60 - b for b in range(16)] for m in MODALITIES}, 0
    )
    batch |= {"index": np.arange(16)}
    if text_dim == 0:
        del batch["text"]
    found = []
    for count in (1, 2, 2):
        built = mmiln.Model("mosi", **config, accumulate=1)
        with threads(count):
            built.fit([batch], epochs=4, progress=False)
            scores = {"scores": torch.from_numpy(built.predict([batch]).score)}
        found.append(built.state_dict() | scores)
    assert same_bits(found[0], found[1])
    assert same_bits(found[0], found[2])

"""Random ragged batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .model import sources


def random_batch(
    config: Mapping[str, Any],
    lengths: Mapping[str, Sequence[int]],
    seed: int,
    bert_config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Utterances of the given lengths per modality ("text", "audio", "vision"), labels in [-3, 3].

    With `bert_config` the text is `text_bert`, (3, T) int64: ids, ones, segments; else `text`.
    """
    generator = torch.Generator().manual_seed(seed)

    def frames(length: int, width: int) -> torch.Tensor:
        return torch.randn(length, width, generator=generator, dtype=torch.float64)

    def tokens(length: int, config: Mapping[str, Any]) -> torch.Tensor:
        ids = torch.randint(config["vocab_size"], (length,), generator=generator)
        segments = torch.randint(config["type_vocab_size"], (length,), generator=generator)
        return torch.stack([ids, torch.ones_like(ids), segments])

    batch: dict[str, Any] = {}
    if bert_config:
        batch["text_bert"] = [tokens(length, bert_config) for length in lengths["text"]]
    else:
        batch["text"] = [frames(length, config["text_dim"]) for length in lengths["text"]]
    for n in sources(config):
        batch[n] = [frames(length, config[f"{n}_dim"]) for length in lengths[n]]
    size = len(lengths["text"])
    batch["labels"] = torch.rand(size, generator=generator, dtype=torch.float64) * 6 - 3
    return batch

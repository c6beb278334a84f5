"""A text encoder of a few random weights, with a vocabulary."""

import json
from pathlib import Path

from safetensors.torch import save_file

from reference import configs, params

PREFIX = "text.bert."
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] good bad ##ly film the was very".split()  # noqa: SIM905


def write(folder: Path) -> Path:
    """Writes it to an existing folder and returns that."""
    weights = params.init(configs.tiny(text_dim=configs.TINY_BERT["hidden_size"]), 0, configs.TINY_BERT)
    tensors = {n.removeprefix(PREFIX): w.float() for n, w in weights.items() if n.startswith(PREFIX)}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(configs.TINY_BERT | {"model_type": "bert"}))
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return folder

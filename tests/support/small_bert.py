"""Text encoders of a few random weights, with a vocabulary."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from tokenizers.decoders import Metaspace as Unspaced
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing

from reference import configs, params

PREFIX = "text.bert."
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] good bad ##ly film the was very".split()  # noqa: SIM905
PIECES = "<s> <pad> </s> <unk> ▁ ▁good ▁bad ly ▁film ▁the ▁was ▁very 好 看 , ▁<mask>".split()  # noqa: SIM905
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def write(folder: Path) -> Path:
    """Writes a BERT to an existing folder and returns that."""
    _write(folder, configs.TINY_BERT | {"model_type": "bert"})
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return folder


def write_roberta(folder: Path, **changes: Any) -> Path:
    """Writes a RoBERTa, with vocab.json and merges.txt, to an existing folder and returns that."""
    _write(folder, configs.TINY_ROBERTA | changes)
    tokenizer = ByteLevelBPETokenizer()
    text = ["good film", "the film was bad and good", " very badly, very goodly made, café"] * 9
    tokenizer.train_from_iterator(text, 300, 2, show_progress=False, special_tokens=SPECIAL)
    tokenizer.save_model(str(folder))
    return folder


def write_xlm_roberta(folder: Path) -> Path:
    """Writes an XLM-RoBERTa, with a tokenizer as of sentencepiece, to an existing folder and returns that."""
    _write(folder, configs.TINY_ROBERTA | {"model_type": "xlm-roberta", "vocab_size": len(PIECES)})
    tokenizer = Tokenizer(Unigram([(piece, -float(i)) for i, piece in enumerate(PIECES)], 3, False))
    tokenizer.pre_tokenizer, tokenizer.decoder = Metaspace(), Unspaced()
    tokenizer.post_processor = TemplateProcessing("<s> $A </s>", None, [("<s>", 0), ("</s>", 2)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _write(folder: Path, config: Mapping[str, Any]) -> None:
    weights = params.init(configs.tiny(text_dim=config["hidden_size"]), 0, config)
    tensors = {n.removeprefix(PREFIX): w.float() for n, w in weights.items() if n.startswith(PREFIX)}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))

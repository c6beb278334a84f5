"""Small configurations for tests."""

from typing import Any

TINY: dict[str, Any] = {
    "text_dim": 7,
    "audio_dim": 5,
    "vision_dim": 6,
    "d_model": 4,
    "num_heads": 2,
    "num_layers": 2,
    "text_kernel": 3,
    "audio_kernel": 1,
    "vision_kernel": 5,
    "audio_hidden": 3,
    "vision_hidden": 5,
    "multimodal_features": 6,
    "audio_features": 3,
    "vision_features": 4,
    "multimodal_dropout": 0.1,
    "audio_dropout": 0.1,
    "vision_dropout": 0.1,
    "attn_dropout": 0.1,
    "residual_dropout": 0.1,
    "embed_dropout": 0.0,
    "pooling": "mean",
    "variant": "full",
    "alpha": 0.3,
    "beta": 0.1,
    "diff_normalize": True,
    "label_bound": 3.0,
    "exclude_zero": True,
}

TINY_BERT: dict[str, Any] = {
    "vocab_size": 30,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "hidden_act": "gelu",
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}

# As many tokens as TINY_BERT reads: 16 of its 18 positions.
TINY_ROBERTA: dict[str, Any] = TINY_BERT | {
    "model_type": "roberta",
    "pad_token_id": 1,
    "vocab_size": 300,
    "max_position_embeddings": 18,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}


def tiny(**changes: str | float | bool) -> dict[str, Any]:
    """The tiny configuration, with changes."""
    unknown = changes.keys() - TINY.keys()
    if unknown:
        raise KeyError(f"no such fields: {sorted(unknown)}")
    return TINY | changes

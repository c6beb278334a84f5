"""Text features that any encoder of transformers computes once, to be read without ``text_encoder=``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from tqdm import tqdm

from mmiln.data.dataset import Dataset
from mmiln.errors import ConfigError, DataError, MissingFileError
from mmiln.text_encoder import ROBERTA

BATCH: Final = 32  # sentences at a time


def load_encoder(name: str | Path) -> tuple[Any, Any]:
    """A model of transformers and its tokenizer.

    Raises:
        ConfigError: The package transformers is not installed.
        MissingFileError: The model or its tokenizer is not there.
    """
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError:
        raise ConfigError(
            'text features are computed by the package transformers: pip install "mmiln[baselines]"'
        ) from None
    try:
        return AutoModel.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    except (OSError, ImportError, ValueError) as error:
        raise MissingFileError(
            f"text features: transformers can't load a model and tokenizer {str(name)!r}: {error}"
        ) from None


def put_text_features(
    dataset: Dataset, name: str | Path, model: Any, tokenizer: Any, *, progress: bool = True
) -> None:
    """Gives every utterance the last layer of a frozen encoder, one row a token of ``raw_text``, as ``text``.

    ``text`` and ``text_bert`` that were there go, as their tokens are others. The data set's report counts
    the sentences that were longer than the encoder reads.

    Raises:
        ConfigError: The model can't be used.
        DataError: A part has no sentences.
    """
    for part, split in dataset.splits.items():
        if split.raw_text is None:
            raise DataError(f"expected raw_text, to compute text features of, got {split.fields} in {part}")
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    model = model.float().eval().to("cuda" if torch.cuda.is_available() else "cpu")
    longest = _longest(model.config, tokenizer)
    for part, split in dataset.splits.items():
        assert split.raw_text is not None
        whole = [len(ids) for ids in tokenizer(split.raw_text, verbose=False)["input_ids"]]
        if longest is not None and (cut := sum(length > longest for length in whole)):
            dataset.report.warn(
                f"{cut} of {len(whole)} sentences of {part} have more than {longest} tokens, all that {name} "
                "reads; their features are those of their beginnings.",
                {f"{part}.text.cut": cut},
            )
        order = sorted(range(len(whole)), key=whole.__getitem__)
        found: list[Any] = [None] * len(whole)
        for start in tqdm(
            range(0, len(order), BATCH), f"text features of {part}", disable=None if progress else True
        ):
            some = order[start : start + BATCH]
            tokens = tokenizer(
                [split.raw_text[i] for i in some],
                padding=True,
                truncation=longest is not None,
                max_length=longest,
                return_tensors="pt",
            ).to(model.device)
            try:
                with torch.inference_mode():
                    hidden = model(**tokens).last_hidden_state.cpu()
            except Exception as error:  # of any model
                raise ConfigError(f"text features: {name} can't be used: {error}") from None
            mask = tokens["attention_mask"].bool().cpu()
            for i, row, true in zip(some, hidden, mask, strict=True):
                found[i] = row[true].numpy()
        split.text, split.text_bert = found, None
    width = dataset.dims["text"]
    dataset.report.add(f"text: features of {name}, {width} wide, computed once; text_bert is left out.")


def _longest(config: Any, tokenizer: Any) -> int | None:
    """The largest number of tokens that a model reads; None where there is none."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and config.model_type in ROBERTA:
        positions -= config.pad_token_id + 1
    known = [length for length in (positions, tokenizer.model_max_length) if length and 0 < length < 10**6]
    return min(known, default=None)

"""One utterance explained, and scores and features of many."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from ..data import Dataset, Split, collate
from ..errors import ConfigError, DataError, MissingFileError
from ..text_encoder import TextEncoder
from . import attribution
from .attribution import Explained
from .explanation import Explanation, Similar, Word

SIMILAR: Final = 5  # training utterances that are shown

Floats = npt.NDArray[np.float32]


def explain(model: Explained, dataset: Split | Dataset, id: str, train: Split | None = None) -> Explanation:
    """See :meth:`mmiln.Model.explain`."""
    part, at, train = _find(dataset, id, train)
    one = part.subset([at])
    others = [i for i in range(len(train)) if not (train is part and i == at)]
    if not others:
        raise ConfigError(
            f"{id!r} is alone in its split, and other utterances are needed to compare it with: give train="
        )
    background = train.subset(others)
    inside = model.forward(collate([one[0]]), intermediates=True)
    restored = model.label_range_.restored
    scores = {name: restored(float(inside[f"y_{name}"][0])) for name in _heads(model)}
    moved = {name: float(v[0]) for name, v in attribution.contributions(model, one, background).items()}
    tokens, words = _words(model, one, moved.get("text", 0.0))
    weights = np.zeros(len(tokens))
    for word in words:
        weights[list(word.tokens)] = word.weight
    return Explanation(
        id=id,
        text=one.raw_text[0] if one.raw_text is not None else None,
        tokens=tokens,
        words=words,
        weights=weights,
        truth=None if one.labels is None else float(one.labels[0]),
        score=scores.get("multimodal", next(iter(scores.values()))),
        unimodal={name: score for name, score in scores.items() if name != "multimodal"},
        contributions=moved,
        gates=attribution.mean_gates(inside, 0),
        attention=_attention(model, one),
        similar=_similar(model, one, background),
        label_range=model.label_range_,
    )


def outputs(model: Explained, split: Split) -> dict[str, Floats]:
    """Scores ``y_*`` ``(N,)`` and features ``F_*`` ``(N, w)`` of every head of a model, for all utterances.

    Raises:
        BatchError: The model does not fit the data.
    """
    found = [model.forward(batch) for batch in split.loader(model.config.train["batch_size"])]
    joined = {name: torch.cat([part[name] for part in found]) for name in found[0]}  # type: ignore[misc]
    arrays = {name: values.float().cpu().numpy() for name, values in joined.items()}
    return {n: model.label_range_.restored(v) if n.startswith("y_") else v for n, v in arrays.items()}


def disagreement(model: Explained, split: Split) -> Floats:
    """How far apart text, voice and face are: the highest minus the lowest score of all heads, ``(N,)``.

    The heads are the multimodal one, which text leads, and those of audio and vision alone.

    Raises:
        ConfigError: The model has one head.
        BatchError: The model does not fit the data.
    """
    heads = _heads(model)
    if len(heads) < 2:
        raise ConfigError(
            f"heads can't disagree in a model of {heads[0].replace('multimodal', 'text')} alone: "
            "expected one of text and audio or vision"
        )
    found = outputs(model, split)
    scores = np.stack([found[f"y_{name}"] for name in heads])
    apart: Floats = scores.max(axis=0) - scores.min(axis=0)
    return apart


def _heads(model: Explained) -> list[str]:
    """Heads of a model, the multimodal one first, where there is text."""
    return ["multimodal" if name == "text" else name for name in attribution.modalities_of(model)]


def _find(dataset: Split | Dataset, id: str, train: Split | None) -> tuple[Split, int, Split]:
    """The part that holds an utterance, its place there, and the utterances that it is compared with."""
    if isinstance(dataset, Dataset):
        parts = list(dataset.splits.values())
        own = parts[0]
    elif isinstance(dataset, Split):
        parts, own = [dataset], dataset
    else:
        raise DataError(
            f"expected a mmiln.data.Split or Dataset to find {id!r} in, got {type(dataset).__name__}"
        )
    found = [(part, at) for part in parts for at, name in enumerate(part.id) if name == id]
    if not found:
        raise ConfigError(f"there is no utterance {id!r} in {dataset!r}; ids look like {parts[0].id[0]!r}")
    if len(found) > 1:
        raise ConfigError(
            f"{len(found)} utterances are called {id!r}: choose one by its place, as "
            "split.subset([place]), and give train="
        )
    return *found[0], own if train is None else train


def _words(model: Explained, one: Split, text_contribution: float) -> tuple[list[str], tuple[Word, ...]]:
    """The tokens that a model reads of one utterance, and its words with their weights."""
    encoder = model.encoder
    if encoder is not None:
        one, names, places, texts = _encoded(encoder, one)
        field = "text_bert"
    elif model.config.model["text_dim"]:
        names, places = _named(one)
        texts = [names[i] for (i,) in places]
        field = "text"
    else:
        return [], ()
    if len(places) == 1 and len(names) == 1:  # the word is the whole text
        weights = np.array([text_contribution])
    else:
        weights = attribution.occlusion(model, one, field, places)
    words = (
        Word(text, float(weight), tuple(at)) for text, weight, at in zip(texts, weights, places, strict=True)
    )
    return names, tuple(words)


def _encoded(encoder: TextEncoder, one: Split) -> tuple[Split, list[str], list[list[int]], list[str]]:
    """The utterance with the tokens that the text encoder reads, their names, each word's places and text."""
    if one.text_bert is not None:
        tokens = one.text_bert[0]
    elif one.raw_text is not None:
        tokens = encoder.tokenizer.tokenize(one.raw_text)[0].numpy()
    else:
        raise DataError("expected text_bert or raw_text, which the model's text encoder reads, got neither")
    tokens = tokens[:, tokens[1] != 0]
    fields = {name: getattr(one, name) for name in one.fields if name not in attribution.TEXT_FIELDS}
    one = Split(one.id, text_bert=[tokens], **fields)
    ids = tokens[0].tolist()
    try:
        return one, *encoder.tokenizer.pieces(ids)
    except MissingFileError:  # there is no tokenizer
        names = [f"#{id_}" for id_ in ids]
        return one, names, [[i] for i in range(len(ids))], names


def _named(one: Split) -> tuple[list[str], list[list[int]]]:
    """Names of text features, from ``raw_text`` if it has as many words, and the places of each word."""
    assert one.text is not None  # the model has read it
    count = len(one.text[0])
    said = one.raw_text[0].split() if one.raw_text is not None else []
    if len(said) == count:
        return said, [[i] for i in range(count)]
    if len(said) == count - 2 > 0:  # features of a BERT, which reads [CLS] and [SEP] too
        return ["[CLS]", *said, "[SEP]"], [[i] for i in range(1, count - 1)]
    return [f"token {i + 1}" for i in range(count)], [[i] for i in range(count)]


def _attention(model: Explained, one: Split) -> dict[str, Floats]:
    """By modality ``(L, h, T_t, T_n)``."""
    layers: dict[str, list[torch.Tensor]] = {}
    for key, maps in model.attention_maps(collate([one[0]])).items():
        layers.setdefault(key.rpartition("text_")[2], []).append(maps[0])
    return {name: torch.stack(maps).float().cpu().numpy() for name, maps in layers.items()}


def _similar(model: Explained, one: Split, background: Split) -> tuple[Similar, ...]:
    """The nearest of the background by the features that the score is made of."""
    from sklearn.metrics.pairwise import cosine_similarity

    head = _heads(model)[0]
    known = outputs(model, background)
    cosines = cosine_similarity(outputs(model, one)[f"F_{head}"], known[f"F_{head}"])[0]
    nearest = np.argsort(-cosines, kind="stable")[:SIMILAR].tolist()
    texts = background.raw_text
    return tuple(
        Similar(
            id=background.id[i],
            text=texts[i] if texts is not None else None,
            truth=None if background.labels is None else float(background.labels[i]),
            score=float(known[f"y_{head}"][i]),
            cosine=float(cosines[i]),
        )
        for i in nearest
    )

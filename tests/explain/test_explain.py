"""Explanations of a score: every number against the predictions that it is computed from."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

import mmiln
from mmiln import explain
from mmiln.data import Dataset, Split, collate
from mmiln.errors import BatchError, ConfigError, DataError
from mmiln.explain import Word
from mmiln.labels import LabelRange
from support import small_bert

TINY = {"d_model": 8, "num_heads": 2, "num_layers": 2}


@pytest.fixture(scope="module")
def data():
    return mmiln.data.synthetic(40, 12, 30)


@pytest.fixture(scope="module")
def model(data):
    model = mmiln.Model("mosi", seed=1, accumulate=1, **TINY)
    model.fit(data.train, data.valid, epochs=2, progress=False)
    return model


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return small_bert.write(tmp_path_factory.mktemp("bert"))


def score(model, one, **replaced):
    """The score of one utterance with some of its fields replaced."""
    fields = {name: getattr(one, name) for name in one.fields} | replaced
    return float(model.predict(Split(one.id, one.labels, **fields)).score[0])


def test_what_is_said_of_an_utterance_is_what_the_model_does(data, model):
    at = 3
    one = data.test.subset([at])
    e = model.explain(data, one.id[0])
    inside = model.forward(collate([one[0]]), intermediates=True)
    assert (e.id, e.text, e.truth) == (one.id[0], one.raw_text[0], float(one.labels[0]))
    assert e.score == pytest.approx(score(model, one), abs=1e-6)
    assert e.unimodal == {n: pytest.approx(float(inside[f"y_{n}"][0])) for n in ("audio", "vision")}
    said = one.raw_text[0].split()
    assert e.tokens == ["[CLS]", *said, "[SEP]"]
    assert [word.text for word in e.words] == said
    for i, word in enumerate(e.words, 1):
        assert word.tokens == (i,)
        without = score(model, one, text=[np.delete(one.text[0], i, axis=0)])
        assert word.weight == pytest.approx(e.score - without, abs=1e-5)
        assert e.weights[i] == word.weight
    assert e.weights[0] == e.weights[-1] == 0
    assert np.abs(e.weights).max() > 1e-4
    moved = mmiln.explain.attribution.contributions(model, one, data.train)
    assert e.contributions == {name: pytest.approx(float(v[0])) for name, v in moved.items()}
    retain = inside["fusion.1.text_audio.retain"][0]
    assert e.gates[1]["text_audio"]["retain"] == pytest.approx(float(retain.mean()))


def test_attention_is_that_of_the_text_over_frames(data, model):
    one = data.test.subset([5])
    e = model.explain(data.test, one.id[0], train=data.train)
    maps = model.attention_maps(collate([one[0]]))
    for name in ("audio", "vision"):
        assert e.attention[name].shape == (2, 2, len(e.tokens), len(getattr(one, name)[0]))
        np.testing.assert_array_equal(e.attention[name][1], maps[f"fusion.1.text_{name}"][0])
        np.testing.assert_allclose(e.timeline[name], e.attention[name][1].mean(axis=(0, 1)))
        assert e.timeline[name].sum() == pytest.approx(1, abs=1e-5)


def test_similar_utterances_are_the_nearest_of_train_and_never_the_utterance_itself(data, model):
    e = model.explain(data, data.train.id[7])
    features = torch.from_numpy(explain.outputs(model, data.train)["F_multimodal"])
    cosines = torch.nn.functional.cosine_similarity(features, features[7:8]).numpy()
    order = [i for i in np.argsort(-cosines, kind="stable") if i != 7][:5]
    assert [like.id for like in e.similar] == [data.train.id[i] for i in order]
    scores = model.predict(data.train).score
    for like, i in zip(e.similar, order, strict=True):
        assert like.cosine == pytest.approx(cosines[i], abs=1e-5)
        assert like.score == pytest.approx(scores[i], abs=1e-5)
        assert (like.truth, like.text) == (float(data.train.labels[i]), data.train.raw_text[i])
    alone = data.test.subset([0])
    with pytest.raises(ConfigError, match=r"alone in its split.*give train="):
        model.explain(alone, alone.id[0])


@pytest.mark.parametrize("given", ["raw_text", "text_bert"])
def test_pieces_of_a_word_are_left_out_together(given, encoder):
    model = mmiln.Model("mosi", text_encoder=encoder, audio_dim=5, vision_dim=0, seed=3, **TINY)
    rng = np.random.default_rng(0)
    audio = [rng.normal(size=(4, 5)), rng.normal(size=(2, 5)), rng.normal(size=(3, 5))]
    sentences = ["the film was badly good", "very good", "bad"]
    ids = [
        [small_bert.WORDS.index(t) for t in text.split()]
        for text in ("[CLS] the film was bad ##ly good [SEP]", "[CLS] very good [SEP]", "[CLS] bad [SEP]")
    ]
    tokens = [np.stack([row, np.ones_like(row), np.zeros_like(row)]) for row in map(np.array, ids)]
    text = {"raw_text": sentences} if given == "raw_text" else {"text_bert": tokens}
    part = Split(["a", "b", "c"], [1, 2, -1], audio=audio, **text)
    e = model.explain(part, "a")
    assert e.tokens == ["[CLS]", "the", "film", "was", "bad", "##ly", "good", "[SEP]"]
    assert [word.text for word in e.words] == ["the", "film", "was", "badly", "good"]
    badly = e.words[3]
    assert badly.tokens == (4, 5)
    one = Split(["a"], [1], raw_text=["the film was good"], audio=audio[:1])
    assert badly.weight == pytest.approx(e.score - score(model, one), abs=1e-5)
    assert abs(badly.weight) > 1e-6
    assert e.weights.tolist() == [0, *(w.weight for w in e.words[:3]), badly.weight, badly.weight,
                                  e.words[4].weight, 0]  # fmt: skip
    assert e.attention["audio"].shape == (2, 2, 8, 4)
    assert [w.text for w in model.explain(part, "c").words] == ["bad"]
    (encoder / "vocab.txt").rename(encoder / "hidden")
    try:
        nameless = mmiln.Model("mosi", text_encoder=encoder, audio_dim=5, vision_dim=0, seed=3, **TINY)
        if given == "text_bert":
            assert nameless.explain(part, "b").tokens == ["#2", "#11", "#5", "#3"]
    finally:
        (encoder / "hidden").rename(encoder / "vocab.txt")


def test_one_token_of_text_weighs_what_text_contributes():
    rng = np.random.default_rng(0)
    text, audio = ([rng.normal(size=(1, width)) for _ in range(3)] for width in (6, 5))
    part = Split(["a", "b", "c"], [1, 2, -1], text=text, audio=audio)
    e = mmiln.Model("mosi", vision_dim=0, **TINY).explain(part, "b")
    assert e.tokens == ["token 1"]
    assert e.words[0].weight == e.contributions["text"] != 0
    assert "token 1" in str(e)


@pytest.mark.parametrize(
    "fields",
    [
        {"variant": "no_gate_fusion"},
        {"variant": "no_mfm"},
        {"audio_dim": 0},
        {"vision_dim": 0},
        {"audio_dim": 0, "vision_dim": 0},
        {"text_dim": 0, "vision_dim": 0},
        {"text_dim": 0, "audio_dim": 0},
    ],
    ids=lambda fields: ", ".join(f"{name}={value}" for name, value in fields.items()),
)
def test_every_kind_of_model_is_explained(fields, data):
    model = mmiln.Model("mosi", **TINY, **fields)
    e = model.explain(data, data.test.id[0])
    present = [name for name in ("text", "audio", "vision") if fields.get(f"{name}_dim") != 0]
    assert list(e.contributions) == present
    assert bool(e.words) == bool(e.tokens) == ("text" in present)
    crossed = [] if fields.get("variant") == "no_gate_fusion" or "text" not in present else present[1:]
    assert list(e.attention) == crossed
    assert bool(e.gates) == (fields.get("variant") != "no_mfm" and present != ["text"])
    assert len(e.similar) == 5
    assert e.id in str(e)
    assert e.id in e._repr_html_()
    if len(present) > 1:
        apart = explain.disagreement(model, data.test)
        values = [e.score, *e.unimodal.values()]
        assert apart.shape == (30,)
        assert apart[0] == pytest.approx(max(values) - min(values), abs=1e-5)
    else:
        assert e.score == pytest.approx(float(model.predict(data.test).score[0]), abs=1e-6)
        with pytest.raises(ConfigError, match=f"a model of {present[0]} alone"):
            explain.disagreement(model, data.test)


class Tags(HTMLParser):
    """Refuses what is not closed; keeps tags and text."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("br", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_html_shades_words_and_escapes_everything(model, data):
    hostile = '<script>alert("1")</script> & so'
    part = data.test.subset([0, 1, 2, 3])
    said = part.raw_text[0].split()
    said[1] = "<b>&amp;"
    fields = {name: getattr(part, name) for name in part.fields}
    fields["raw_text"] = [" ".join(said), hostile, *part.raw_text[2:]]
    part = Split(['"><img src=x>', *part.id[1:]], part.labels, **fields)
    e = model.explain(part, part.id[0])
    page = Tags()
    page.feed(e._repr_html_())
    assert page.open == []
    tags = {tag for tag, _ in page.seen}
    assert not tags & {"script", "img", "b>"}
    assert hostile in page.text
    assert part.id[0] in page.text
    shaded = [attrs for tag, attrs in page.seen if tag == "span" and "title" in attrs]
    assert [float(attrs["title"]) for attrs in shaded] == pytest.approx(
        [w.weight for w in e.words], abs=0.005
    )
    opacities = [0.55 * min(1, abs(word.weight)) for word in e.words]
    assert [float(attrs["style"].split(", ")[-1].split(")")[0]) for attrs in shaded] == pytest.approx(
        opacities, abs=0.001
    )
    assert page.text.count("even over ") + sum(tag == "svg" for tag, _ in page.seen) == 2


def test_a_colour_means_the_same_for_every_utterance_and_the_strongest_have_numbers(model, data):
    e = model.explain(data, data.test.id[0])
    weights = [0.5, -0.003, 0.1, -2.0, 0.2, 0.3, 0.05]
    made = tuple(Word(f"w{i}", weight, (i,)) for i, weight in enumerate(weights))

    def shades(explanation):
        page = Tags()
        page.feed(explanation._repr_html_())
        opacity = [a["style"].split(")")[0].split()[-1] for t, a in page.seen if t == "span" and "title" in a]
        return page.text, [float(each) for each in opacity]

    text, opacity = shades(replace(e, words=made))
    assert opacity == pytest.approx([0.55 * min(1, abs(weight)) for weight in weights], abs=0.001)
    assert [f"{w.weight:+.2f}" in text.split(w.text)[1][:7] for w in made] == [1, 0, 1, 1, 1, 1, 0]
    weak = tuple(Word(f"w{i}", weight / 1000, (i,)) for i, weight in enumerate(weights))
    assert max(shades(replace(e, words=weak))[1]) < 0.01
    assert shades(replace(e, words=made, label_range=LabelRange(1, 5)))[1][0] == pytest.approx(
        0.55 * 0.75, abs=0.001
    )


def test_even_attention_has_no_bars_and_is_called_even(model, data):
    e = model.explain(data, data.test.id[2])
    frames = e.attention["audio"].shape[-1]
    even = np.full_like(e.attention["audio"], 1 / frames)
    uneven = even.copy()
    uneven[..., 0] *= 2
    said = f"even over {frames} frames, {1 / frames:.1%} on each"
    for weights, is_even in ((even, True), (uneven, False)):
        one = replace(e, attention={"audio": weights})
        assert (said in str(one)) == (said in one._repr_html_()) == is_even
        assert ("█" in str(one)) == ("<svg" in one._repr_html_()) == (not is_even)


def test_text_says_the_same(model, data):
    e = model.explain(data, data.test.id[2])
    text = str(e)
    first = max(e.words, key=lambda word: abs(word.weight))
    assert f"{first.text} {first.weight:+.2f}" in text
    assert f"{len(data.test.audio[2])} frames" in text
    assert text.count("cosine") == 5
    assert repr(e) == f"Explanation({e.id!r}, score={e.score:+.2f}, truth={e.truth:+.2f})"


def test_utterances_that_are_not_there_or_not_one(model, data):
    with pytest.raises(ConfigError, match=r"no utterance 'nobody'.*ids look like"):
        model.explain(data, "nobody")
    with pytest.raises(DataError, match=r"Split or Dataset.*got list"):
        model.explain([], "a")
    twice = data.test.subset([0, 0, 1])
    with pytest.raises(ConfigError, match=r"2 utterances are called.*subset"):
        model.explain(twice, twice.id[0])
    blind = Split(data.test.id, data.test.labels, text=data.test.text, audio=data.test.audio)
    with pytest.raises(BatchError, match="no 'vision'"):
        model.explain(blind, blind.id[0])
    only = Dataset(data.train, name="only train")
    assert model.explain(only, data.train.id[0]).similar[0].id != data.train.id[0]

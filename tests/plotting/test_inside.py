"""Pictures of gates, attention and features."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mmiln
from mmiln import plotting
from mmiln.data import collate
from mmiln.errors import DataError
from support import plotting_examples as examples


def rows(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_gates_have_a_row_a_layer_and_stream_and_a_column_a_gate():
    explanation = examples.explanation(layers=2)
    ax = plotting.gates(explanation)
    assert rows(ax) == [
        *("L1 audio", "L1 vision", "L1 text–audio", "L1 text–vision"),
        *("L2 audio", "L2 vision", "L2 text–audio", "L2 text–vision"),
    ]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["retain", "compound", "source"]
    shown = ax.images[0].get_array()
    last = explanation.gates[1]["text_vision"]
    assert shown[7].tolist() == [last["retain"], last["compound"], last["source"]]
    assert shown.mask[:, 2].tolist() == [True, True, False, False] * 2
    far = np.abs(shown.compressed() - 0.5).max()
    assert ax.images[0].get_clim() == pytest.approx((0.5 - far, 0.5 + far))
    written = {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in ax.texts}
    assert written[7, 2] == f"{last['source']:.3f}"
    assert written[0, 2] == "–"
    assert ax.get_xlabel() == "– one modality has no source"


def test_gates_near_one_half_can_be_told_from_it():
    ax = plotting.gates(SimpleNamespace(gates=[{"text_audio": {"retain": 0.496, "compound": 0.503}}]))
    assert [text.get_text() for text in ax.texts] == ["0.496", "0.503"]
    assert ax.images[0].get_clim() == (0.49, 0.51)
    low, high = (ax.images[0].cmap(ax.images[0].norm(value))[:3] for value in (0.496, 0.503))
    assert np.ptp([low, high], axis=0).max() > 0.2
    assert ax.get_xlabel() == ""  # no gate is missing


def test_gates_of_one_source_have_no_more_rows():
    explanation = SimpleNamespace(
        gates=[{"audio": {"retain": 0.1, "compound": 0.2}, "text_audio": {"retain": 1.0, "source": 0.5}}]
    )
    assert rows(plotting.gates(explanation)) == ["L1 audio", "L1 text–audio"]


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ([], "no gates to draw: the model has none"),
        ([{}, {}], "no gates to draw"),
        ([{"audio": {"retain": float("nan")}}], "gates should be finite"),
    ],
)
def test_no_gates_are_refused(gates, message):
    with pytest.raises(DataError, match=message):
        plotting.gates(SimpleNamespace(gates=gates))


def test_attention_has_a_row_a_token_and_a_column_a_frame():
    weights, words = examples.attention(7, 300)
    ax = plotting.attention_map(weights, words, modality="vision")
    np.testing.assert_array_equal(ax.images[0].get_array(), weights)
    assert rows(ax) == words
    assert ax.get_xlabel() == "vision frame"
    assert plotting.attention_map(weights, words).get_xlabel() == "frame"


def test_even_attention_is_called_even():
    weights = np.full((3, 40), 1 / 40)
    weights[1, 5] *= 1.04
    ax = plotting.attention_map(weights, ["a", "b", "c"])
    assert [text.get_text() for text in ax.texts] == ["even: every frame has\n2.50% to 2.60%"]
    assert ax.images[0].get_clim() == (0, weights.max())
    weights[1, 5] *= 1.1
    assert not plotting.attention_map(weights, ["a", "b", "c"]).texts


def test_tokens_are_words_not_mathematics_and_not_too_long():
    ax = plotting.attention_map(np.full((3, 2), 0.5), ["$x$", "$ 5", "antidisestablishmentarianism"])
    assert rows(ax) == ["$x$", "$ 5", "antidisesta…"]
    assert not any(label.get_parse_math() for label in ax.get_yticklabels())
    ax.figure.draw_without_rendering()  # as mathematics "$ 5" would not parse


def test_a_figure_of_its_own_grows_with_the_tokens():
    short, long = (plotting.attention_map(*examples.attention(n, 20)).figure for n in (10, 60))
    assert short.get_figheight() == 4
    assert long.get_figheight() > 8


@pytest.mark.parametrize(
    ("weights", "words", "message"),
    [
        (np.ones((2, 3, 4)), ["a", "b"], r"should have the shape \(2, at least 1\), got \(2, 3, 4\)"),
        (np.ones((3, 4)), ["a", "b"], r"should have the shape \(2, at least 1\), got \(3, 4\)"),
        (np.ones((2, 0)), ["a", "b"], "at least 1"),
        (np.full((2, 3), np.nan), ["a", "b"], "attention weights should be finite"),
    ],
)
def test_attention_that_does_not_fit_the_words_is_refused(weights, words, message):
    with pytest.raises(DataError, match=message):
        plotting.attention_map(weights, words)


def test_projection_keeps_the_distances_of_a_plane():
    rng = np.random.default_rng(0)
    plane = rng.normal(0, (3, 1), (50, 2))
    turned = plane @ np.linalg.qr(rng.normal(size=(9, 2)))[0].T + 5
    ax = plotting.projection({"F_audio": turned}, np.linspace(-3, 3, 50))
    (panel,) = ax.child_axes
    points = panel.collections[0].get_offsets().data
    distances = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (points, plane)]
    np.testing.assert_allclose(*distances, atol=1e-9)
    share = plane[:, 0].var() / plane.var(axis=0).sum()
    assert float(panel.get_xlabel().removeprefix("PC 1 (").removesuffix("%)")) == pytest.approx(
        100 * share, abs=2
    )


def test_projection_has_a_panel_a_head_and_the_colour_of_the_label():
    features, labels = examples.features(20)
    tensors = {name: torch.tensor(values) for name, values in features.items()}
    ax = plotting.projection(tensors, torch.tensor(labels))
    assert [panel.get_title() for panel in ax.child_axes] == ["multimodal", "audio", "vision"]
    for panel in ax.child_axes:
        np.testing.assert_array_equal(panel.collections[0].get_array(), labels)
        assert panel.collections[0].get_clim() == (-3, 3)
    assert not ax.axison


def test_a_projection_of_two_utterances_says_so():
    ax = plotting.projection({"F_audio": np.eye(2)}, [1, 2])
    assert [text.get_text() for text in ax.texts] == ["2 utterances are too few for a projection"]
    assert not ax.child_axes


def test_features_of_a_model_can_be_drawn():
    data = mmiln.data.synthetic(4, 4, 6).test
    model = mmiln.Model("mosi", num_layers=1, d_model=8, num_heads=2, seed=0)
    inside = model.forward(collate([data[i] for i in range(6)]), intermediates=True)
    features = {name: inside[name] for name in ("F_multimodal", "F_audio", "F_vision")}
    assert len(plotting.projection(features, data.labels).child_axes) == 3


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        ({}, [1, 2], "no features to draw"),
        ({"F_audio": np.ones((2, 4))}, [1, 2], "F_audio is the same for all 2 utterances"),
        ({"F_audio": np.ones((1, 4))}, [1], "F_audio is the same for all 1 utterances"),
        ({"F_audio": np.eye(3)}, [1, 2], r"F_audio should have the shape \(2, at least 1\), got \(3, 3\)"),
        ({"F_audio": [[1], [2]]}, [1, 2], "F_audio is one number an utterance"),
        ({"F_audio": np.eye(2)}, [1, np.nan], "labels should be finite"),
        ({"F_audio": [[np.inf, 1], [2, 3]]}, [1, 2], "F_audio should be finite"),
    ],
)
def test_features_that_can_not_be_drawn_are_refused(features, labels, message):
    with pytest.raises(DataError, match=message):
        plotting.projection(features, labels)

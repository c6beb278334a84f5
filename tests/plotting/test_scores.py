"""Pictures of scores: every utterance is where it belongs."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from mmiln import Metrics, Predictions, plotting
from mmiln.errors import DataError
from mmiln.labels import SIMS, LabelRange
from mmiln.plotting.style import BLUE, ORANGE
from support import plotting_examples as examples

NAN = float("nan")


def of(label, score):
    return Predictions(np.array(score, np.float32), label=np.array(label, np.float32))


def cells(ax):
    """The texts of a heat map by row and column."""
    return {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in ax.texts}


def test_every_utterance_is_a_point_at_its_scores():
    predictions = examples.predictions()
    ax = plotting.predicted_against_true(predictions)
    points = ax.collections[0].get_offsets()
    np.testing.assert_allclose(points, np.stack([predictions.label, predictions.score], 1))
    assert ax.get_xlim() == ax.get_ylim()
    assert ax.get_aspect() == 1


def test_marginal_histograms_count_true_and_predicted_scores():
    predictions = examples.predictions()
    ax = plotting.predicted_against_true(predictions)
    below, beside = ax.containers
    edges = [bar.get_x() for bar in below] + [below[-1].get_x() + below[-1].get_width()]
    for values, sizes in (
        (predictions.label, [bar.get_height() for bar in below]),
        (predictions.score, [bar.get_width() for bar in beside]),
    ):
        counts, _ = np.histogram(values, edges)
        assert counts.sum() == len(predictions)
        np.testing.assert_allclose(np.array(sizes) / max(sizes), counts / counts.max())


def test_scores_beyond_the_labels_are_in_the_picture():
    ax = plotting.predicted_against_true(of([3, -3, 0], [7.5, -4, 0]))
    low, high = ax.get_ylim()
    assert low < -4
    assert high > 7.5
    # Points do not lie on the histograms either.
    assert max(bar.get_width() + bar.get_x() for bar in ax.containers[1]) < -4


def test_confusion_counts_like_scikit_learn():
    predictions = examples.predictions(700)
    ax = plotting.confusion(predictions)
    seven = [np.rint(np.clip(x, -3, 3)).astype(int) for x in (predictions.label, predictions.score)]
    counts = confusion_matrix(*seven, labels=range(-3, 4))
    shares = confusion_matrix(*seven, labels=range(-3, 4), normalize="true")
    np.testing.assert_allclose(ax.images[0].get_array(), shares)
    for place, text in cells(ax).items():
        assert text == (f"{counts[place]}\n{shares[place]:.0%}" if counts[place] else "")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["−3", "−2", "−1", "0", "+1", "+2", "+3"]


def test_confusion_of_ch_sims_has_its_five_classes():
    rng = np.random.default_rng(0)
    label, score = rng.integers(-5, 6, 300) / 5, rng.uniform(-1.5, 1.5, 300)
    label[:4] = 0.1, -0.1, 0.7, -0.7  # in float32 a little above or below the cuts
    predictions = Predictions(np.float32(score), label=np.float32(label), label_range=SIMS)
    ax = plotting.confusion(predictions)
    cuts = np.array([-0.7, -0.1, 0.1, 0.7])
    five = [(np.float32(x)[:, None] > cuts).sum(axis=1) for x in (label, score)]
    assert five[0][:4].tolist() == [3, 1, 3, 1]
    np.testing.assert_allclose(ax.images[0].get_array(), confusion_matrix(*five, normalize="true"))
    right = sum(int(cells(ax)[i, i].split("\n")[0] or 0) for i in range(5))
    assert right / 300 == pytest.approx(Metrics.of(label, score, SIMS).acc5)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["≤ −0.7", "≤ −0.1", "≤ 0.1", "≤ 0.7", "> 0.7"]


def test_scores_in_a_unit_of_their_own():
    usual = of([-3, 0, 1], [-2.9, 0.2, 2.2])
    own = Predictions(3 + usual.score * 2 / 3, label=3 + usual.label * 2 / 3, label_range=LabelRange(1, 5))
    assert cells(plotting.confusion(own)) == cells(plotting.confusion(usual))
    ticks = [label.get_text() for label in plotting.confusion(own).get_yticklabels()]
    assert ticks == ["1", "1.67", "2.33", "3", "3.67", "4.33", "5"]
    ax = plotting.predicted_against_true(own)
    assert ax.get_xlim()[0] < 1 < 5 < ax.get_xlim()[1] < 5.5
    assert ax.get_lines()[0].get_ydata()[0] == 3  # neutral


def test_confusion_rounds_half_to_even_and_has_truth_in_rows():
    ax = plotting.confusion(of([0.5, 0.5, 9.0], [1.5, 2.5, -9.0]))
    assert {place: text for place, text in cells(ax).items() if text} == {
        (3, 5): "2\n100%",
        (6, 0): "1\n100%",
    }


def test_writing_in_cells_is_dark_on_light_and_light_on_dark():
    ax = plotting.confusion(of([0, 0, 0, 1], [0, 0, 1, 1]))
    colours = {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_color() for t in ax.texts}
    assert colours[4, 4] == "black"  # 100 %
    assert colours[3, 4] == "white"  # 33 %


@pytest.mark.parametrize("draw", [plotting.error_by_length, plotting.error_by_disagreement])
def test_errors_are_points_and_medians_with_quartiles(draw):
    predictions, x = examples.predictions(700), examples.disagreement(700)
    ax = draw(predictions, x)
    error = np.abs(predictions.score.astype(float) - predictions.label)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), np.stack([x, error], 1))
    (bins,) = ax.containers
    middle, median = bins.lines[0].get_data()
    assert len(middle) == 8
    # The first eighth of the utterances, by hand.
    first = np.argsort(x)[: 700 // 8]
    assert middle[0] == pytest.approx(np.median(x[first]), abs=0.01)
    assert median[0] == pytest.approx(np.median(error[first]), abs=0.02)
    quartiles = bins.lines[2][0].get_segments()[0][:, 1]
    assert quartiles == pytest.approx(np.quantile(error[first], (0.25, 0.75)), abs=0.02)
    assert ax.get_ylim()[1] > error.max()


@pytest.mark.parametrize(
    ("n", "lengths", "medians"),
    [
        (3, [1, 2, 9], 1),
        (200, [7] * 200, 1),  # no length tells anything
        (200, [7] * 199 + [8], 1),
        (200, [3] * 100 + [9] * 100, 2),
        (200, range(200), 5),
    ],
)
def test_every_utterance_is_in_one_bin(n, lengths, medians):
    ax = plotting.error_by_length(examples.predictions(n), lengths)
    middle, median = ax.containers[0].lines[0].get_data()
    assert np.isfinite(median).all()
    assert len(middle) == medians


def test_rows_have_their_names_from_top_to_bottom():
    values, intervals = examples.seeds(), examples.intervals()
    for ax in (plotting.by_seed(values), plotting.differences(intervals)):
        assert [label.get_text() for label in ax.get_yticklabels()] == list(values)
        assert ax.yaxis_inverted()
    points, mean = plotting.by_seed(values).get_lines()[-2:]
    assert points.get_xdata().tolist() == values["text $"]
    assert mean.get_xdata() == [np.mean(values["text $"])]
    _, *lines = plotting.differences(intervals).get_lines()
    assert [line.get_color() for line in lines] == [BLUE, BLUE, ORANGE, ORANGE]
    assert [line.get_ydata()[0] for line in lines] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plotting.by_seed({}), "no row to draw"),
        (lambda: plotting.differences({}), "no row to draw"),
        (lambda: plotting.by_seed({"full": []}), "values of full should have the shape"),
        (lambda: plotting.by_seed({"full": [1.0, NAN]}), "values of full should be finite"),
    ],
)
def test_rows_that_can_not_be_drawn_are_refused(draw, message):
    with pytest.raises(DataError, match=message):
        draw()


SCORED = [
    plotting.predicted_against_true,
    plotting.confusion,
    lambda predictions: plotting.error_by_length(predictions, [1, 2]),
    lambda predictions: plotting.error_by_disagreement(predictions, [1, 2]),
]


@pytest.mark.parametrize("draw", SCORED)
def test_fewer_than_three_utterances_are_written_in_the_place_of_the_plot(draw):
    ax = draw(of([1, -0.5], [1.25, 0]))
    (text,) = ax.texts
    assert text.get_text() == (
        "2 utterances are too few to draw\ntrue +1.00, predicted +1.25\ntrue -0.50, predicted +0.00"
    )
    assert not ax.axison
    assert not ax.collections
    assert not ax.images
    (alone,) = plotting.confusion(of([1], [2])).texts
    assert alone.get_text() == "1 utterance is too few to draw\ntrue +1.00, predicted +2.00"


@pytest.mark.parametrize("draw", SCORED)
@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (Predictions(np.zeros(2, np.float32)), "these predictions have no labels"),
        (of([], []), r"labels should have the shape \(at least 1,\), got \(0,\)"),
        (of([1, 2], [1]), r"scores should have the shape \(2,\), got \(1,\)"),
        (of([1, NAN], [1, 2]), "labels should be finite to be drawn, 1 of 2 values are not"),
        (of([1, 2], [np.inf, 2]), "scores should be finite"),
    ],
)
def test_scores_that_can_not_be_drawn_are_refused(draw, predictions, message):
    with pytest.raises(DataError, match=message):
        draw(predictions)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1, 2, 3], r"lengths should have the shape \(2,\), got \(3,\)"),
        ([1, NAN], "lengths should be finite"),
        (["a", "b"], "lengths should be numbers"),
        ([[1, 2], [3]], "lengths should be numbers"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(lengths, message):
    with pytest.raises(DataError, match=message):
        plotting.error_by_length(of([1, 2], [1, 2]), lengths)

"""Pictures of training: what is drawn is what the history holds."""

import numpy as np
import pytest

from mmiln import History, plotting
from mmiln.errors import DataError, StateError
from support import plotting_examples as examples


def curves(ax):
    """What lines show, by label."""
    return {str(line.get_label()): line.get_ydata() for line in ax.get_lines()}


def names(ax):
    """The names at the ends of lines, from top to bottom."""
    return [text.get_text() for text in sorted(ax.texts, key=lambda text: -text.xyann[1])]


def right_of(ax):
    """The axes that share the epochs of ``ax`` and have a right side of their own."""
    (twin,) = (other for other in ax.figure.axes if other is not ax)
    return twin


def test_learning_curve_shows_loss_validation_and_the_best_epoch():
    history = examples.history()
    ax = plotting.learning_curve(history)
    np.testing.assert_array_equal(curves(ax)["training loss"], history["train_total"])
    np.testing.assert_array_equal(curves(ax)["validation MAE"], history["valid_mae"])
    assert ax.figure.axes == [ax]  # one scale
    assert names(ax) == ["validation MAE", "training loss"]
    best = next(line for line in ax.get_lines() if line.get_label() == "best epoch")
    assert list(best.get_xdata()) == [history.best_epoch] * 2
    assert ax.get_ylabel() == "training loss, MAE (points)"


@pytest.mark.parametrize("draw", [plotting.learning_curve, plotting.loss_parts])
def test_a_star_marks_the_error_that_chose_the_epoch(draw):
    history = examples.history()
    ax = draw(history)
    star = next(line for line in ax.get_lines() if line.get_label() == "chosen")
    assert star.get_marker() == "*"
    assert star.get_xydata().tolist() == [[history.best_epoch, min(history["valid_mae"])]]
    assert ax.get_xlabel() == f"epoch (best: {history.best_epoch}, MAE {min(history['valid_mae']):.3f})"


def test_the_measure_that_chose_the_epoch_has_the_star():
    history = History({"train_total": [2.0, 1.0], "valid_mae": [1.0, 2.0], "valid_corr": [0.2, 0.4]})
    history.best_epoch, history.monitor = 2, "valid_corr"
    losses, measures = plotting.learning_curve(history), plotting.validation_metrics(history)
    stars = [[line for line in ax.get_lines() if line.get_label() == "chosen"] for ax in (losses, measures)]
    assert [len(each) for each in stars] == [0, 1]
    assert stars[1][0].get_xydata().tolist() == [[2, 40]]
    assert [ax.get_xlabel() for ax in (losses, measures)] == ["epoch (dashed: the best by valid_corr)"] * 2


def test_learning_curve_without_validation_has_one_line():
    ax = plotting.learning_curve(History(train_total=[2.0, 1.0]))
    assert list(curves(ax)) == ["training loss"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "training loss")


@pytest.mark.parametrize("epochs", [1, 2, 50])
def test_every_line_has_a_colour_and_a_name_at_its_end_and_few_epochs_large_markers(epochs):
    panels = examples.history(epochs).plot()
    for ax in panels:
        drawn = [line for line in ax.get_lines() if line.get_label() not in ("best epoch", "chosen")]
        assert sorted(names(ax)) == sorted(str(line.get_label()) for line in drawn)
        assert len({line.get_color() for line in drawn}) == len(drawn) > 1
        assert {line.get_marker() for line in drawn} <= {"o", "s"}
        assert {line.get_markersize() for line in drawn} == {3 if epochs == 50 else 6}
        assert ax.get_title()
    width, _ = panels[0].figure.get_size_inches()
    assert width < 11  # readable in a notebook


def test_every_loss_is_drawn_and_named_at_its_end():
    history = examples.history()
    ax = plotting.loss_parts(history)
    for name in ("task", "sim", "diff", "total"):
        np.testing.assert_array_equal(curves(ax)[name], history[f"train_{name}"])
    assert names(ax) == ["validation MAE", "total", "task", "sim", "diff"]
    assert ax.get_yscale() == "log"


def test_losses_of_a_baseline_may_be_negative():
    ax = plotting.loss_parts(History(train_task=[1.0, 0.5], train_cpc=[-2.0, -3.0], train_total=[3.0, 0.1]))
    assert set(names(ax)) == {"task", "cpc", "total"}
    assert ax.get_yscale() == "linear"


def test_losses_that_are_close_have_a_linear_axis():
    ax = plotting.loss_parts(History(train_task=[1.0, 0.5], train_total=[1.1, 0.6]))
    assert ax.get_yscale() == "linear"


def test_validation_metrics_are_drawn_and_the_error_is_not():
    history = examples.history()
    ax = plotting.validation_metrics(history)
    shown = curves(ax)
    del shown["best epoch"]
    assert len(shown) == 7
    in_per_cent = {
        "Corr × 100": "corr", "Acc-2 non0": "non0_acc2", "F1 has0": "has0_f1", "Acc-7": "acc7",
    }  # fmt: skip
    for label, name in in_per_cent.items():
        np.testing.assert_allclose(shown[label], 100 * np.array(history[f"valid_{name}"]))
    assert ax.get_ylabel() == "validation (%)"


def test_a_measure_without_a_value_leaves_a_gap_and_one_without_any_is_left_out():
    nan = float("nan")
    history = History(valid_corr=[nan, 0.5, nan], valid_acc7=[0.1, 0.2, 0.3], valid_acc5=[nan] * 3)
    ax = plotting.validation_metrics(history)
    assert names(ax) == ["Corr × 100", "Acc-7"]
    assert next(text for text in ax.texts if text.get_text() == "Corr × 100").xy == (2, 50)


def test_pseudo_label_shift_starts_at_nought():
    history = examples.history()
    ax = plotting.pseudo_label_shift(history)
    np.testing.assert_array_equal(curves(ax)["audio"], history["pseudo_shift_audio"])
    np.testing.assert_array_equal(curves(ax)["vision"], history["pseudo_shift_vision"])
    assert ax.get_ylim()[0] == 0
    assert ax.get_ylim()[1] > max(history["pseudo_shift_vision"])
    del history["pseudo_shift_vision"]
    assert names(plotting.pseudo_label_shift(history)) == ["audio"]


def test_pseudo_labels_against_human_ones():
    history = examples.history()
    ax = plotting.pseudo_labels_against_human(history)
    for name in ("audio", "vision"):
        np.testing.assert_array_equal(curves(ax)[f"MAE, {name}"], history[f"pseudo_mae_{name}"])
        np.testing.assert_array_equal(curves(ax)[f"Corr, {name}"], history[f"pseudo_corr_{name}"])
    del history["pseudo_mae_vision"], history["pseudo_corr_vision"]
    assert names(plotting.pseudo_labels_against_human(history)) == ["Corr, audio", "MAE, audio"]
    panels = [ax.get_ylabel() for ax in history.plot()]
    assert panels[-1] == "$y_s$ to human labels (points or r)"


def test_measures_of_ch_sims_are_drawn():
    curve = {f"valid_{name}": [0.1, 0.2] for name in ("mae", "corr", "acc2", "acc3", "acc5", "f1")}
    ax = plotting.validation_metrics(History(curve))
    assert set(names(ax)) == {"Corr × 100", "Acc-2", "Acc-3", "Acc-5", "F1"}


def test_both_losses_of_mrm_have_an_axis_each():
    history = examples.history()
    ax = plotting.mrm_losses(history)
    np.testing.assert_array_equal(curves(ax)["sim"], history["train_sim"])
    np.testing.assert_array_equal(curves(right_of(ax))["diff"], history["train_diff"])
    assert right_of(ax).get_ylim()[1] < 0.1 < ax.get_ylim()[0]


def test_drift_shows_quantiles_of_the_differences():
    snapshots, truth = examples.drift(epochs=3, n=41)
    ax = plotting.pseudo_label_drift(snapshots, truth)
    difference = snapshots["vision"][2] - truth
    assert curves(ax)["vision"][2] == pytest.approx(np.median(difference))
    zero, _, _, outer, inner = ax.collections
    assert zero.get_segments()[0][:, 1].tolist() == [0, 0]
    assert outer.get_segments()[2][:, 1] == pytest.approx(np.quantile(difference, (0.05, 0.95)))
    assert inner.get_segments()[2][:, 1] == pytest.approx(np.quantile(difference, (0.25, 0.75)))
    assert curves(ax)["audio"][1] == pytest.approx(np.median(snapshots["audio"][1] - truth))


def test_names_keep_order_and_distance_where_lines_end_together():
    together = {f"train_{name}": [2.0, 1.0 + 1e-3 * i] for i, name in enumerate("abcdef")}
    ax = plotting.loss_parts(History(together))
    assert names(ax) == ["f", "e", "d", "c", "b", "a"]
    heights = sorted(text.xyann[1] for text in ax.texts)
    assert np.diff(heights).min() > 0.079
    assert 0.04 < heights[0] < heights[-1] < 0.96


@pytest.mark.parametrize(
    "draw",
    [
        plotting.learning_curve,
        plotting.loss_parts,
        plotting.validation_metrics,
        plotting.pseudo_label_shift,
        plotting.mrm_losses,
    ],
)
def test_a_history_with_nothing_to_draw_is_refused(draw):
    with pytest.raises(StateError, match="no epoch to draw: fit the model first"):
        draw(History())
    with pytest.raises(StateError, match="nothing to draw: the history holds no"):
        draw(History(seconds=[1.0, 2.0]))


def test_half_of_mrm_is_not_drawn():
    with pytest.raises(StateError, match="no training loss train_diff"):
        plotting.mrm_losses(History(train_sim=[1.0]))


@pytest.mark.parametrize(
    ("snapshots", "message"),
    [
        ({}, "no snapshot of pseudo-labels to draw: fit with the callback PseudoLabels"),
        ({"audio": []}, "no snapshot"),
        ({"audio": [[1.0, 2.0], [1.0]]}, r"audio after epoch 2 should have the shape \(2,\), got \(1,\)"),
        ({"vision": [[1.0, float("nan")]]}, "vision after epoch 1 should be finite"),
        ({"text": [[1.0, 2.0]]}, "pseudo-labels are of audio and vision, got text"),
    ],
)
def test_snapshots_that_can_not_be_drawn_are_refused(snapshots, message):
    with pytest.raises(DataError, match=message):
        plotting.pseudo_label_drift(snapshots, [0.0, 1.0])

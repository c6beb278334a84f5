"""Draws the pictures of docs/plots.md: ``python docs/figures/plots.py`` writes them to ``plots/`` beside it.

On synthetic data, in half a minute. Lettering is of a grey that reads on light and on dark pages.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

import mmiln
from mmiln import explain, plotting

GREY = "#808890"
STYLE = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), GREY)


def main() -> None:
    """Trains one model and draws four rows of plots."""
    data = mmiln.data.synthetic(n_train=600, n_valid=150, n_test=300)
    model = mmiln.Model("mosi", num_layers=3, accumulate=1, seed=1)
    kept = mmiln.callbacks.PseudoLabels()
    history = model.fit(data.train, data.valid, epochs=12, callbacks=[kept])
    predictions = model.predict(data.test)
    case = model.explain(data, data.test.id[0])
    found = explain.outputs(model, data.test)
    features = {name: values for name, values in found.items() if name.startswith("F_")}

    rows = {
        "history": (
            lambda ax: plotting.loss_parts(history, ax),
            lambda ax: plotting.validation_metrics(history, ax),
            lambda ax: plotting.pseudo_label_drift(kept.labels_, data.train.labels, ax),
        ),
        "scores": (
            lambda ax: plotting.predicted_against_true(predictions, ax),
            lambda ax: plotting.confusion(predictions, ax),
        ),
        "inside": (
            lambda ax: plotting.attention_map(
                case.attention["audio"][-1].mean(axis=0), case.tokens, ax, modality="audio"
            ),
            lambda ax: plotting.gates(case, ax),
        ),
        "many": (
            lambda ax: plotting.error_by_disagreement(
                predictions, explain.disagreement(model, data.test), ax
            ),
            lambda ax: plotting.projection(features, data.test.labels, ax),
        ),
    }
    folder = Path(__file__).with_name("plots")
    folder.mkdir(exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, draws in rows.items():
            figure = plotting.new_figure(5.0 * len(draws))
            for ax, draw in zip(figure.subplots(1, len(draws)), draws, strict=True):
                ax.set_facecolor("none")
                draw(ax)
            figure.savefig(folder / f"{name}.png", dpi=130, transparent=True)


if __name__ == "__main__":
    main()

"""Draws the pictures of docs/plots.md: ``python docs/figures/plots.py`` writes them to ``plots/`` beside it.

On synthetic data, in half a minute. Lettering is of a grey that reads on light and on dark pages.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

import mmiln
from mmiln import explain, plotting

GREY = "#808890"
LETTERS = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
RECIPE = {"accumulate": 1, "decay_text": 0, "decay_audio": 0, "decay_vision": 0, "decay_other": 0}


def main() -> None:
    """Trains one model and draws pairs of plots."""
    data = mmiln.data.synthetic(n_train=600, n_valid=150, n_test=300)
    model = mmiln.Model("mosi", num_layers=3, seed=1, **RECIPE)
    kept = mmiln.callbacks.PseudoLabels()
    history = model.fit(data.train, data.valid, epochs=12, callbacks=[kept])
    predictions = model.predict(data.test)
    case = model.explain(data, data.test.id[200])
    maps = case.attention["audio"]  # (layers, heads, T_t, T_n)
    layer, head = np.unravel_index(maps.max(axis=(2, 3)).argmax(), maps.shape[:2])  # the least even one
    print(f"attention of layer {layer + 1}, head {head + 1}")
    apart = explain.disagreement(model, data.test)
    found = explain.outputs(model, data.test)
    features = {name: values for name, values in found.items() if name.startswith("F_")}

    pairs = {
        "history": (
            lambda ax: plotting.loss_parts(history, ax),
            lambda ax: plotting.validation_metrics(history, ax),
        ),
        "labels": (
            lambda ax: plotting.pseudo_label_shift(history, ax),
            lambda ax: plotting.pseudo_label_drift(kept.labels_, data.train.labels, ax),
        ),
        "scores": (
            lambda ax: plotting.predicted_against_true(predictions, ax),
            lambda ax: plotting.confusion(predictions, ax),
        ),
        "inside": (
            lambda ax: plotting.attention_map(maps[layer, head], case.tokens, ax, modality="audio"),
            lambda ax: plotting.gates(case, ax),
        ),
        "many": (
            lambda ax: plotting.error_by_disagreement(predictions, apart, ax),
            lambda ax: plotting.projection(features, data.test.labels, ax),
        ),
    }
    folder = Path(__file__).with_name("plots")
    folder.mkdir(exist_ok=True)
    with mpl.rc_context(dict.fromkeys(LETTERS, GREY) | {"font.size": 12}):
        for name, draws in pairs.items():
            figure = plotting.new_figure(12)
            for ax, draw in zip(figure.subplots(1, 2), draws, strict=True):
                ax.set_facecolor("none")
                draw(ax)
            figure.savefig(folder / f"{name}.png", dpi=110, transparent=True)


if __name__ == "__main__":
    main()

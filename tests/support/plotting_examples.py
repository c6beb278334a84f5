"""What pictures are drawn from in tests: the same numbers on every machine."""

from types import SimpleNamespace

import numpy as np

from mmiln import History, Predictions, plotting
from mmiln.experiments.compare import Difference
from mmiln.labels import SIMS

STREAMS = ("audio", "vision", "text_audio", "text_vision")
SAID = ("the", "movie", "was", "n't", "$", "15", "bad", "antidisestablishmentarianism", "##ing", "[MASK]")


def history(epochs=12):
    e = np.arange(1, epochs + 1)
    task, sim, diff = (
        2.4 * np.exp(-e / 4) + 0.6,
        0.4 * np.exp(-e / 6) + 0.12,
        0.02 + 0.004 * np.cos(2 * e) ** 2,
    )
    learnt = 1 - np.exp(-e / 2)
    best = {"corr": 0.75, "has0_acc2": 0.80, "has0_f1": 0.81, "non0_acc2": 0.825, "non0_f1": 0.83}
    best |= {"acc7": 0.39, "acc5": 0.45}
    measures = {
        f"valid_{name}": value * (0.6 + 0.4 * learnt) + 0.01 * np.sin(e + i)
        for i, (name, value) in enumerate(best.items())
    }
    columns = {
        "train_task": task,
        "train_sim": sim,
        "train_diff": diff,
        "train_total": task + 0.3 * sim + 0.1 * diff,
        "valid_mae": 0.8 + 0.6 * np.exp(-e / 2) + 0.003 * e,
        **measures,
        "seconds": np.ones(epochs),
        "pseudo_shift_audio": 0.6 * learnt,
        "pseudo_shift_vision": 0.75 * learnt,
        "pseudo_mae_audio": 0.7 - 0.2 * learnt,
        "pseudo_mae_vision": 0.8 - 0.1 * learnt,
        "pseudo_corr_audio": 0.5 + 0.2 * learnt,
        "pseudo_corr_vision": 0.4 + 0.1 * learnt,
    }
    made = History({name: values.tolist() for name, values in columns.items()})
    made.best_epoch = int(np.argmin(made["valid_mae"])) + 1
    return made


def predictions(n=200):
    rng = np.random.default_rng(1)
    truth = np.clip(np.round(rng.normal(0.2, 1.5, n) * 5) / 5, -3, 3)
    score = 0.75 * truth + rng.normal(0, 0.7, n)
    return Predictions(score.astype(np.float32), label=truth.astype(np.float32))


def predictions_of_sims(n=200):
    made = predictions(n)
    return Predictions(made.score / 3, label=made.label / 3, label_range=SIMS)


def lengths(n=200):
    return np.random.default_rng(2).integers(3, 45, n)


def disagreement(n=200):
    return np.random.default_rng(3).gamma(2, 0.4, n)


def drift(epochs=12, n=100):
    rng = np.random.default_rng(4)
    truth = np.clip(rng.normal(0, 1.5, n), -3, 3)
    moved = {"audio": rng.normal(0.2, 0.4, n), "vision": rng.normal(-0.1, 0.6, n)}
    steps = 1 - np.exp(-np.arange(epochs) / 4)
    return {name: [truth + step * by for step in steps] for name, by in moved.items()}, truth


def explanation(layers=3, spread=0.4):
    rng = np.random.default_rng(5)
    return SimpleNamespace(
        gates=[
            {
                stream: {
                    gate: float(rng.uniform(0.5 - spread, 0.5 + spread))
                    for gate in ("retain", "compound", "source")[: 3 if "_" in stream else 2]
                }
                for stream in STREAMS
            }
            for _ in range(layers)
        ]
    )


def attention(tokens=12, frames=60):
    weights = np.random.default_rng(6).gamma(0.4, size=(tokens, frames))
    return weights / weights.sum(axis=1, keepdims=True), words(tokens)


def even_attention(tokens=12, frames=60):
    weights, said = attention(tokens, frames)
    return (1 + 0.02 * weights) / frames, said


def words(tokens):
    return ["[CLS]", *(SAID[i % len(SAID)] for i in range(tokens - 2)), "[SEP]"]


def features(n=200):
    rng = np.random.default_rng(7)
    truth = np.clip(rng.normal(0, 1.5, n), -3, 3)
    spaces = {"F_multimodal": (24, 1.0), "F_audio": (8, 0.4), "F_vision": (12, 0.6)}
    return {
        name: np.maximum(
            0, truth[:, None] * rng.normal(0, slope, (1, width)) + rng.normal(0, 0.5, (n, width))
        )
        for name, (width, slope) in spaces.items()
    }, truth


def by_depth():
    rng = np.random.default_rng(8)
    return {
        name: {
            n: {
                "mae": (base + 0.05 * abs(n - 3) + rng.normal(0, 0.01, 3)).tolist(),
                "has0_acc2": (0.8 - base / 20 + rng.normal(0, 0.005, 3)).tolist(),
                "non0_acc2": (0.82 - base / 20 + rng.normal(0, 0.005, 3)).tolist(),
            }
            for n in range(1, 7)
        }
        for name, base in (("full", 0.8), ("no_mrm", 0.86))
    }


def seeds():
    rng = np.random.default_rng(9)
    rows = {"full": 0.8, "no_mrm": 0.82, "text $": 0.95}
    return {row: (mae + rng.normal(0, 0.02, 5)).tolist() for row, mae in rows.items()}


def intervals():
    apart, near = Difference(0.15, 0.1, 0.21), Difference(0.02, -0.01, 0.05)
    return {"full": None, "no_mrm": near, "text $": apart}


#: Every picture on a single ax, of ordinary data.
PICTURES = {
    "learning_curve": lambda ax: plotting.learning_curve(history(), ax),
    "loss_parts": lambda ax: plotting.loss_parts(history(), ax),
    "validation_metrics": lambda ax: plotting.validation_metrics(history(), ax),
    "pseudo_label_shift": lambda ax: plotting.pseudo_label_shift(history(), ax),
    "pseudo_labels_against_human": lambda ax: plotting.pseudo_labels_against_human(history(), ax),
    "mrm_losses": lambda ax: plotting.mrm_losses(history(), ax),
    "pseudo_label_drift": lambda ax: plotting.pseudo_label_drift(*drift(), ax),
    "predicted_against_true": lambda ax: plotting.predicted_against_true(predictions(), ax),
    "confusion": lambda ax: plotting.confusion(predictions(), ax),
    "predicted_against_true_sims": lambda ax: plotting.predicted_against_true(predictions_of_sims(), ax),
    "confusion_sims": lambda ax: plotting.confusion(predictions_of_sims(), ax),
    "error_by_length": lambda ax: plotting.error_by_length(predictions(), lengths(), ax),
    "error_by_disagreement": lambda ax: plotting.error_by_disagreement(predictions(), disagreement(), ax),
    "by_seed": lambda ax: plotting.by_seed(seeds(), ax),
    "differences": lambda ax: plotting.differences(intervals(), ax),
    "gates": lambda ax: plotting.gates(explanation(), ax),
    "attention_map": lambda ax: plotting.attention_map(*attention(), ax, "audio"),
    "projection": lambda ax: plotting.projection(*features(), ax),
}

#: The same of little and of much data.
ODD = {
    "one_epoch": [
        lambda ax: plotting.learning_curve(history(1), ax),
        lambda ax: plotting.loss_parts(history(1), ax),
        lambda ax: plotting.validation_metrics(history(1), ax),
        lambda ax: plotting.pseudo_label_drift(*drift(1), ax),
    ],
    "fifty_epochs": [
        lambda ax: plotting.mrm_losses(history(50), ax),
        lambda ax: plotting.validation_metrics(history(50), ax),
        lambda ax: plotting.pseudo_label_shift(history(50), ax),
        lambda ax: plotting.pseudo_label_drift(*drift(50), ax),
    ],
    "hardly_anything": [
        lambda ax: plotting.confusion(predictions(2), ax),
        lambda ax: plotting.learning_curve(history(2), ax),
        lambda ax: plotting.gates(explanation(spread=0.004), ax),
        lambda ax: plotting.attention_map(*even_attention(), ax, "audio"),
    ],
    "three_utterances": [
        lambda ax: plotting.predicted_against_true(predictions(3), ax),
        lambda ax: plotting.confusion(predictions(3), ax),
        lambda ax: plotting.error_by_length(predictions(3), lengths(3), ax),
        lambda ax: plotting.projection(*features(3), ax),
    ],
    "much": [
        lambda ax: plotting.confusion(predictions(700), ax),
        lambda ax: plotting.gates(explanation(6), ax),
        lambda ax: plotting.gates(explanation(1), ax),
        lambda ax: plotting.attention_map(*attention(44, 300), ax, "vision"),
    ],
}

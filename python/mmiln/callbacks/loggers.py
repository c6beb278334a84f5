"""Callbacks that write measures to a file, or to a service through an object that the user provides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..files import write
from ..training.learner import Learner
from .callback import Callback


class CSVLogger(Callback):
    """Keeps the history in a CSV file, one row an epoch.

    The file is replaced after each epoch, whole or not at all, so that it can be read at any time, and holds
    all epochs also where a run was resumed. A file of the same name from another run is overwritten.

    Args:
        path: The file; its folder is made if it is not there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_train_begin(self, model: Learner) -> None:
        """Makes the folder, so that an impossible one raises before training."""
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def on_epoch_end(self, model: Learner, epoch: int, logs: dict[str, float]) -> None:
        """Writes the file."""
        frame = model.history_.to_frame()
        write(self.path, lambda path: frame.to_csv(path))


class TensorBoard(Callback):
    """Writes what each epoch measured as scalars, such as ``valid/mae``, and the model as text.

    Args:
        writer: A ``torch.utils.tensorboard.SummaryWriter``, or another object with its methods; the
            caller closes it.
    """

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def on_train_begin(self, model: Learner) -> None:
        """Writes the model's ``repr``."""
        self.writer.add_text("model", f"`{model!r}`")

    def on_epoch_end(self, model: Learner, epoch: int, logs: dict[str, float]) -> None:
        """Writes the scalars."""
        for name, value in logs.items():
            self.writer.add_scalar(_grouped(name), value, epoch)
        self.writer.flush()


class WandbLogger(Callback):
    """Logs what each epoch measured, such as ``valid/mae``, to a run of Weights & Biases.

    The model's config becomes the run's config, the best epoch ``best_epoch`` in its summary.

    Args:
        run: What ``wandb.init()`` returned; the caller finishes it.
    """

    def __init__(self, run: Any) -> None:
        self.run = run

    def on_train_begin(self, model: Learner) -> None:
        """Hands the config over."""
        # A resumed run may have other rates.
        self.run.config.update(model.config.to_dict(), allow_val_change=True)

    def on_epoch_end(self, model: Learner, epoch: int, logs: dict[str, float]) -> None:
        """Logs the values."""
        self.run.log({_grouped(name): value for name, value in logs.items()}, step=epoch, commit=True)

    def on_train_end(self, model: Learner) -> None:
        """Notes the best epoch."""
        self.run.summary["best_epoch"] = model.history_.best_epoch


class MlflowLogger(Callback):
    """Logs what each epoch measured, such as ``valid/mae``, to a run of MLflow, and the model's config.

    Args:
        client: A ``mlflow.MlflowClient``.
        run_id: The id of an active run; the caller ends it.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        self.client = client
        self.run_id = run_id

    def on_train_begin(self, model: Learner) -> None:
        """Hands the config over; MLflow refuses another one for the same run."""
        for name, value in model.config.to_dict().items():
            self.client.log_param(self.run_id, name, value)

    def on_epoch_end(self, model: Learner, epoch: int, logs: dict[str, float]) -> None:
        """Logs the values."""
        for name, value in logs.items():
            self.client.log_metric(self.run_id, _grouped(name), value, step=epoch)

    def on_train_end(self, model: Learner) -> None:
        """Notes the best epoch as a tag."""
        self.client.set_tag(self.run_id, "best_epoch", model.history_.best_epoch)


def _grouped(name: str) -> str:
    """A key of the history as these services group them.

    >>> _grouped("valid_has0_acc2"), _grouped("pseudo_shift_audio"), _grouped("lr_text"), _grouped("seconds")
    ('valid/has0_acc2', 'pseudo_shift/audio', 'lr/text', 'seconds')
    """
    for group in ("train", "valid", "pseudo_shift", "pseudo_mae", "pseudo_corr", "lr", "decay"):
        if name.startswith(f"{group}_"):
            return f"{group}/{name.removeprefix(f'{group}_')}"
    return name

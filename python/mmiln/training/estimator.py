"""What every model of the package can do: fit, predict, evaluate, be saved and loaded again."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..callbacks import Callback
from ..config import Config
from ..errors import BatchError, StateError
from ..pages import html
from ..results.history import History
from ..results.metrics import Metrics
from ..results.predictions import Predictions
from ..results.summary import Summary
from . import batches, loaders, loop
from .checkpoints import Checkpoints


class Engine(Protocol):
    """What trains: the Rust core, or a PyTorch network with its optimiser."""

    def keeps_pseudo_labels(self) -> bool:
        """Whether a run needs to know how many utterances there are, and where in them each is."""

    def begin_training(self, samples: int | None, train: str) -> None:
        """A new run with these settings (JSON) on so many utterances."""

    def begin_epoch(self, epoch: int) -> None:
        """Before each epoch, from 1."""

    def train_step(self, batch: Any) -> Tensor:
        """One micro-batch; its losses. Raises NonFiniteError where nothing was applied."""

    def undone_steps(self) -> int:
        """How many of the last steps turned out not to be finite and were not applied."""

    def end_epoch(self) -> None:
        """After each epoch."""

    def keep_best(self) -> None:
        """Remembers the weights."""

    def restore_best(self) -> None:
        """Goes back to the weights remembered, if any."""

    def training_state(self) -> tuple[dict[str, Tensor], str]:
        """All that the run depends on: tensors by name, counters as JSON."""

    def load_training_state(self, state: dict[str, Tensor], counters: str) -> None:
        """Puts a run that was just begun where the state was taken."""

    def pseudo_labels(self) -> dict[str, Tensor] | None:
        """Those of the last run by modality, (N,), NaN for utterances not seen; ``None`` without any."""

    def scores(self, batch: Any) -> Tensor:
        """(B,), without dropout."""

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of every weight by name."""


class Scored(NamedTuple):
    """A batch after prediction."""

    score: npt.NDArray[np.float32]
    names: list[str] | None
    indices: npt.NDArray[np.int64] | None
    label: npt.NDArray[np.float32] | None


class Estimator(ABC):
    """A model that is trained on batches and scores utterances.

    Attributes:
        history_: What the last :meth:`fit` measured.
    """

    #: Names of the losses of a step, in order; the last is what is minimised.
    LOSSES: ClassVar[tuple[str, ...]]

    preset: str
    device: str
    dtype: str
    precision: str
    history_: History

    def _make_locks(self) -> None:
        """Locks of this object's own: one for who trains it, one for who gives it weights."""
        self._training = threading.Lock()
        self._building = threading.Lock()

    @property
    @abstractmethod
    def config(self) -> Config:
        """Every field of model and training, resolved."""

    @property
    @abstractmethod
    def _core(self) -> Engine:
        """What trains and scores; StateError where the widths are not known before the first batch."""

    @abstractmethod
    def _pack(self, batch: object) -> Any:
        """A batch as the engine reads it; its length is the number of utterances."""

    @abstractmethod
    def _explain(self, batch: Mapping[str, Any]) -> str:
        """The utterances of a batch, and where its values stop being finite."""

    @abstractmethod
    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments as they were given."""

    @abstractmethod
    def set_params(self, **params: Any) -> Self:
        """Changes arguments, those that weights do not depend on once there are any."""

    @abstractmethod
    def text_encoder_fingerprint(self) -> str | None:
        """SHA-256 (hex) of the file of weights that the text encoder began with; ``None`` without one."""

    @abstractmethod
    def summary(self) -> Summary:
        """How many parameters each part has."""

    @abstractmethod
    def save_pretrained(self, directory: str | Path) -> None:
        """Writes the model to a directory."""

    @classmethod
    @abstractmethod
    def from_pretrained(cls, directory: str | Path, *, device: str = "cpu") -> Self:
        """A model as :meth:`save_pretrained` left it."""

    def _repr_html_(self) -> str:
        """The constructor's call, what was trained, and the parameters of each part."""
        told = html.code(self)
        if hasattr(self, "history_"):
            chosen = self.history_.best_epoch or "the last"
            told += html.paragraph(f"Epochs trained: {self.history_.epochs}; weights of epoch: {chosen}")
        if not self.built:
            return told + html.paragraph("No weights yet: the widths are read off the first batch.")
        return told + self.summary()._repr_html_()

    @property
    @abstractmethod
    def built(self) -> bool:
        """Whether the model has weights: it gets them once all widths are known."""

    @property
    def pseudo_labels(self) -> dict[str, npt.NDArray[np.float32]]:
        """Labels that the last run made of the true ones, by modality and dataset index ``(N,)``.

        NaN for utterances never seen.

        Raises:
            StateError: No run has made any.
        """
        labels = self._core.pseudo_labels() if self.built else None
        if labels is None:
            raise StateError(
                "there are no pseudo-labels: fit a model that makes them first, MMILN of text and another "
                "modality or the baseline self_mm"
            )
        return {name: values.float().cpu().numpy() for name, values in labels.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of every weight by name, in PyTorch's layouts.

        Raises:
            StateError: The widths are not known before the first batch.
        """
        return self._core.state_dict()

    def _packed(self, source: Iterable[Any]) -> Iterator[Any]:
        """Batches packed for training."""
        return map(self._pack, source)

    def _step(self) -> Any:
        """What trains on one packed batch."""
        return self._core.train_step

    def fit(
        self,
        loader: loaders.Loader,
        valid: loaders.Loader = None,
        *,
        epochs: int = 50,
        patience: int | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        checkpoint_dir: str | Path | None = None,
        checkpoint_every: float = 60.0,
        resume: loop.Resume = "auto",
        nonfinite: loop.NonFinite = "raise",
    ) -> History:
        """Trains from the present weights: a new run with fresh moments and pseudo-labels.

        With ``valid``, stops once its MAE has not fallen for ``patience`` epochs and goes back to the best
        epoch's weights. Ctrl-C stops between two steps and leaves the weights of the last one.

        In processes that torchrun has started all train one model, to the result that one process comes to:
        each calls this with the same data and settings; callbacks are called and checkpoints are written in
        the first process (rank 0) alone.

        Args:
            loader: A :class:`mmiln.data.Split` (shuffled, as ``order`` says), a torch DataLoader, MMSA's
                loader, or a list of batches. Batches hold ``text`` or ``text_bert`` or ``raw_text``,
                ``audio``, ``vision``, lengths where they are padded, ``labels`` and ``index``.
            valid: The same, without need of ``index``; read in its own order.
            epochs: At most so many passes.
            patience: Replaces the field of the same name for this run.
            callbacks: Called along the way; see :mod:`mmiln.callbacks`.
            progress: Whether to show bars, where there is a terminal or a notebook to show them
                (:class:`mmiln.callbacks.ProgressBar`).
            checkpoint_dir: A folder of this run alone, where all that it depends on is kept; it goes on from
                there to the same bits. The order of the loader is kept where it comes from a ``generator`` of
                the loader's or from the global ones of torch, numpy or Python.
            checkpoint_every: At most so many seconds are lost, or ten times what a checkpoint takes to write
                if that is more; 0 keeps every micro-batch.
            resume: ``"auto"`` goes on where there is a checkpoint, ``True`` demands one, ``False`` that there
                is none. ``"adopt"`` goes on also with other rates, decays, patience, device, version.
            nonfinite: What becomes of a batch whose loss or gradient is not finite: ``"raise"``, or
                ``"skip"`` it with a warning; no step is made either way. A card is asked every sixteenth
                micro-batch, with ``"skip"`` after each; what follows the first such batch is not applied.

        Raises:
            BatchError: A batch can't be used.
            ConfigError: An argument is out of range, or something among ``callbacks`` is no callback.
            CheckpointError: The folder can't be written to, or no checkpoint in it is whole.
            DistributedError: Another process of several has ended, or reads other batches.
            StateError: Dataset indices or the size of the training set can't be known; or the checkpoints are
                of another run, and what differs; or the model is being trained already.
            NonFiniteError: A loss or a gradient is NaN or infinite; names utterances and the first layer.
        """
        if self._training.locked():
            raise StateError(
                "this model is being trained already, by another thread or by the fit() whose callback "
                "this is: train a copy, copy.deepcopy(model)"
            )
        config = self.config.train
        checkpoints = None if checkpoint_dir is None else Checkpoints(Path(checkpoint_dir), checkpoint_every)
        with self._training:
            return loop.fit(
                self,
                loaders.for_training(loader, config),
                valid,
                epochs=epochs,
                patience=config["patience"] if patience is None else patience,
                callbacks=callbacks,
                progress=progress,
                checkpoints=checkpoints,
                resume=resume,
                nonfinite=nonfinite,
            )

    def predict(self, loader: loaders.Loader) -> Predictions:
        """Scores of all utterances, in dataset order where batches carry ``index``.

        Raises:
            BatchError: A batch can't be used, or there is none.
        """
        batches_ = loaders.each(loaders.for_reading(loader, self.config.train["batch_size"]))
        return joined(map(self._scored, batches_))

    def _scored(self, batch: Mapping[str, Any]) -> Scored:
        """The scores of a batch, and what goes with them."""
        packed = self._pack(batch)
        return Scored(
            self._core.scores(packed).float().cpu().numpy(),
            batches.names(batch, len(packed)),
            _numbers("index", batch.get("index"), np.int64),
            _numbers("labels", batches.labels_of(batch), np.float32),
        )

    def evaluate(self, loader: loaders.Loader) -> Metrics:
        """Measures over all utterances of a loader with labels.

        Raises:
            BatchError: A batch has no labels or can't be used, or there is none.
        """
        return measured(self.predict(loader))


def joined(parts: Iterable[Scored]) -> Predictions:
    """The predictions of all batches, in dataset order where each carries ``index``."""
    scores, names, indices, labels = zip(*parts, strict=True)
    score = np.concatenate(scores)
    named = [name for part in names if part is not None for name in part]
    id_ = named if len(named) == len(score) else None
    index, label = _together(indices), _together(labels)
    if index is not None:
        order = np.argsort(index, kind="stable")
        score, index = score[order], index[order]
        id_ = None if id_ is None else [id_[i] for i in order]
        label = None if label is None else label[order]
    return Predictions(score, id_, index, label)


def measured(predictions: Predictions) -> Metrics:
    """Measures of predictions that know their labels.

    Raises:
        BatchError: They don't.
    """
    if predictions.label is None:
        raise BatchError("evaluation needs labels in every batch")
    return Metrics.of(predictions.label, predictions.score)


def _together(parts: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
    """The parts of all batches as one array; ``None`` where one batch has none."""
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if len(there) == len(parts) else None


def _numbers(name: str, values: Any, dtype: type) -> npt.NDArray[Any] | None:
    return None if values is None else batches.tensor(name, values).reshape(-1).numpy().astype(dtype)

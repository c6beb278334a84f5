"""The methods that all models share: fit, predict, evaluate."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..callbacks import Callback, EarlyStopping, Plan, ProgressBar
from ..callbacks.callback import Callbacks, checked
from ..data import Split
from ..data.clean import far_values
from ..errors import ConfigError, DataWarning, StateError
from ..pretrained import Trained
from ..results.history import History
from ..results.metrics import Metrics
from ..results.predictions import Predictions
from . import loaders, scoring
from .checkpoints import Checkpoints
from .learner import Learner
from .loop import BEST_BY, NonFinite, Resume, TrainingRun
from .parallel import ParallelRun
from .ranks import Ranks


class Estimator(Learner):
    """A model that is trained on batches and scores utterances.

    Attributes:
        history_: What the last :meth:`fit` measured.
    """

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
        resume: Resume = "auto",
        nonfinite: NonFinite = "raise",
    ) -> History:
        """Trains from the present weights: a new run with fresh moments and pseudo-labels.

        With ``valid``, stops once its MAE has not fallen for ``patience`` epochs and goes back to the best
        epoch's weights. Ctrl-C stops between two steps and leaves the weights of the last one.

        Processes that torchrun has started train one model together, to the result of a single process. Each
        must call this with the same data and settings; callbacks are called and checkpoints are written in
        the first process (rank 0) alone.

        Args:
            loader: A :class:`mmiln.data.Split` (shuffled, as ``order`` says), a torch DataLoader, MMSA's
                loader, or a list of batches. Batches hold ``text`` or ``text_bert`` or ``raw_text``,
                ``audio``, ``vision``, lengths where they are padded, ``labels`` and ``index``.
            valid: The same, but ``index`` is not needed; read in its own order.
            epochs: The largest number of passes.
            patience: Replaces the field of the same name for this run.
            callbacks: Called during training; see :mod:`mmiln.callbacks`.
            progress: Whether to show bars, where there is a terminal or a notebook to show them
                (:class:`mmiln.callbacks.ProgressBar`).
            checkpoint_dir: A folder for this run alone, which keeps all that it depends on: a resumed run
                gives the same bits. The order of the loader is restored if it comes from the loader's
                ``generator`` or from the global ones of torch, numpy or Python.
            checkpoint_every: Seconds between two checkpoints, or ten times the time to write one if that is
                more; 0 writes one after every micro-batch.
            resume: ``"auto"`` resumes if there is a checkpoint, ``True`` requires one, ``False`` requires
                none to exist. ``"adopt"`` also permits other rates, decays, patience, device, versions.
            nonfinite: What to do if the loss or gradient of a batch is not finite: ``"raise"``, or
                ``"skip"`` it with a warning; no step is made either way. A card is checked every 16
                micro-batches (each one with ``"skip"``); steps after the first such batch are not applied.

        Raises:
            BatchError: A batch can't be used.
            ConfigError: An argument is out of range, or something among ``callbacks`` is no callback.
            CheckpointError: The folder can't be written to, or no checkpoint in it is whole.
            DistributedError: Another process of several has ended, or reads other batches.
            StateError: Dataset indices or the size of the training set can't be known; or the checkpoints are
                of another run (lists what differs); or the model is being trained already.
            NonFiniteError: A loss or a gradient is NaN or infinite; names utterances and the first layer.
        """
        if self._training.locked():
            raise StateError(
                "this model is being trained already, by another thread or by the fit() whose callback "
                "this is: train a copy, copy.deepcopy(model)"
            )
        config = self._config.train
        checkpoints = None if checkpoint_dir is None else Checkpoints(Path(checkpoint_dir), checkpoint_every)
        patience = config["patience"] if patience is None else patience
        with self._training:
            for part in (loader, valid):
                self.follow(loaders.label_range(part))
            if isinstance(split := loaders.source(loader), Split):
                for note in far_values(split):
                    warnings.warn(note, DataWarning, stacklevel=2)
            source = loaders.for_training(loader, self._config.train)
            for name, number in (("epochs", epochs), ("patience", patience)):
                if not isinstance(number, int) or number < 1:
                    raise ConfigError(f"{name} must be at least 1, got {number!r}")
            if nonfinite not in ("raise", "skip"):
                raise ConfigError(f'nonfinite must be "raise" or "skip", got {nonfinite!r}')
            callbacks = checked(callbacks)
            plan = Plan(epochs, loaders.batches_of(source))
            hooks = Callbacks([*_own(valid, patience, callbacks, progress), *callbacks], plan)
            arguments = (self, source, valid, epochs, hooks, checkpoints, nonfinite)
            ranks = Ranks.here(self.device)
            run = TrainingRun(*arguments) if ranks is None else ParallelRun(*arguments, ranks)
            try:
                return run.train(resume)
            finally:
                if run.history.epochs:
                    parts = {"train": loader, "valid": valid}
                    sizes = {name: size for name, part in parts.items() if (size := loaders.size(part))}
                    self.trained = Trained.by(run.history, sizes)

    def predict(self, loader: loaders.Loader, *, missing: scoring.Missing = "raise") -> Predictions:
        """Scores of all utterances, in dataset order where batches carry ``index``. Labels are not needed.

        Args:
            loader: As for :meth:`fit`; also one batch, or one utterance with arrays ``(T, width)``.
            missing: What to do if a batch lacks audio or vision, which the model reads: ``"raise"``, or
                ``"zeros"`` to give each utterance one frame of zeros (the mean of standardized columns).
                A model was not trained on such utterances, so expect worse scores.

        Raises:
            BatchError: A batch can't be used, or there is none.
            ConfigError: ``missing`` is unknown, or the data have another range of labels.
        """
        return scoring.predict(self, loader, missing=missing)

    def evaluate(self, loader: loaders.Loader, *, missing: scoring.Missing = "raise") -> Metrics:
        """Measures over all utterances of a loader with labels; ``missing`` as for :meth:`predict`.

        Raises:
            BatchError: A batch has no labels or can't be used, or there is none.
            ConfigError: ``missing`` is unknown, or the data have another range of labels.
        """
        return scoring.measured(self.predict(loader, missing=missing))


def _own(
    valid: loaders.Loader, patience: int, callbacks: Sequence[Callback], progress: bool
) -> Iterator[Callback]:
    """The callbacks that ``fit`` adds to the user's."""
    if valid is not None:
        yield EarlyStopping(BEST_BY, patience=patience)
    if progress and not any(isinstance(callback, ProgressBar) for callback in callbacks):
        yield ProgressBar()

"""The methods that all models share: fit, predict, evaluate."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from ..callbacks import Callback, EarlyStopping, Plan, ProgressBar
from ..callbacks.callback import Callbacks, checked
from ..callbacks.stopping import check_monitor
from ..data import Split
from ..data.clean import far_values
from ..errors import ConfigError, DataWarning, StateError
from ..pretrained import Trained
from ..results.calibration import Calibration
from ..results.history import BEST_BY, History
from ..results.measures import family_of
from ..results.metrics import Metrics
from ..results.predictions import Predictions
from . import loaders, scoring
from .checkpoints import Checkpoints
from .learner import Learner
from .loop import NonFinite, Resume, TrainingRun
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
        monitor: str = BEST_BY,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        checkpoint_dir: str | Path | None = None,
        checkpoint_every: float = 60.0,
        resume: Resume = "auto",
        nonfinite: NonFinite = "raise",
    ) -> History:
        """Trains from the present weights: a new run with fresh moments and pseudo-labels.

        With ``valid``, stops once ``monitor`` has not become better for ``patience`` epochs and goes back to
        the best epoch's weights. Ctrl-C stops between two steps and leaves the weights of the last one.

        Processes that torchrun has started train one model together, to the result of a single process. Each
        must call this with the same data and settings; callbacks are called and checkpoints are written in
        the first process (rank 0) alone.

        Args:
            loader: A :class:`mmiln.data.Split` (shuffled, as ``order`` says), a torch DataLoader, MMSA's
                loader, or a list of batches. Batches hold ``text`` or ``text_bert`` or ``raw_text``,
                ``audio``, ``vision``, lengths where they are padded, ``labels`` and ``index``. Also a pandas
                frame or a list of utterances, as :meth:`mmiln.data.Split.from_pandas` and ``from_items``
                read them, or a :class:`mmiln.data.Dataset` or the loaders that MMSA's ``MMDataLoader``
                returns, which stand for their train and valid parts.
            valid: The same, but ``index`` is not needed; read in its own order.
            epochs: The largest number of passes.
            patience: Replaces the field of the same name for this run.
            monitor: The measure of ``valid`` that chooses the epoch, by its name in the history, such as
                ``"valid_corr"``; MAE should fall, all others rise. NaN is never the best; where every epoch
                has NaN, a warning says so and the weights are those of the last.
            callbacks: Called during training; see :mod:`mmiln.callbacks`.
            progress: Whether to show bars or, without a terminal or a notebook, a line an epoch
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
            valid = loaders.valid_of(loader) if valid is None else valid
            loader = loaders.understood(loader, "train", self.label_range_)
            valid = loaders.understood(valid, "valid", self.label_range_)
            for part in (loader, valid):
                self.follow(loaders.label_range(part))
            if isinstance(split := loaders.source(loader), Split):
                for note in far_values(split):
                    warnings.warn(note, DataWarning, stacklevel=2)
            if shared := loaders.shared(loader, valid):
                warnings.warn(shared, DataWarning, stacklevel=2)
            source = loaders.for_training(loader, self._config.train)
            for name, number in (("epochs", epochs), ("patience", patience)):
                if not isinstance(number, int) or number < 1:
                    raise ConfigError(f"{name} must be at least 1, got {number!r}")
            if nonfinite not in ("raise", "skip"):
                raise ConfigError(f'nonfinite must be "raise" or "skip", got {nonfinite!r}')
            check_monitor(monitor, family_of(self.label_range_))
            if valid is None and monitor != BEST_BY:
                raise ConfigError(f"monitor={monitor!r} is measured on a validation part: give valid=")
            callbacks = checked(callbacks)
            plan = Plan(epochs, loaders.batches_of(source), self.rates)
            stopping = [] if valid is None else [EarlyStopping(monitor, patience=patience)]
            hooks = Callbacks([*stopping, *_bars(callbacks, progress), *callbacks], plan)
            arguments = (self, source, valid, epochs, hooks, checkpoints, nonfinite, monitor)
            ranks = Ranks.here(self.device)
            run = TrainingRun(*arguments) if ranks is None else ParallelRun(*arguments, ranks)
            self._weights_change()
            try:
                return run.train(resume)
            finally:
                if run.history.epochs:
                    parts = {"train": loader, "valid": valid}
                    sizes = {name: size for name, part in parts.items() if (size := loaders.size(part))}
                    self.trained = Trained.by(run.history, sizes)

    def calibrate(self, loader: loaders.Loader) -> Calibration:
        """Measures the errors on labelled utterances, from which :meth:`predict` computes intervals and the
        probabilities of classes. They are saved with the model; training drops them.

        ``mmiln train`` gives the validation part. As that has also chosen the epoch, its errors are a little
        smaller than those of new utterances, and intervals hold a little less than promised; utterances that
        served nothing else, such as half of the validation part, keep the promise.

        Args:
            loader: As for :meth:`evaluate`; utterances that the model was not trained on. Of a
                :class:`mmiln.data.Dataset` the validation part.

        Raises:
            BatchError: A batch has no labels or can't be used, or there is none.

        >>> import mmiln
        >>> data = mmiln.data.synthetic(n_train=24, n_valid=19, n_test=8)
        >>> model = mmiln.Model("mosi", num_layers=1)
        >>> history = model.fit(data.train, data.valid, epochs=1, progress=False)
        >>> errors = model.calibrate(data.valid)
        >>> model.predict(data.test, interval=0.9, classes=2).to_pandas().columns.tolist()
        ['id', 'index', 'label', 'score', 'low', 'high', 'class', 'p_negative', 'p_positive']
        """
        given = loaders.understood(loader, "valid", self.label_range_)
        self.calibration_ = self.predict(given).calibration()
        return self.calibration_

    def predict(
        self,
        loader: loaders.Loader,
        *,
        missing: scoring.Missing = "raise",
        classes: int | None = None,
        interval: float | None = None,
    ) -> Predictions:
        """Scores of all utterances, in dataset order where batches carry ``index``. Labels are not needed.

        :class:`mmiln.errors.StateWarning` warns, once, that the model is not trained.

        Args:
            loader: As for :meth:`fit`; also one batch, one utterance with arrays ``(T, width)``, a sentence,
                or several in a list or a pandas Series. Of a :class:`mmiln.data.Dataset` the test part, or
                the only one.
            missing: What to do if a batch lacks audio or vision, which the model reads: ``"raise"``, or
                ``"zeros"`` to give each utterance one frame of zeros (the mean of standardized columns).
                A model was not trained on such utterances, so expect worse scores.
            classes: Also gives each utterance's class of 2, 5 or 7 (CH-SIMS: 2, 3 or 5), and the probability
                of each class if the model is calibrated; see :meth:`mmiln.Predictions.with_classes`.
            interval: Also gives an interval for each label that holds it with this probability, such as 0.9,
                by split conformal prediction (Lei et al., 2018); see :meth:`calibrate`.

        Raises:
            BatchError: A batch can't be used, or there is none.
            ConfigError: ``missing``, ``classes`` or ``interval`` is out of range, there are too few
                utterances for such an interval, or the data have another range of labels.
            StateError: ``interval`` needs a calibrated model.
        """
        margin = None
        if interval is not None:
            if self.calibration_ is None:
                raise StateError(
                    "interval= needs the errors of this model on labelled utterances: call calibrate(valid) "
                    "after fit()"
                )
            margin = self.calibration_.margin(interval)
        self._tell_untrained()
        given = loaders.understood(loader, "test", self.label_range_)
        predictions = scoring.predict(self, given, missing=missing)
        if classes is not None:
            predictions = predictions.with_classes(classes, self.calibration_)
        return predictions if margin is None else predictions.with_interval(margin)

    def evaluate(self, loader: loaders.Loader, *, missing: scoring.Missing = "raise") -> Metrics:
        """Measures over all utterances of a loader with labels; ``missing`` as for :meth:`predict`.

        Raises:
            BatchError: A batch has no labels or can't be used, or there is none.
            ConfigError: ``missing`` is unknown, or the data have another range of labels.
        """
        return self.predict(loader, missing=missing).measured()


def _bars(callbacks: Sequence[Callback], progress: bool) -> list[Callback]:
    """The bars that ``fit`` shows by itself."""
    theirs = any(isinstance(callback, ProgressBar) for callback in callbacks)
    return [ProgressBar()] if progress and not theirs else []

"""Every exception and warning that mmiln raises on purpose, the exceptions as one tree.

Each one is an :class:`MmilnError` and also the built-in exception that Python users would expect, so
``except ValueError`` keeps working. The Rust core raises the same classes.
"""

from __future__ import annotations


class MmilnError(Exception):
    """Base class of all errors that mmiln raises on purpose."""


class ConfigError(MmilnError, ValueError):
    """A configuration field is unknown, of the wrong type or out of range."""


class DataWarning(UserWarning):
    """Part of a dataset was guessed, left out, cut or clamped; the message says what and how to change it."""


class StateWarning(UserWarning):
    """A model was asked for scores before it was trained, so that they mean nothing."""


class VersionWarning(UserWarning):
    """Python imports another torch than the one that pip knows."""


class BatchError(MmilnError, ValueError):
    """A batch has a missing key, a wrong shape, an impossible length, a bad label or index."""


class DataError(MmilnError, ValueError):
    """A dataset file or a dataset in memory does not have the expected content."""


class UnsafePickleError(DataError):
    """A pickle asks for objects other than arrays and plain containers, or for too many of them."""


class MissingFileError(MmilnError, FileNotFoundError):
    """A file or directory that was named, or that a directory should hold, is not there."""

    def __str__(self) -> str:
        return " ".join(str(part) for part in self.args)


class WeightsError(MmilnError, ValueError):
    """Weights do not fit the model, or a weights file is damaged or of a foreign format."""


class StateError(MmilnError, RuntimeError):
    """A call came at the wrong time: before fitting, or a change that fitted weights forbid."""


class DeviceError(MmilnError, RuntimeError):
    """The device that was asked for is unknown or not available."""


class VersionError(MmilnError, ImportError):
    """No torch is installed, or none that this mmiln has a core for."""


class InternalError(MmilnError, RuntimeError):
    """A defect of mmiln itself: the Rust core stopped a panic. Please report it."""


class NonFiniteError(MmilnError, FloatingPointError):
    """A loss is NaN or infinite; the step that met it was not applied."""


class ExperimentError(MmilnError, RuntimeError):
    """Runs of an experiment failed; the results of the others are kept."""


class DistributedError(MmilnError, RuntimeError):
    """A process of a distributed run has lost the others, or reads other data than they do."""


class ProtocolError(MmilnError, ValueError):
    """Runs that were made in different ways can't be averaged or compared."""


class CheckpointError(MmilnError, OSError):
    """A checkpoint can't be written, or every existing one is damaged."""

    def __str__(self) -> str:
        return " ".join(str(part) for part in self.args)

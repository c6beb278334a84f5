"""Files: atomic writes, lock files, reading of untrusted JSON, TOML and weights."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from .errors import ConfigError, MissingFileError, MmilnError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor


def write(path: Path, fill: Callable[[Path], object]) -> None:
    """Writes a file whole or not at all: ``fill`` gets a temporary path beside it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    with ctrl_c_waits():
        try:
            fill(temporary)
            sync(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Writes a text as UTF-8, whole or not at all."""
    write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: object) -> None:
    """Writes plain data as JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors by name, whole or not at all."""
    from safetensors.torch import save_file

    there = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write(path, lambda temporary: save_file(there, temporary, {"format": "pt"}))


def sync(path: Path) -> None:
    """Flushes a file, or a directory's list of files, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """The SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """The content of a file of JSON.

    Raises:
        MissingFileError: There is no such file.
        ConfigError: It is not JSON, is nested too deep, or holds strings that are not Unicode text.
    """
    try:
        content = json.loads(_text(path))
        json.dumps(content, ensure_ascii=False).encode()  # refuses "\ud800", which no message could show
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, MissingFileError):
            raise
        raise ConfigError(f"{path} can't be read as JSON: {error}") from None
    return content


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a file of TOML.

    Raises:
        MissingFileError: There is no such file.
        ConfigError: It is not TOML, or is nested too deep.
    """
    try:
        return tomllib.loads(_text(path))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, MissingFileError):
            raise
        raise ConfigError(f"{path} can't be read as TOML: {error}") from None


def _text(path: Path) -> str:
    if not path.exists():
        raise MissingFileError(f"there is no file {path}")
    return path.read_text(encoding="utf-8")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a file by name.

    Raises:
        WeightsError: The file is damaged or no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with ctrl_c_waits():  # safetensors would say that the file is damaged
            return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} can't be read as safetensors: {error}") from error


@contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Delays Ctrl-C to the end of the block; only in the main thread, as no other one receives it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def locked(path: Path, busy: MmilnError) -> Iterator[None]:
    """Holds a lock file, which has one holder at a time; raises ``busy`` if it is held already."""
    try:
        with FileLock(path, blocking=False):
            yield
    except Timeout:
        raise busy from None


def finite(value: Any) -> Any:
    """A value for JSON, with None for the numbers in it that are not finite.

    >>> finite({"corr": float("nan"), "n": [1, 2.5]})
    {'corr': None, 'n': [1, 2.5]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(each) for name, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, (list, tuple)) else value

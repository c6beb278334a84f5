"""A directory in the making: it can be gone on with after any interruption, and appears when it is whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pydantic

from mmiln import files
from mmiln.data.formats.converted import File
from mmiln.errors import DataError
from mmiln.plain import Plain

JOURNAL: Final = "journal.json"
LOCK: Final = ".lock"


class _Journal(Plain):
    """Of what a directory is being made, and its files that are whole."""

    made_of: dict[str, Any]
    files: dict[str, File] = pydantic.Field(default_factory=dict)


@contextmanager
def staging(target: Path, made_of: dict[str, Any]) -> Iterator[Staging]:
    """A hidden directory beside ``target``, with what an interrupted call for the same ``made_of`` left.

    Raises:
        DataError: Another process is at it.
    """
    folder = target.with_name(f".{target.name}.part")
    folder.mkdir(exist_ok=True)
    with files.locked(folder / LOCK, DataError(f"another process writes {target}: wait for it")):
        yield Staging(folder, target, made_of)


class Staging:
    """The directory while it is made.

    Attributes:
        folder: where it is.
        files: those that are whole, by name.
    """

    def __init__(self, folder: Path, target: Path, made_of: dict[str, Any]) -> None:
        self.folder = folder
        self._target, self._made_of = target, made_of
        self.files = self._taken_up()

    def _taken_up(self) -> dict[str, File]:
        """The files of an earlier call that are still as they were; all else is deleted."""
        try:
            journal = _Journal.model_validate_json((self.folder / JOURNAL).read_bytes())
        except (OSError, pydantic.ValidationError):
            journal = _Journal(made_of={})
        if journal.made_of != self._made_of:
            for path in self.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != LOCK:
                    path.unlink()
            return {}
        kept = {name: self.folder / name for name in journal.files}
        return {
            name: journal.files[name]
            for name, path in kept.items()
            if path.is_file() and File.of(path) == journal.files[name]
        }

    def write(self, name: str, fill: Callable[[Path], object]) -> None:
        """Lets ``fill`` write a file, brings it to the disk and notes it down."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        fill(path)
        files.sync(path)
        files.sync(path.parent)
        self.files[name] = File.of(path)
        self._note()

    def strike(self, name: str) -> None:
        """Forgets a file: the next call writes it anew."""
        del self.files[name]
        self._note()

    def _note(self) -> None:
        text = _Journal(made_of=self._made_of, files=self.files).model_dump_json(indent=1)
        files.write_text(self.folder / JOURNAL, text)

    def finish(self, name: str, content: object) -> None:
        """Writes the last file, which tells of all others, and gives the directory its name."""
        files.write_json(self.folder / name, content)
        for name in (JOURNAL, LOCK):
            (self.folder / name).unlink(missing_ok=True)
        files.sync(self.folder)
        self.folder.rename(self._target)
        files.sync(self._target.parent)

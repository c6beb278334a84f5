"""A directory that is written under a hidden name: resumable at any point, visible only once complete."""

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
    """The source that a directory is made from, and its files that are complete."""

    made_of: dict[str, Any]
    files: dict[str, File] = pydantic.Field(default_factory=dict)


@contextmanager
def staging(target: Path, made_of: dict[str, Any]) -> Iterator[Staging]:
    """A hidden directory beside ``target``, with the files of an interrupted call for the same ``made_of``.

    Raises:
        DataError: Another process is writing it.
    """
    folder = target.with_name(f".{target.name}.part")
    folder.mkdir(exist_ok=True)
    with files.locked(folder / LOCK, DataError(f"another process writes {target}: wait for it")):
        yield Staging(folder, target, made_of)


class Staging:
    """The directory while it is made.

    Attributes:
        folder: its path.
        files: the complete files by name.
    """

    def __init__(self, folder: Path, target: Path, made_of: dict[str, Any]) -> None:
        self.folder = folder
        self._target, self._made_of = target, made_of
        self.files = self._taken_up()

    def _taken_up(self) -> dict[str, File]:
        """The unchanged files of an earlier call; deletes all else."""
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
        """Lets ``fill`` write a file, syncs it to the disk and records it in the journal."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        fill(path)
        files.sync(path)
        files.sync(path.parent)
        self.files[name] = File.of(path)
        self._note()

    def strike(self, name: str) -> None:
        """Removes a file from the journal, so that the next call writes it anew."""
        del self.files[name]
        self._note()

    def _note(self) -> None:
        text = _Journal(made_of=self._made_of, files=self.files).model_dump_json(indent=1)
        files.write_text(self.folder / JOURNAL, text)

    def finish(self, name: str, content: object) -> None:
        """Writes the last file, which describes all others, and renames the directory to its target."""
        files.write_json(self.folder / name, content)
        for name in (JOURNAL, LOCK):
            (self.folder / name).unlink(missing_ok=True)
        files.sync(self.folder)
        self.folder.rename(self._target)
        files.sync(self._target.parent)

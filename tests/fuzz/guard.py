"""What a reader may not do, whatever it reads: run code, write elsewhere, take memory without bound."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FORBIDDEN = (
    "compile", "exec", "import", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn",
    "subprocess.Popen", "socket.connect", "ctypes.dlopen",
)  # fmt: skip
# For each audit event, the positions of a path and of its open directory among the arguments.
PATHS = {
    "open": ((0, None),), "os.mkdir": ((0, 2),), "os.remove": ((0, 1),), "os.rmdir": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)), "os.symlink": ((1, 2),), "os.link": ((1, 3),), "os.truncate": ((0, None),),
}  # fmt: skip

GROWTH = 2 << 30  # bytes of address space that reading one small file may take beside what is taken already
RESIDENT = 1 << 30  # bytes that may stay resident in all

_watched: tuple[Path, list[str]] | None = None


def _hook(event: str, args: tuple[Any, ...]) -> None:
    """Notes what is forbidden. It raises nothing: a reader might take that for damage of the file."""
    if _watched is None:
        return
    folder, seen = _watched
    if event in FORBIDDEN:
        seen.append(f"{event} {args[:1]!r:.200}")
    elif event in PATHS and not (event == "open" and not _writes(args)):
        for path, start in PATHS[event]:
            if isinstance(args[path], int):  # an open file, whose opening was seen
                continue
            base = f"/proc/self/fd/{args[start]}" if start is not None and args[start] >= 0 else "."
            place = os.path.realpath(os.path.join(base, os.fsdecode(args[path])))
            if not Path(place).is_relative_to(folder):
                seen.append(f"{event} {args[path]!r}")


def _writes(args: tuple[Any, ...]) -> bool:
    _, mode, flags = args
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


sys.addaudithook(_hook)  # it stays for good, and sees nothing unless `watched` asks for it


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Fails where what is done within runs code or writes outside of ``folder``."""
    global _watched
    seen: list[str] = []
    _watched = (folder, seen)
    try:
        yield
    finally:
        _watched = None
    assert not seen, f"a file made its reader do this: {seen}"


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Address space is limited within, and what is resident may not have grown much at the end."""
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + GROWTH, hard))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident)
    assert grown < RESIDENT, f"reading small files took {grown >> 20} MiB"

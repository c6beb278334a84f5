"""Damages files, by their tokens and by their bytes."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

from .formats import HUGE, Format

Files = dict[str, bytes]

# Edits of tokens, then of bytes.
TOKEN_EDITS = ("replace", "put in", "take out", "repeat", "exchange", "splice")
BYTE_EDITS = ("flip", "overwrite", "cut", "drop", "huge number")
KINDS = (*("replace",) * 16, *TOKEN_EDITS[2:] * 2, *TOKEN_EDITS, *BYTE_EDITS)  # more often what gets farther

_CLOSING = {b"[": b"]", b"{": b"}"}


class Edit(NamedTuple):
    """One change; its numbers are taken modulo the number of tokens or bytes."""

    kind: str
    file: int
    at: int
    what: int


class Damage(NamedTuple):
    """All changes to a valid case.

    Attributes:
        case: Which.
        edits: In this order, those of bytes last.
        mend: Whether lengths and checksums are made to fit again.
        option: How it is read, where there are several ways: 0 to 7.
    """

    case: int
    edits: list[Edit]
    mend: bool
    option: int

    @classmethod
    def of(cls, draw: bytes) -> Damage:
        """Damage from random bytes: drawing each number separately would take longer than reading a file."""
        edits = [Edit(KINDS[kind % len(KINDS)], *rest) for kind, *rest in _EDIT.iter_unpack(draw[2:])]
        return cls(draw[0], edits, draw[1] % 4 > 0, draw[1] // 32)


_EDIT = struct.Struct("<BBHH")
DAMAGE = st.integers(1, 3).flatmap(lambda n: st.binary(min_size=2 + 6 * n, max_size=2 + 6 * n)).map(Damage.of)


def damaged(files: Files, formats: dict[str, Format], damage: Damage) -> Files:
    """The files with some of them changed."""
    result = dict(files)
    names = sorted(formats)
    for name in names:
        own = [edit for edit in damage.edits if names[edit.file % len(names)] == name]
        if not own:
            continue
        tokens = list(_tokens(formats[name], files[name]))
        for edit in own:
            if edit.kind in TOKEN_EDITS:
                _edit_tokens(tokens, edit, formats[name])
        data = b"".join(tokens)
        if damage.mend:
            data = formats[name].mend(data)
        for edit in own:
            if edit.kind in BYTE_EDITS:
                data = _edited_bytes(data, edit)
        result[name] = data
    return result


@cache
def _tokens(format_: Format, data: bytes) -> tuple[bytes, ...]:
    return tuple(format_.split(data))


def _edit_tokens(tokens: list[bytes], edit: Edit, format_: Format) -> None:
    if not tokens:
        return
    at = edit.at % len(tokens)
    match edit.kind:
        case "replace":
            if format_.names:  # blanks and separators are no values
                at = next((i for i in range(at, len(tokens)) if tokens[i].strip(b" \n,:=]}")), at)
            end = _end(tokens, at)
            behind = next((token for token in tokens[end:] if token.strip()), b"")
            options = format_.names if format_.names and behind in (b":", b"=") else format_.values
            tokens[at:end] = [options[edit.what % len(options)]]
        case "put in":
            options = format_.others or format_.values
            tokens.insert(at, options[edit.what % len(options)])
        case "exchange":
            other = edit.what % len(tokens)
            tokens[at], tokens[other] = tokens[other], tokens[at]
        case "take out":
            del tokens[_element(tokens, at, edit.what, format_)]
        case "repeat":
            part = _element(tokens, at, edit.what, format_)
            tokens[part.start : part.start] = tokens[part]
        case "splice":
            other = _element(tokens, edit.what % len(tokens), edit.what, format_)
            tokens[_element(tokens, at, edit.what, format_)] = tokens[other]


def _end(tokens: list[bytes], at: int) -> int:
    """The place behind the list or object that begins here, or behind the token."""
    closing = _CLOSING.get(tokens[at])
    depth = 0
    for position in range(at, len(tokens)) if closing else ():
        depth += (tokens[position] == tokens[at]) - (tokens[position] == closing)
        if depth == 0:
            return position + 1
    return at + 1


def _element(tokens: list[bytes], at: int, length: int, format_: Format) -> slice:
    """The next element of a list or object with what parts it from the one before; or some tokens."""
    parted = (i for i in range(at, len(tokens)) if tokens[i] == format_.between)
    start, end = next(parted, None), next(parted, None)
    return slice(at, at + 1 + length % 16) if start is None or end is None else slice(start, end)


def _edited_bytes(data: bytes, edit: Edit) -> bytes:
    if not data:
        return data
    at = edit.at % len(data)
    match edit.kind:
        case "flip":
            return data[:at] + bytes([data[at] ^ 1 << edit.what % 8]) + data[at + 1 :]
        case "overwrite":
            return data[:at] + bytes([edit.what % 256]) + data[at + 1 :]
        case "cut":
            return data[:at]
        case "drop":
            return data[:at] + data[at + 1 + edit.what % 8 :]
        case _:
            number = struct.pack("<Q", min(HUGE[edit.what % len(HUGE)], 2**64 - 1))
            number = number[: (2, 4, 8)[edit.what % 3]]
            return data[:at] + number + data[at + len(number) :]


def write(folder: Path, files: Files) -> None:
    """Puts a case in place, as new files: the ones before may still be mapped into memory."""
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(data)

"""What files are made of: tokens that a mutation can take out, repeat, move or replace by hostile ones."""

from __future__ import annotations

import json
import pickle
import pickletools
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

HUGE = (2**31 - 1, 2**31, 2**32 - 1, 2**53 + 1, 10**12, 2**63 - 1, 2**63, 2**64, 10**30)


@dataclass(frozen=True)
class Format:
    """How files of a kind are taken apart, what is put into them, and how they are made to fit again.

    Attributes:
        split: Into tokens, which joined are the file.
        values: Tokens that can stand where a value stands.
        names: Those that can stand where a name stands; without, there are no names.
        others: Tokens that fit nowhere.
        between: What parts two elements of a list.
        mend: Corrects lengths that the damage made wrong, so that what lies behind them is reached.
    """

    split: Callable[[bytes], list[bytes]]
    values: tuple[bytes, ...]
    names: tuple[bytes, ...] = ()
    others: tuple[bytes, ...] = ()
    between: bytes = b","
    mend: Callable[[bytes], bytes] = lambda data: data


_TEXT = re.compile(
    rb"""
    "(?:[^"\\\n]|\\.)*"             # a string
    | \[\d+(?:,\ \d+){99,}\]        # the state of a random generator
    | -?\d[\d.eE+-]*                # a number
    | [^\W\d][\w.-]*                # a word: a key of TOML, true, null
    | [\[\]{}:,=\n]
    | [^\[\]{}:,=\n"\w]+ | .        # all else, so that nothing is lost
    """,
    re.VERBOSE | re.DOTALL,
)

_NUMBERS = tuple(
    b"0 -1 1 2 3 4 8 16 0.5 -0.0 1e-400 1e-310 1e400 -1e400 1e308 3e38".split()
) + tuple(str(number).encode() for number in HUGE)  # fmt: skip
_NAMES = (
    b'""', b'"\\u0000"', b'"../../up"', b'"/etc/passwd"', b'".."', b'"~"', b'"$HOME"', b'"$NOWHERE"',
    b'"' + b"x" * 5000 + b'"', '"ä/…"'.encode(), b'"a b"', b'"-"', b'"1"', b'"cuda:99999999999"',
)  # fmt: skip
_BOTH = (
    *_NUMBERS, *_NAMES, b"9" * 4000, b"true", b"false", b"{}", b"[]", b"[[1]]", b'["a", 1]',
    b"[" * 90 + b"]" * 90,
)  # fmt: skip
_JSON = (*_BOTH, b"null", b'{"a": 1, "a": 2}', b"NaN", b"-Infinity", b'"\\ud800"')
_TOML = (*_BOTH, b"{ a = 1 }", b"nan", b"-inf", b"1979-05-27", b"07:32:00")
_BREAKING = (
    b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b"[" * 3000 + b"]" * 3000, b"\xff\xfe", b"\xef\xbb\xbf",
    b"\x00", b"\n", b",", b":", b"=", b'"', b'"\\', b"]", b"}", b"#",
)  # fmt: skip


def _text(data: bytes) -> list[bytes]:
    return _TEXT.findall(data)


def text(words: str = "", *more: str, toml: bool = False) -> Format:
    """JSON or TOML; ``words``, and ``more``, are those that mean something in such a file."""
    names = (*_NAMES, *(json.dumps(word).encode() for word in (*words.split(), *more)))
    values = (_TOML if toml else _JSON) + names[len(_NAMES) :]
    return Format(_text, values, names, _BREAKING, b"\n" if toml else b",")


CONTENT = text(
    "train valid dev test id raw_text text text_bert audio vision audio_lengths text_lengths "
    "regression_labels array dtype f2 f4 f8 i1 i8 u8 c16 b1 O U9 S3"
)

_LENGTH = struct.Struct("<Q")


def _safetensors(data: bytes) -> list[bytes]:
    end = 8 + _LENGTH.unpack(data[:8])[0]
    return [data[:8], *_text(data[8:end]), data[end:]]


def _mend_safetensors(data: bytes) -> bytes:
    """Corrects the length of the header, which ends at the last brace of text."""
    end = re.match(rb".{8}[\x20-\x7e]*[}]\s*", data, re.DOTALL)
    return data if end is None else _LENGTH.pack(end.end() - 8) + data[8:]


def _npy(data: bytes) -> list[bytes]:
    end = 10 + int.from_bytes(data[8:10], "little")
    return [data[:10], *_text(data[10:end]), *(data[i : i + 4] for i in range(end, len(data), 4))]


_NUMPY = text("shape descr fortran_order <f4 <i8 >f4 |O")
NPY = Format(
    _npy,
    (
        *_NUMPY.values, b"(1000000000000,)", b"(0, 1)", b"(-1,)", b"'|O'", b"'<f8'", b"True", bytes(4),
        *(_LENGTH.pack(min(number, 2**64 - 1))[:4] for number in HUGE),
        b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f",
    ),
    _NUMPY.names,
    _BREAKING,
    between=b", ",
)  # fmt: skip

_HEADER = text(
    "F64 F32 F16 BF16 F8_E4M3 F8_E5M2 I64 U64 U8 BOOL C64 F4 X9 "
    "dtype shape data_offsets __metadata__ random.torch"
)
SAFETENSORS = Format(
    _safetensors,
    (
        *_HEADER.values,
        b"[1000000000000]", b"[1000000, 1000000]", b"[4294967296, 4294967296]", b"[0, 1000000000000]",
        b"[1000000000000, 0]", b"[0, 1000000000000]", b"[8, 0]", b"[0]", b"[-1]",
        *(_LENGTH.pack(min(number, 2**64 - 1)) for number in (*HUGE, 0, 100_000_000)),
    ),
    _HEADER.names,
    _BREAKING,
    mend=_mend_safetensors,
)  # fmt: skip


BYTES = Format(
    lambda data: [data[at : at + 4] for at in range(0, len(data), 4)],
    (*(_LENGTH.pack(min(number, 2**64 - 1)) for number in (*HUGE, 0, 1, 2, 100)), bytes(4), b"\xff" * 4, b""),
)


def _pickle(data: bytes) -> list[bytes]:
    """Instruction by instruction."""
    starts = [position for _, _, position in pickletools.genops(data)]
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _mend_pickle(data: bytes) -> bytes:
    """Removes framing, whose lengths would be wrong."""
    return re.sub(rb"\A(\x80.)\x95.{8}", rb"\1", data, flags=re.DOTALL)


PICKLE = Format(
    _pickle,
    (
        *(opcode.code.encode("latin1") for opcode in pickletools.opcodes),
        *(pickle.dumps(number, 2)[2:-1] for number in (*HUGE, -1, 0, 1, 2, 3)),
        *(pickle.dumps(text, 2)[2:-1] for text in ("", *"x<>|", "f8", "O8", "U9", "S1", "c16", "latin1")),
        *(pickle.dumps(value, 4)[11:-1] for value in (float("nan"), 1e308, 1j, b"", bytes(8), (0,), (1, 2))),
        b"I" + b"9" * 5000 + b"\n", b"F1e400\n", b"L-1L\n", b"V\\ud800\n", b"S'\\xff'\n",
        b"\x8e" + _LENGTH.pack(10**12), b"\x8d" + _LENGTH.pack(10**12), b"\x96" + _LENGTH.pack(10**12),
        b"\x95" + _LENGTH.pack(10**12), b"B\xff\xff\xff\xff", b"X\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f",
        b"r\xff\xff\xff\xff", b"j\xff\xff\xff\xff", b"h\x00", b"h\x01", b"h\x05", b"q\x00",
        b"K\x01\x85", b")", b"]" * 3000, b"\x85" * 3000, b"(" * 3000, b"\x94" * 3000, b"N" * 3000,
        _name("os", "system"), _name("builtins", "eval"), _name("numpy", "dtype"), _name("numpy", "ndarray"),
        _name("numpy.core.multiarray", "_reconstruct"), _name("numpy._core.multiarray", "scalar"),
        _name("numpy._core.numeric", "_frombuffer"), _name("_codecs", "encode"),
        _name("collections", "OrderedDict"), _name("collections", "defaultdict"), _name("builtins", "set"),
        _name("builtins", "frozenset"), _name("builtins", "bytes"), _name("__builtin__", "int"),
        _name("numpy", "fromfile"), _name("mmiln.data.formats.unpickle", "Path"),
        b"cos\nsystem\n(X\x04\x00\x00\x00truetR",
    ),
    mend=_mend_pickle,
)  # fmt: skip

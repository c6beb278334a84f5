"""Opens pickles of arrays and plain containers, and nothing else.

A pickle is a program. This unpickler runs it without dangerous instructions: it refuses the opcodes that
could call, import or persist something, REDUCE and BUILD reach only the builders below (none of which is
an outside function), and sizes that a file claims are checked against its contents before memory is
allocated. Large array contents are mapped rather than read: a file of many gigabytes costs only the memory
of the parts that are accessed.
"""

from __future__ import annotations

import math
import mmap
import pickle
import re
import struct
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sized
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as show  # a bounded repr, as the shown values come from the file
from typing import Any, BinaryIO, Final, Literal, NoReturn

import numpy as np

from mmiln.data.formats.plain import SCALARS, check_plain, unsafe
from mmiln.data.formats.sniff import foreign
from mmiln.errors import DataError, MissingFileError

MAX_OBJECTS: Final = 5_000_000  # containers and memo entries; MISA's CMU-MOSEI needs 2 million
MAX_GROWTH: Final = 8  # bytes that builders may produce for each byte of the file

_SMALL_READ: Final = 1 << 16
_MAPPED: Final = 1 << 20  # contents of at least this many bytes are mapped, not read
_BYTES: Final = (bytes, memoryview)
_DTYPES: Final = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|O8|[SU][1-9]\d{0,8}")

_DAMAGED: Final = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


def load_pickle(path: str | Path) -> Any:
    """Read one pickle of numpy arrays and plain containers without running any of its code.

    Admitted are dict, OrderedDict, defaultdict (of list, dict, int, float or str), list, tuple,
    set, frozenset, str, bytes, numbers, None, numpy arrays and scalars; arrays of objects may hold
    only these. Strings in files of Python 2 are decoded as latin1. Arrays may be read-only.
    Large ones are views of the file, which must not change while they are in use; other bytes objects
    of a mebibyte and more are such views too, as a memoryview.

    Raises:
        MissingFileError: there is no such file.
        UnsafePickleError: the file asks for anything else, or for far more memory than it holds.
        DataError: the file is not a pickle, or a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"expected a pickle file, but there is none at {str(path)!r}")
    size = path.stat().st_size
    if other := foreign(path):
        raise DataError(f"{path.name} is not a readable pickle, but {other}")
    with path.open("rb") as file:
        try:
            value = _PlainUnpickler(file, size).load()
            check_plain(value)
        except DataError as error:
            raise type(error)(f"{path.name}: {error}") from None
        except _DAMAGED as error:
            said = "" if isinstance(error, KeyError) else f" ({type(error).__name__}: {error})"
            file.seek(0)
            raise DataError(
                f"{path.name} is not a readable pickle{said}: it is cut short, damaged or of another format; "
                f"its first bytes are {file.read(8)!r}"
            ) from None
    return value


@dataclass(frozen=True)
class _Builder:
    """Replaces a global that a pickle may name; calling it runs ``build``."""

    name: str
    build: Callable[..., Any]


@dataclass
class _Dtype:
    """A dtype under construction, kept apart from numpy so that BUILD can't corrupt one."""

    value: np.dtype[Any]


class _CheckedFile:
    """Refuses a read of more bytes than the file has, before the bytes are allocated."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._view: memoryview | None = None
        self.readline = file.readline

    def read(self, n: int) -> bytes:
        self._check_left(n)
        return self._file.read(n)

    def map(self, n: int) -> memoryview:
        """The next bytes as a view of the file."""
        self._check_left(n)
        if self._view is None:
            self._view = memoryview(mmap.mmap(self._file.fileno(), self._size, access=mmap.ACCESS_READ))
        at = self._file.tell()
        self._file.seek(at + n)
        return self._view[at : at + n]

    def _check_left(self, n: int) -> None:
        if n > _SMALL_READ and n > (left := self._size - self._file.tell()):
            message = f"a value claims {n} bytes where {left} are left in the file"
            if n > self._size:
                raise unsafe(message)
            raise DataError(f"{message}: it is cut short")


class _PlainUnpickler(pickle._Unpickler):
    """The pure-Python unpickler, as its opcodes can be replaced and the C one's can't."""

    stack: list[Any]
    read: Callable[[int], bytes]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    memo: dict[int, Any]
    _unframer: Any

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = _CheckedFile(file, size)
        super().__init__(self._file, encoding="latin1")
        self._size = size
        self._objects = 0
        self._produced = 0
        array = _Builder("numpy.ndarray", self._direct_array)
        numpy_builders: dict[str, Callable[..., Any]] = {
            "multiarray._reconstruct": self._blank_array,
            "multiarray.scalar": self._scalar,
            "numeric._frombuffer": self._array_from_buffer,
        }
        self._globals: dict[str, Any] = {
            "numpy.ndarray": array,
            "numpy.dtype": _Builder("numpy.dtype", self._dtype),
            "_codecs.encode": _Builder("_codecs.encode", self._encode),
            "collections.OrderedDict": _Builder("OrderedDict", self._ordered_dict),
            "collections.defaultdict": _Builder("defaultdict", self._default_dict),
        }
        for core in ("numpy.core", "numpy._core"):
            for name, build in numpy_builders.items():
                self._globals[f"{core}.{name}"] = _Builder(name, build)
        for builtins in ("builtins", "__builtin__"):
            self._globals |= {f"{builtins}.{t.__name__}": t for t in (list, dict, int, float, str)}
            self._globals[f"{builtins}.set"] = _Builder("set", self._set)
            self._globals[f"{builtins}.frozenset"] = _Builder("frozenset", self._frozenset)
            self._globals[f"{builtins}.bytes"] = _Builder("bytes", self._empty_bytes)
        self._array_class = array

    def find_class(self, module: str, name: str) -> Any:
        # A dotted name walks attributes (numpy + "os.system"), so it never matches a simple one.
        if "." not in name and f"{module}.{name}" in self._globals:
            return self._globals[f"{module}.{name}"]
        raise unsafe(f"the pickle asks for the global {module + '.' + name!r}")

    # -- budgets -------------------------------------------------------------------------------

    def _count(self, objects: int) -> None:
        self._objects += objects
        if self._objects > MAX_OBJECTS:
            raise unsafe(f"the pickle makes more than {MAX_OBJECTS} containers")

    def _produce(self, nbytes: int) -> None:
        self._produced += nbytes
        if self._produced > MAX_GROWTH * self._size:
            raise unsafe(f"the pickle grows to more than {MAX_GROWTH} times the size of its file")

    # -- builders ------------------------------------------------------------------------------

    def _dtype(self, code: Any, *_: Any) -> _Dtype:
        if not isinstance(code, str) or not _DTYPES.fullmatch(code):
            raise unsafe(f"the pickle asks for the array type {show(code)}")
        return _Dtype(np.dtype(code))

    def _direct_array(self, *_: Any) -> NoReturn:
        raise unsafe("an array is constructed directly")

    def _blank_array(self, kind: Any, shape: Any, code: Any) -> np.ndarray[Any, Any]:
        if kind is not self._array_class or shape != (0,) or code not in ("b", b"b"):
            raise unsafe(f"an array is reconstructed with shape {show(shape)} instead of (0,)")
        return np.ndarray((0,), np.int8)

    def _scalar(self, dtype: Any, data: Any) -> Any:
        if isinstance(data, str):
            data = self._encode(data, "latin1")
        return self._numbers(dtype, data, (1,))[0]

    def _array_from_buffer(
        self, data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None
    ) -> np.ndarray[Any, Any]:
        array = self._numbers(dtype, data, shape)
        if order == "K" and axes is not None:
            return array.reshape(shape).transpose(axes)
        return array.reshape(shape, order=order)

    def _numbers(self, dtype: Any, data: Any, shape: Any) -> np.ndarray[Any, Any]:
        """A flat array over ``data``, refused unless type, shape and byte count agree."""
        self._check_array(dtype, shape, data, _BYTES)
        return np.frombuffer(data, dtype.value)

    def _check_array(self, dtype: Any, shape: Any, data: Any, kinds: tuple[type[Sized], ...]) -> None:
        if not isinstance(dtype, _Dtype) or not isinstance(data, kinds):
            raise unsafe("an array comes with a type or content that is not one")
        if type(shape) is not tuple or len(shape) > 64 or not all(type(n) is int and n >= 0 for n in shape):
            raise unsafe(f"an array claims the shape {show(shape)}")
        elements = math.prod(shape)
        raw = kinds is _BYTES
        itemsize = dtype.value.itemsize if raw else 1
        bound = math.prod(max(n, 1) for n in shape)
        if elements * itemsize != len(data) or bound > self._size or dtype.value.hasobject == raw:
            raise unsafe(f"an array claims the shape {show(shape)} of {dtype.value} for {len(data)} entries")
        if isinstance(data, _BYTES) and dtype.value.kind == "U":
            codes = np.frombuffer(data, np.dtype("u4").newbyteorder(dtype.value.byteorder))
            if codes.max(initial=0) > sys.maxunicode:  # numpy would fail on reading it
                raise unsafe("an array of text holds what are no characters")
        self._produce(elements * dtype.value.itemsize)

    def _encode(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise unsafe(f"the pickle encodes text as {show(encoding)}")
        self._produce(len(text))
        return text.encode("latin1")

    def _items(self, items: Any) -> list[Any]:
        if type(items) is not list:
            raise unsafe(f"a container is made from {type(items).__name__}")
        self._count(len(items))
        return items

    def _ordered_dict(self, pairs: Any = None) -> OrderedDict[Any, Any]:
        result: OrderedDict[Any, Any] = OrderedDict()
        for key, value in self._items(pairs or []):
            result[_key(key)] = value
        return result

    def _default_dict(self, factory: Any = None) -> defaultdict[Any, Any]:
        if factory not in (None, list, dict, int, float, str):
            raise unsafe(f"a defaultdict is made with {show(factory)}")
        return defaultdict(factory)

    def _set(self, items: Any = None) -> set[Any]:
        return {_key(item) for item in self._items(items or [])}

    def _frozenset(self, items: Any = None) -> frozenset[Any]:
        return frozenset(self._set(items))

    def _empty_bytes(self) -> bytes:
        return b""

    # -- opcodes -------------------------------------------------------------------------------

    def load_reduce(self) -> None:
        args = self.stack.pop()
        builder = self.stack[-1]
        if not isinstance(builder, _Builder) or type(args) is not tuple:
            raise unsafe(f"the pickle calls {show(builder)}")
        self._count(1)
        self.stack[-1] = builder.build(*args)

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, _Dtype):
            # (version, byte order, subarray, names, fields, element size, alignment, flags)
            if type(state) is not tuple or len(state) != 8 or state[2:5] != (None, None, None):
                raise unsafe("the pickle holds an array of records")
            target.value = target.value.newbyteorder(state[1])
        elif isinstance(target, np.ndarray):
            self._fill(target, state)
        else:
            raise unsafe(f"the pickle sets the state of {type(target).__name__}")

    def _fill(self, array: np.ndarray[Any, Any], state: Any) -> None:
        if type(state) is not tuple or len(state) != 5 or array.shape != (0,):
            raise unsafe("an array's state is not (version, shape, type, order, data)")
        _, shape, dtype, fortran, data = state
        if isinstance(data, str):
            data = self._encode(data, "latin1")  # the bytes of Python 2
        self._check_array(dtype, shape, data, (list,) if type(data) is list else _BYTES)
        if isinstance(data, memoryview):
            order: Literal["C", "F"] = "F" if fortran else "C"
            self._replace(array, np.frombuffer(data, dtype.value).reshape(shape, order=order))
        else:
            array.__setstate__((1, shape, dtype.value, bool(fortran), data))  # type: ignore[arg-type]

    def _replace(self, blank: np.ndarray[Any, Any], array: np.ndarray[Any, Any]) -> None:
        """Puts an array in the place of the blank one, on the stack and in the memo."""
        self.stack[-1] = array
        for key in reversed(self.memo):  # it was put there a few entries ago
            if self.memo[key] is blank:
                self.memo[key] = array
                break

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def _set_items(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], dict):
            raise unsafe(f"the pickle sets items of {type(self.stack[-1]).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][_key(key)] = value

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise unsafe(f"the pickle appends to {type(self.stack[-1]).__name__}")
        self.stack[-1].extend(items)

    def load_additems(self) -> None:
        items = self.pop_mark()
        if type(self.stack[-1]) is not set:
            raise unsafe(f"the pickle adds to {type(self.stack[-1]).__name__}")
        self.stack[-1].update(_key(item) for item in items)

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self._count(1)
        self.append(frozenset(_key(item) for item in items))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self._count(1)
        self.append({})
        self._set_items(items)

    def load_binbytes(self) -> None:
        self.append(self._content(struct.unpack("<I", self.read(4))[0]))

    def load_binbytes8(self) -> None:
        self.append(self._content(struct.unpack("<Q", self.read(8))[0]))

    def load_bytearray8(self) -> None:
        # As bytes, since the standard opcode allocates the claimed size before it reads.
        self.load_binbytes8()

    def _content(self, n: int) -> bytes | memoryview:
        frame = self._unframer.current_frame  # large bytes are outside of frames
        framed = frame is not None and frame.tell() < frame.getbuffer().nbytes
        return self.read(n) if framed or n < _MAPPED else self._file.map(n)

    def load_forbidden(self) -> None:
        raise unsafe("the pickle uses an instruction that makes foreign objects or reads from outside")


def _key(key: Any) -> Any:
    # Hashing a deeply nested tuple overflows the C stack, so keys are scalars.
    if not isinstance(key, (*SCALARS, np.generic)):
        raise unsafe(f"a dict or set has a {type(key).__name__} as key")
    return key


def _counted(opcode: Callable[[Any], None]) -> Callable[[Any], None]:
    def load(unpickler: _PlainUnpickler) -> None:
        unpickler._count(1)
        opcode(unpickler)

    return load


def _dispatch() -> dict[int, Callable[[Any], None]]:
    """The standard opcode table with budgets, checks and refusals added."""
    counted = (
        "MARK EMPTY_LIST EMPTY_DICT EMPTY_SET LIST TUPLE TUPLE1 TUPLE2 TUPLE3 MEMOIZE PUT BINPUT LONG_BINPUT"
    )
    forbidden = "PERSID BINPERSID INST OBJ NEWOBJ NEWOBJ_EX EXT1 EXT2 EXT4 NEXT_BUFFER READONLY_BUFFER"
    replaced = (
        "REDUCE BUILD SETITEM SETITEMS APPEND APPENDS ADDITEMS FROZENSET DICT BINBYTES BINBYTES8 BYTEARRAY8"
    )
    table: dict[int, Callable[[Any], None]] = dict(pickle._Unpickler.dispatch)
    for name in counted.split():
        code = getattr(pickle, name)[0]
        table[code] = _counted(table[code])
    for name in replaced.split():
        table[getattr(pickle, name)[0]] = getattr(_PlainUnpickler, f"load_{name.lower()}")
    for name in forbidden.split():
        table[getattr(pickle, name)[0]] = _PlainUnpickler.load_forbidden
    return table


_PlainUnpickler.dispatch = _dispatch()

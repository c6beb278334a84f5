"""What a pickle may contain: numpy arrays and plain containers, of bounded depth and size."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from mmiln.errors import UnsafePickleError

MAX_DEPTH: Final = 100  # real files nest six deep
MAX_EXPANDED: Final = 50_000_000  # values on a walk that enters shared containers each time
SCALARS: Final = (str, bytes, int, float, complex, bool, type(None))


def unsafe(what: str) -> UnsafePickleError:
    """The error to raise: what was found, what is admitted, what to do."""
    return UnsafePickleError(
        f"{what}; only numpy arrays and plain containers (dict, list, tuple, set, str, bytes, "
        "numbers) are admitted. Nothing was run. Save the data again as these types, or do not "
        "trust the file"
    )


def _children(node: Any) -> Iterable[Any]:
    """The members of a container, none for a leaf; refuses anything else."""
    kind = type(node)
    if kind in (list, tuple, set, frozenset):
        return list(node)
    if kind in (dict, OrderedDict, defaultdict):
        return [*node.keys(), *node.values()]
    if kind is np.ndarray:
        return node.ravel().tolist() if node.dtype.hasobject else ()
    if kind in SCALARS or kind is memoryview or isinstance(node, np.generic):
        return ()
    name = getattr(node, "name", kind.__name__)
    raise unsafe(f"the pickle holds {name} as a value")


def check_plain(root: Any) -> None:
    """Refuse foreign values, cycles, deep nesting, and shared containers that expand without bound."""
    sizes: dict[int, tuple[int, int]] = {}  # id -> (values below, depth)
    entered: set[int] = set()
    todo = [(root, False)]
    while todo:
        node, leaving = todo.pop()
        if leaving:
            below = [sizes.get(id(child), (1, 1)) for child in _children(node)]
            size = 1 + sum(values for values, _ in below)
            depth = 1 + max((depth for _, depth in below), default=0)
            if size > MAX_EXPANDED or depth > MAX_DEPTH:
                raise unsafe(f"the pickle nests {depth} deep and unfolds to {size} values")
            sizes[id(node)] = (size, depth)
            entered.discard(id(node))
        elif id(node) in entered:
            raise unsafe("the pickle holds a container that contains itself")
        elif id(node) not in sizes:
            children = _children(node)
            if children:
                entered.add(id(node))
                todo.append((node, True))
                todo.extend((child, False) for child in children if type(child) not in SCALARS)

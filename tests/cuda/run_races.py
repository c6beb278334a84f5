"""Runs kernels whose blocks are threads of the system; to be started under ThreadSanitizer.

`run_races.py FOLDER reverse BARRIER`: the kernel of race.cu. `run_races.py FOLDER ops NAME ...`: operations,
forward and backward, with dropout; what stands on standard error after `== NAME` is of that one.
"""

import ctypes
import sys
from pathlib import Path


def reverse(folder: Path, barrier: bool) -> None:
    class Reverse(ctypes.Structure):
        _fields_ = (("x", ctypes.c_void_p), ("barrier", ctypes.c_int))

    x = (ctypes.c_float * 64)(*range(64))
    call = Reverse(ctypes.addressof(x), barrier)
    run = ctypes.CDLL(folder / "float.so").shim_reverse
    run.restype = ctypes.c_char_p
    error = run(1, 1, 1, 64, 0, ctypes.byref(call), ctypes.c_size_t(ctypes.sizeof(call)))
    assert error is None, error
    print(list(x) == [63 - i for i in range(64)])


def ops(folder: Path, names: list[str]) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import torch

    torch.set_num_threads(1)
    from mmiln import _core
    from mmiln import functional as F
    from support.functional_cases import OPS, Case, gradients

    _core.emulate_kernels(folder)
    for name in names:
        print(f"== {name}", file=sys.stderr, flush=True)
        op = OPS[name]
        case = Case(7, (3, 1, 9), {"dropout": 0.3, "seed": 5} if op.has_dropout else {})
        gradients(op, F, op.draw(case, torch.float32), case)
    print("== end", file=sys.stderr, flush=True)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if sys.argv[2] == "reverse":
        reverse(folder, bool(int(sys.argv[3])))
    else:
        ops(folder, sys.argv[3:])

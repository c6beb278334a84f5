"""What runs under compute-sanitizer: `python tests/gpu/sanitize.py PART ...`, in a process with
`PYTORCH_NO_CUDA_MEMORY_CACHING=1`, so that each tensor's memory ends where the tensor ends.

`outside` and `race` are faults, proof that the tool finds them; `barrier` is the race, mended. `ops`: every
operation, forward and backward, with dropout. `step`: steps of training, one by one.
"""

import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

REVERSE = """
extern "C" __global__ void reverse(float* x, int count, int barrier) {
  __shared__ float own[64];
  own[threadIdx.x] = x[threadIdx.x];
  if (barrier) __syncthreads();
  if (threadIdx.x < count) x[threadIdx.x] = own[63 - threadIdx.x];
}
"""


def reverse(numbers: int, barrier: bool) -> None:
    """Reverses 64 numbers by way of shared memory, two warps of a block; all 64 are written."""
    os.environ.setdefault(
        "CUDA_HOME", "/usr/local/cuda"
    )  # which torch asks for, though nothing is read of it
    x = torch.arange(float(numbers), device="cuda")
    kernel = torch.cuda._compile_kernel(REVERSE, "reverse")
    kernel(grid=(1, 1, 1), block=(64, 1, 1), args=[x, 64, int(barrier)])
    torch.cuda.synchronize()
    print(f"reversed: {x[:numbers].tolist() == list(range(numbers - 1, -1, -1))}")


def ops() -> None:
    from mmiln import functional as F
    from support.functional_cases import OPS, Case, gradients

    for name, op in OPS.items():
        extra = {"dropout": 0.3, "seed": 5} if op.has_dropout else {}
        for width in (7, 50, 64):
            for dtype in (torch.float32, torch.float64):
                case = Case(width, (3, 1, 40, 17), extra)
                gradients(op, F, op.draw(case, dtype, device="cuda"), case)
        torch.cuda.synchronize()
        print(name, flush=True)


def step() -> None:
    from reference import configs
    from support.device_runs import new_model, train
    from support.utterances import SMALL, ragged

    for width, heads in ((4, 2), (50, 5)):
        config = configs.tiny(d_model=width, num_heads=heads)
        run = train(new_model("cuda", **config), ragged(config, SMALL, (5, 3)), epochs=2)
        assert run.losses.isfinite().all()
    print("step")


PARTS = {
    "outside": lambda: reverse(32, barrier=True),
    "race": lambda: reverse(64, barrier=False),
    "barrier": lambda: reverse(64, barrier=True),
    "ops": ops,
    "step": step,
}

if __name__ == "__main__":
    for part in sys.argv[1:]:
        PARTS[part]()

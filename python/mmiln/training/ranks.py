"""The processes that torchrun starts to train one model together, and their communication.

Each process has a rank, counted from 0; only the first one, of rank 0, writes files and shows anything.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from ..errors import DistributedError
from .device import device_name

T = TypeVar("T")


def is_first() -> bool:
    """Whether this process may write and print: it is alone, or of rank 0.

    >>> is_first()
    True
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return not launched() or os.environ.get("RANK", "0") == "0"


def launched() -> bool:
    """Whether torchrun has started this process, as one of several or alone."""
    return dist.is_available() and dist.is_torchelastic_launched()


def restarted() -> bool:
    """Whether torchrun has started this process anew, after one has failed (``--max-restarts``)."""
    return launched() and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def own_card(device: str | torch.device) -> str:
    """The device of this process: for "cuda", each one of torchrun's on a machine has its own card.

    >>> own_card("cpu")
    'cpu'
    """
    name = device_name(device)
    return f"cuda:{os.environ['LOCAL_RANK']}" if name == "cuda" and launched() else name


@dataclass(frozen=True)
class Ranks:
    """This process among ``size``.

    Every method but :meth:`here` is collective: all processes must call it at the same place.

    Raises:
        DistributedError: Another process has ended or can't be reached.
    """

    rank: int
    size: int
    device: str

    @classmethod
    def here(cls, device: str) -> Self | None:
        """The processes that this one trains with; ``None`` where it is alone.

        Joins them where the user has not (``torch.distributed.init_process_group``): by gloo on the CPU, NCCL
        between cards.
        """
        if not dist.is_available():
            return None
        if not dist.is_initialized():
            if not launched() or os.environ.get("WORLD_SIZE") == "1":
                return None
            with _as_distributed_error("joining the others"):
                _join(device)
        size = dist.get_world_size()
        return cls(dist.get_rank(), size, device) if size > 1 else None

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows what there is to show."""
        return self.rank == 0

    def of_first(self, thing: T | None) -> T:
        """The picklable object of the first process; those of the others are ignored."""
        things: list[Any] = [thing]
        with _as_distributed_error("waiting for the first"):
            dist.broadcast_object_list(things, src=0)
        return things[0]  # type: ignore[no-any-return]

    def of_all(self, thing: T) -> list[T]:
        """The picklable objects of all processes, by rank."""
        things: list[Any] = [None] * self.size
        with _as_distributed_error("exchanging values"):
            dist.all_gather_object(things, thing)
        return things

    def numbers_of_all(self, *numbers: int) -> list[list[int]]:
        """A few whole numbers of each process, by rank."""
        own = torch.tensor(numbers, dtype=torch.int64)
        all_ = [torch.empty_like(own) for _ in range(self.size)]
        with _as_distributed_error("exchanging values"):
            dist.all_gather(all_, own)
        return [numbers.tolist() for numbers in all_]

    def rows_of_all(self, rows: Tensor | None, sizes: list[int], like: Tensor) -> list[Tensor]:
        """Rows (n, w) of each process, by rank, where ``sizes`` holds every n; ``None`` where n is 0.

        ``like`` is a tensor of their dtype and on their device; all rows are equally wide.
        """
        (width,) = {numbers[0] for numbers in self.numbers_of_all(0 if rows is None else rows.shape[1])} - {0}
        padded = like.new_zeros(max(sizes), width)
        if rows is not None:
            padded[: len(rows)] = rows
        all_ = [torch.empty_like(padded) for _ in range(self.size)]
        with _as_distributed_error("gathering features"):
            dist.all_gather(all_, padded)
        return [rows[:size] for rows, size in zip(all_, sizes, strict=True)]

    def add_up(self, x: Tensor) -> None:
        """Replaces ``x`` by its sum over all processes, the same bits in each."""
        with _as_distributed_error("adding up gradients"):
            dist.all_reduce(x)

    def fill_from_first(self, *tensors: Tensor) -> None:
        """Overwrites tensors with those of the first process."""
        with _as_distributed_error("waiting for the first"):
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def tensors_of_first(self, tensors: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """Tensors by name of the first process, on the CPU; those of the others are ignored."""
        like = None if tensors is None else {n: (list(t.shape), t.dtype) for n, t in tensors.items()}
        like = self.of_first(like)
        if not self.first or tensors is None:
            tensors = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in like.items()}
        self.fill_from_first(*tensors.values())
        return tensors

    def wait(self) -> None:
        """Waits until all processes are here."""
        with _as_distributed_error("waiting for the others"):
            dist.barrier()


@contextmanager
def _as_distributed_error(doing: str) -> Iterator[None]:
    """Raises errors of torch's communication as a :class:`DistributedError`."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        rank, size = os.environ.get("RANK", "?"), os.environ.get("WORLD_SIZE", "?")
        raise DistributedError(
            f"process {rank} of {size} (ranks count from 0) lost the others while {doing}: one of them has "
            "ended, its own output says why, or the network between them is gone. Checkpoints, where the run "
            f"keeps any, are whole. torch says: {str(error).strip().partition(chr(10))[0]}"
        ) from error


def _join(device: str) -> None:
    if device != "cpu":
        torch.cuda.set_device(device)
    # torchrun's store outlives a restart: with the keys of the last ones, new processes would wait for ever.
    store, rank, size = next(rendezvous("env://"))
    store = PrefixStore(f"mmiln-{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()

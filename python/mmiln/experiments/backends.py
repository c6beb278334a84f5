"""Chooses where runs are performed: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

from ..errors import ConfigError
from .pool import Pool
from .ray_pool import RayPool


def pool_of(backend: str, jobs: int, address: str | None) -> Pool | RayPool:
    """The pool that performs ``jobs`` runs at a time.

    Raises:
        ConfigError: There is no such backend, its package is not installed, or it has no address.
    """
    if backend == "ray":
        return RayPool(jobs, address)
    if backend != "local":
        raise ConfigError(f'backend must be "local" or "ray", got {backend!r}')
    if address is not None:
        raise ConfigError(f'an address is that of a Ray cluster, got {address!r}: give backend="ray" too')
    return Pool(jobs)

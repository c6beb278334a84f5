"""Waiting for what another process or thread does: for a state, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

State = TypeVar("State")

HANG_S = 600  # so long is nothing on the busiest machine; it only ends what hangs


def until(state: Callable[[], State], what: str) -> State:
    """The value of ``state`` once it is true; if it never is, the error names ``what`` was waited for."""
    end = time.monotonic() + HANG_S
    while not (found := state()):
        assert time.monotonic() < end, f"after {HANG_S} s still not: {what}"
        time.sleep(0.02)
    return found

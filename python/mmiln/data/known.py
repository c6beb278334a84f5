"""Fingerprints kept from the conversion, so that the contents need not be read to compute them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """Fingerprints of a split or a data set, valid while its contents are unchanged.

    Attributes:
        contents: its ``contents()`` at that time; sequences of arrays are compared by identity.
        fingerprint: its ``fingerprint()``.
        standardized: its ``fingerprint()`` once standardized; None where it can't be.
    """

    contents: object
    fingerprint: str
    standardized: str | None = None

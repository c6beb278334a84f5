"""Fingerprints that were computed once and kept, of contents that would have to be read for them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """What is known of a split or a data set for as long as its contents are these.

    Attributes:
        contents: what its ``contents()`` was; sequences of arrays are compared by identity.
        fingerprint: what its ``fingerprint()`` is.
        standardized: the same of what is standardized; None where it can't be.
    """

    contents: object
    fingerprint: str
    standardized: str | None = None

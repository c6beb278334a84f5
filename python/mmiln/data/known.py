"""Fingerprints that were computed once and kept, of contents that would have to be read for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmiln.data.standardizer import Standardizer


@dataclass(frozen=True)
class Known:
    """What is known of a split or a data set for as long as its contents are these.

    Attributes:
        contents: what its ``contents()`` was; sequences of arrays are compared by identity.
        fingerprint: what its ``fingerprint()`` is.
        standardized: the same of what is standardized; None where it can't be.
        standardizer: of a data set: fitted on train.
    """

    contents: object
    fingerprint: str
    standardized: str | None = None
    standardizer: Standardizer | None = None

"""Plain data with a fixed set of fields, and its validation errors as text."""

from __future__ import annotations

import pydantic


class Plain(pydantic.BaseModel):
    """Plain data with a fixed set of fields, to and from JSON."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def faults(error: pydantic.ValidationError, whole: str = "the whole") -> list[str]:
    """Each fault with the field's name, or with ``whole`` if it concerns the data as a whole."""
    return [f"{'.'.join(map(str, e['loc'])) or whole}: {e['msg']}" for e in error.errors()]

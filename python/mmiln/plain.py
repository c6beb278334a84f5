"""Plain data of known fields, and what is wrong with some in words."""

from __future__ import annotations

import pydantic


class Plain(pydantic.BaseModel):
    """Plain data of known fields, to and from JSON."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def faults(error: pydantic.ValidationError, whole: str = "the whole") -> list[str]:
    """Every fault and where it is; ``whole`` stands for the data as one."""
    return [f"{'.'.join(map(str, e['loc'])) or whole}: {e['msg']}" for e in error.errors()]

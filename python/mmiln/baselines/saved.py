"""The ``config.json`` of a saved baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import Field

from ..errors import ConfigError
from ..files import read_json
from ..plain import faults
from ..pretrained import Trained

_Width = Annotated[int, Field(ge=0, le=100_000)]


class Saved(pydantic.BaseModel):
    """The ``config.json`` of a saved baseline."""

    model_config = pydantic.ConfigDict(frozen=True, strict=True)

    model_type: Literal["mmiln-baseline"]
    network: str
    preset: str
    dtype: Literal["float32", "float64"]
    label_range: list[float] = [-3.0, 3.0]
    residuals: list[float] | None = None
    widths: dict[Literal["text", "audio", "vision"], _Width]
    settings: dict[str, Any]
    text_encoder: dict[str, Any] | None
    trained: Trained | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads it from a file.

        Raises:
            ConfigError: The file is not the ``config.json`` of a saved baseline.
        """
        try:
            return cls.model_validate(read_json(path))
        except pydantic.ValidationError as error:
            raise ConfigError(f"{path} is not that of a saved baseline: {'; '.join(faults(error))}") from None

"""Files of JSON and TOML, which may come from anywhere: a sentence where they are none."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from .errors import ConfigError, MissingFileError


def read_json(path: Path) -> Any:
    """The content of a file of JSON.

    Raises:
        MissingFileError: There is no such file.
        ConfigError: It is no JSON, nests too deep, or holds strings that are no text.
    """
    try:
        content = json.loads(_text(path))
        json.dumps(content, ensure_ascii=False).encode()  # refuses "\ud800", which no message could show
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, MissingFileError):
            raise
        raise ConfigError(f"{path} can't be read as JSON: {error}") from None
    return content


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a file of TOML.

    Raises:
        MissingFileError: There is no such file.
        ConfigError: It is no TOML, or nests too deep.
    """
    try:
        return tomllib.loads(_text(path))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, MissingFileError):
            raise
        raise ConfigError(f"{path} can't be read as TOML: {error}") from None


def _text(path: Path) -> str:
    if not path.exists():
        raise MissingFileError(f"there is no file {path}")
    return path.read_text(encoding="utf-8")

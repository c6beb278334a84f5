"""The Hugging Face hub: folders by name, down and up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from .errors import ConfigError, MissingFileError, StateError

NAME = re.compile(r"(?!\.)[\w.-]+(/[\w.-]+)?")


def download(name: str, files: Sequence[str], what: str, revision: str | None = None) -> Path:
    """Those ``files`` of a repository that it has, in a folder.

    Raises:
        MissingFileError: The hub does not provide it; says of ``what`` it is the name.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    reasons = {
        RevisionNotFoundError: f"the repository has no revision {revision!r}",
        RepositoryNotFoundError: "there is no such repository, or it is private: `hf auth login`",
        LocalEntryNotFoundError: "it can't be reached, and no earlier download is there",
    }
    try:
        return Path(snapshot_download(name, allow_patterns=list(files), revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = next((why for kind, why in reasons.items() if isinstance(error, kind)), None)
        raise MissingFileError(
            f"{what} {name!r} is not a directory, and the Hugging Face hub did not provide it "
            f"({type(error).__name__}{f': {reason}' if reason else ''})"
        ) from error


def upload(folder: Path, name: str, *, private: bool, message: str) -> str:
    """Puts the files of a folder into a repository, which is made if it is not there; returns its address.

    Raises:
        ConfigError: It is no name of a repository.
        StateError: The hub does not take them.
    """
    from huggingface_hub import HfApi

    if not NAME.fullmatch(name):
        raise ConfigError(f"expected the name of a repository such as 'user/model', got {name!r}")
    hub = HfApi()
    try:
        address = hub.create_repo(name, private=private, exist_ok=True)
        hub.upload_folder(repo_id=address.repo_id, folder_path=folder, commit_message=message)
    except (
        Exception
    ) as error:  # of huggingface_hub, which has no common class, or of the HTTP library beneath
        first = str(error).strip().partition("\n")[0]
        raise StateError(
            f"the Hugging Face hub did not take {name!r} ({type(error).__name__}: {first}): "
            "`hf auth login` stores the token that it asks for"
        ) from error
    return str(address)

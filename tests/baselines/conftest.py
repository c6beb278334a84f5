"""Fixtures of the baselines' tests."""

from pathlib import Path

import pytest

from support.model_checks import save_bert


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT of random weights, with a vocabulary."""
    return save_bert(tmp_path_factory.mktemp("bert"))

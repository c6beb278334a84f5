"""The script that `mypy` reads as a user's does what it says."""

from pathlib import Path

import pytest


def test_the_user_s_script_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent / "typing")
    import user_script

    user_script.main(tmp_path)
    assert (tmp_path / "curve.csv").is_file()
    assert (tmp_path / "model" / "model.safetensors").is_file()

"""The examples of README.md and CONTRIBUTING.md run as they stand."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for example in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        exec(compile(example, "README.md", "exec"), names)
    assert names["history"].epochs == 3
    assert list(names["frame"].columns) == ["id", "index", "label", "score"]
    assert (names["again"].predict(names["data"].test).score == names["frame"]["score"]).all()
    assert names["frames"].grad.shape == (9, 50)
    assert "MAE" in capsys.readouterr().out


def test_the_example_of_a_baseline_runs(capsys):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {"__name__": "example"}
    exec(compile(example, "CONTRIBUTING.md", "exec"), names)
    assert names["model"].history_.epochs == 2
    assert "MAE" in capsys.readouterr().out


def test_commands_are_first_and_exist():
    first = TEXT.index("```")
    assert TEXT.index("make demo") < TEXT.index("```", first + 3)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([\w-]+)", TEXT):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target

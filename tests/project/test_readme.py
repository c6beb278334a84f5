"""The examples of README.md and CONTRIBUTING.md run as they stand; README.zh.md has the same."""

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


FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"\d[\d.,]*\d|\d")


def untranslated(text):
    """What is the same in every language."""
    prose = FENCE.sub("", text)
    return {
        "code": FENCE.findall(text),
        "levels of headings": re.findall(r"^#+(?= )", prose, re.MULTILINE),
        "names": set(re.findall(r"`[^`\n]+`", prose)),
        "rows of tables": [NUMBER.findall(line) for line in prose.splitlines() if line.startswith("|")],
        "numbers": sorted(NUMBER.findall(prose)),
    }


def test_the_chinese_readme_has_the_same_sections_commands_and_numbers():
    chinese = (ROOT / "README.zh.md").read_text(encoding="utf-8")
    assert all(untranslated(TEXT).values())
    assert untranslated(chinese) == untranslated(TEXT)
    assert "](README.zh.md)" in TEXT.split("```")[0]
    assert "](README.md)" in chinese.split("```")[0]

"""Computational sequences of the CMU-MultimodalSDK become unaligned or word-aligned data."""

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmiln.data import convert, load, load_csd
from mmiln.errors import ConfigError, DataError, DataWarning, MissingFileError
from support import sequences

AUDIO, VISION = "CMU_MOSI_COVAREP.csd", "CMU_MOSI_Visual_Facet_42.csd"
WORDS, VECTORS = "CMU_MOSI_TimestampedWords.csd", "CMU_MOSI_TimestampedWordVectors.csd"
LABELS = "CMU_MOSI_Opinion_Labels.csd"


def _mosi(tmp_path: Path, columns: int = 1) -> tuple[Path, dict[str, dict[str, Any]]]:
    content = sequences.mosi(columns)
    folder = sequences.write_all(tmp_path / "cmumosi", content)
    return folder, {name: entries for name, (_, entries) in content.items()}


def test_segments_become_utterances_with_the_frames_that_overlap(tmp_path: Path) -> None:
    folder, content = _mosi(tmp_path)
    data = load(folder)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 6, "valid": 2, "test": 2}
    assert data.name == "cmumosi"
    assert data.dims == {"text": 3, "audio": 4, "vision": 2}
    video = "03bSnISJMiM"
    utterance = next(item for item in data.train if item["id"] == f"{video}[1]")
    assert utterance["raw_text"] == "good film"
    assert utterance["labels"] == pytest.approx(content[LABELS][video][0][1, 0])
    np.testing.assert_array_equal(utterance["text"], content[VECTORS][video][0][[4, 5]].astype(np.float32))
    for name, file in (("audio", AUDIO), ("vision", VISION)):
        features, times = content[file][video]
        expected = [
            row for row, (start, end) in zip(features, times, strict=True) if start < 9.5 and end > 5.5
        ]
        np.testing.assert_array_equal(utterance[name], np.array(expected, np.float32))
    assert data.report.counts["words.pauses"] == 15  # before the first, between, not after the second
    assert any("standard folds of CMU-MOSI" in note for note in data.report.notes)
    assert any(f"audio from {AUDIO}" in note for note in data.report.notes)


def test_aligned_by_words(tmp_path: Path) -> None:
    folder, content = _mosi(tmp_path)
    data = load_csd(folder, align=True)
    for split in data.splits.values():
        for item in split:
            video, _, place = item["id"].rstrip("]").partition("[")
            times = content[WORDS][video][1][[[1, 2], [4, 5]][int(place)]]
            assert len(item["text"]) == len(item["audio"]) == len(item["vision"]) == 2
            for name, file in (("audio", AUDIO), ("vision", VISION)):
                np.testing.assert_allclose(
                    item[name], _means(*content[file][video], times), rtol=1e-4, atol=1e-6
                )


def test_converted_aligned_by_words(tmp_path: Path) -> None:
    folder, _ = _mosi(tmp_path)
    converted = convert(folder, tmp_path / "aligned.mmiln", align=True, progress=False)
    assert converted.fingerprint() == load_csd(folder, align=True).fingerprint() != load(folder).fingerprint()
    (tmp_path / "mine.csv").write_text("text,label\ngood,1\n")
    with pytest.raises(ConfigError, match=r"align=True is for folders of \.csd files.*mine\.csv"):
        convert(tmp_path / "mine.csv", tmp_path / "mine.mmiln", align=True, progress=False)


def _means(features: Any, intervals: Any, words: Any) -> Any:
    """Word by word and frame by frame."""
    rows = []
    for start, end in words:
        total, weight = np.zeros(features.shape[1]), 0.0
        for row, (first, last) in zip(features, intervals, strict=True):
            overlap = min(end, last) - max(start, first)
            if overlap > 0:
                total, weight = total + overlap * row, weight + overlap
        rows.append(total / weight)
    return np.array(rows)


def test_a_word_without_frames_has_the_nearest(tmp_path: Path) -> None:
    content = sequences.mosi()
    audio = content[AUDIO][1]
    for video in sequences.VIDEOS:
        audio[video] = np.array([[1.0], [2.0], [3.0]]), np.array([[0, 1.3], [2.2, 2.3], [10.2, 10.5]])
    data = load_csd(sequences.write_all(tmp_path / "x", content), align=True)
    first, second = data.valid.audio
    assert first.ravel().tolist() == pytest.approx([1.0, 2.0])
    assert second.ravel().tolist() == pytest.approx(
        [2.0, 3.0]
    )  # by the distance of middles: 4.0 and 4.1 seconds, 5.5 and 2.6


def test_infinities_are_left_to_the_cleaning(tmp_path: Path) -> None:
    content = sequences.mosi()
    for features, _ in content[AUDIO][1].values():
        features[:, 1] = -np.inf
        features[::2, 2] = np.nan
    folder = sequences.write_all(tmp_path / "x", content)
    assert load_csd(folder).report.counts["train.audio.nonfinite"] > 0
    aligned = load_csd(folder, align=True)
    assert aligned.report.counts["test.audio.nonfinite"] == 2 * sum(map(len, aligned.test.audio))
    with pytest.raises(DataError, match="NaN or infinite"):
        load_csd(folder, nonfinite="raise")


def test_frames_in_any_order_and_without_duration(tmp_path: Path) -> None:
    content = sequences.mosi()
    expected = load(sequences.write_all(tmp_path / "x", content))
    rng = np.random.default_rng(0)
    for name in (AUDIO, VISION, WORDS, VECTORS):
        for video, (features, times) in content[name][1].items():
            order = rng.permutation(len(times))
            content[name][1][video] = features[order], times[order]
    assert load(sequences.write_all(tmp_path / "x", content)).fingerprint() == expected.fingerprint()
    times = np.repeat(np.arange(10.0)[:, None], 2, axis=1)
    for video in sequences.VIDEOS:
        content[AUDIO][1][video] = np.arange(10.0)[:, None], times
    data = load(sequences.write_all(tmp_path / "x", content))
    assert [frames.ravel().tolist() for frames in data.valid.audio] == [[1, 2], [6, 7, 8, 9]]


def test_times_that_differ_by_rounding_are_the_same(tmp_path: Path) -> None:
    content = sequences.mosi()
    expected = load(sequences.write_all(tmp_path / "x", content))
    for name in (AUDIO, VISION, WORDS, VECTORS):
        for times in (times for _, times in content[name][1].values()):
            times[::2] += 1e-7
            times[1::2] -= 1e-7
    assert load(sequences.write_all(tmp_path / "x", content)).fingerprint() == expected.fingerprint()


def test_emotions_are_chosen_by_name_or_number(tmp_path: Path) -> None:
    folder, content = _mosi(tmp_path, columns=7)
    data = load(folder)
    video = data.test.id[0].partition("[")[0]
    scores = content[LABELS][video][0]
    np.testing.assert_allclose(data.test.labels, scores[:, 0], rtol=1e-6)
    assert any("Labels are the column sentiment; the others are happy, sad" in n for n in data.report.notes)
    anger = load_csd(folder, target="anger", label_range=(0, 3))
    np.testing.assert_allclose(anger.test.labels, scores[:, 3], rtol=1e-6)
    assert anger.label_range == (0, 3)
    np.testing.assert_allclose(load(folder, target=3).test.labels, anger.test.labels)
    for target in ("joy", 7, -1):
        with pytest.raises(DataError, match=r"target= to be one of sentiment, happy.* a number from 0 to 6"):
            load_csd(folder, target=target)
    folder, _ = _mosi(tmp_path, columns=2)
    with pytest.raises(DataError, match="labels have 2 columns: expected target= to be a number from 0 to 1"):
        load(folder)


def test_folds_by_name_by_file_and_none(tmp_path: Path) -> None:
    content = sequences.mosi()
    for _, entries in content.values():
        for place, video in enumerate(list(entries)):
            entries[f"own{place}"] = entries.pop(video)
    folder = sequences.write_all(tmp_path / "x", content)
    with pytest.warns(DataWarning, match="of no standard fold"):
        assert [*load(folder).splits] == ["train"]
    folds = {"train": ["own0", "own1"], "dev": ["own2"], "test": ["own3"]}
    with pytest.warns(DataWarning, match="2 utterances were left out, as their video is in no fold"):
        data = load_csd(folder, folds=folds)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "valid": 2, "test": 2}
    (folder / "folds.json").write_text(json.dumps(folds | {"test": ["own3", "own4"]}))
    assert len(load(folder).test) == 4
    assert [*load(folder, test=False).splits] == ["train", "valid"]
    for wrong in ({"train": "own0"}, {"training": ["own0"], "test": ["own0"]}, {"first": ["own0"]}, ["own0"]):
        with pytest.raises(DataError, match="folds"):
            load_csd(folder, folds=wrong)


def test_standard_folds_are_complete() -> None:
    """Numbers of videos as in the SDK, and of CMU-MOSI's utterances as published."""
    for name, sizes in (("cmu_mosi", (52, 10, 31)), ("cmu_mosei", (2249, 300, 678))):
        folds = json.loads(files("mmiln.data.formats.folds").joinpath(f"{name}.json").read_text())
        assert tuple(len(set(folds[part])) for part in ("train", "valid", "test")) == sizes
        assert len(set().union(*folds.values())) == sum(sizes)


def test_what_lacks_something_is_left_out_and_told_of(tmp_path: Path) -> None:
    content = sequences.mosi()
    first, second = "03bSnISJMiM", "0h-zjBukYpk"
    del content[AUDIO][1][first]
    said, times = content[WORDS][1][second]
    content[WORDS][1][second] = said[:4], times[:4]
    folder = sequences.write_all(tmp_path / "x", content)
    with pytest.warns(DataWarning) as warned:
        data = load(folder)
    notes = [str(warning.message) for warning in warned]
    assert any("2 utterances were left out, as their video has no audio" in note for note in notes)
    assert any("1 utterances were left out, as no word is in them" in note for note in notes)
    assert not [name for name in data.train.id if name.startswith(first)]
    assert len(data.train) == 3


def test_segments_without_frames_have_one_of_zeros(tmp_path: Path) -> None:
    content = sequences.mosi()
    for video, (features, times) in content[AUDIO][1].items():
        content[AUDIO][1][video] = features[:400], times[:400]
    folder = sequences.write_all(tmp_path / "x", content)
    with pytest.warns(DataWarning, match=r"audio: .* utterances have no frame, and got one of zeros"):
        data = load(folder)
    assert data.valid.audio[1].tolist() == [[0] * 4]


def test_entries_that_were_cut_before_keep_their_names(tmp_path: Path) -> None:
    """As `deploy` writes them after `align`."""
    content = sequences.mosi()
    for name in (AUDIO, VISION, LABELS, WORDS, VECTORS):
        entries = content[name][1]
        for video in list(entries):
            features, times = entries.pop(video)
            spans = (1.0, 3.0), (5.5, 9.5)
            for place, (start, end) in enumerate(spans):
                inside = (times[:, 0] < end) & (times[:, 1] > start)
                entries[f"{video}[{place}]"] = features[inside], times[inside]
    whole, _ = _mosi(tmp_path)
    cut = sequences.write_all(tmp_path / "cut", content)
    assert load(cut).fingerprint() == load(whole).fingerprint()


def test_which_file_is_what_can_be_said(tmp_path: Path) -> None:
    content = sequences.mosi()
    content["CMU_MOSI_openSMILE_IS09.csd"] = "OpenSMILE", content[AUDIO][1]
    content["CMU_MOSI_TimestampedPhones.csd"] = "phones", content[WORDS][1]
    folder = sequences.write_all(tmp_path / "x", content)
    with pytest.raises(
        DataError, match=r"COVAREP\.csd and .*IS09\.csd may each be the audio: name one, load_csd"
    ):
        load(folder)
    with pytest.warns(DataWarning, match=r"Phones\.csd was left unread, as phones are not used"):
        one = load_csd(folder, audio=AUDIO)
    with pytest.warns(DataWarning):
        assert load_csd(folder, audio="OpenSMILE").fingerprint() == one.fingerprint()
    with pytest.raises(ConfigError, match=r"expected audio= to be one of the files .*, got 'loud'"):
        load_csd(folder, audio="loud")
    for options, said in (({"audio": WORDS}, "has words"), ({"words": AUDIO}, "has numbers")):
        with pytest.raises(ConfigError, match=said):
            load_csd(folder, **options)
    with pytest.raises(MissingFileError, match=r"folder with \.csd files"):
        load_csd(tmp_path)


def test_a_sequence_of_no_known_name_is_told_of(tmp_path: Path) -> None:
    content = sequences.mosi()
    content["x.csd"] = "x", content[AUDIO][1]
    with pytest.warns(DataWarning, match=r"x\.csd was left unread, as its name does not say what it is"):
        load(sequences.write_all(tmp_path / "x", content))


def test_names_that_do_not_tell(tmp_path: Path) -> None:
    content = sequences.mosi()
    files = {"a.csd": ("a", content[AUDIO][1]), "b.csd": ("b", content[LABELS][1])}
    folder = sequences.write_all(tmp_path / "x", files)
    with pytest.raises(DataError, match=r"expected sequences of labels and of .*, got a\.csd, b\.csd"):
        load(folder)
    data = load_csd(folder, audio="a", labels="b.csd")
    assert data.fields == ["audio"]
    with pytest.raises(DataError, match="a sequence of words is needed"):
        load_csd(folder, audio="a", labels="b", align=True)


def test_a_file_alone_is_told_to_be_part_of_a_folder(tmp_path: Path) -> None:
    folder, _ = _mosi(tmp_path)
    with pytest.raises(DataError, match=r"HDF5: if it is a \.csd file .* name the folder"):
        load(folder / AUDIO)


def test_it_is_converted(tmp_path: Path) -> None:
    folder, _ = _mosi(tmp_path)
    converted = convert(folder, tmp_path / "x.mmiln", progress=False)
    assert converted.fingerprint() == load(folder).fingerprint()
    source = json.loads((tmp_path / "x.mmiln" / "manifest.json").read_text())["source"]
    assert {AUDIO, LABELS} <= source.keys()


def _outside(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["COVAREP/data/03bSnISJMiM/features"]
        file["COVAREP/data/03bSnISJMiM/features"] = h5py.ExternalLink("/etc/passwd", "/x")


def _bomb(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["COVAREP/data/03bSnISJMiM/features"]
        file["COVAREP/data/03bSnISJMiM"].create_dataset("features", (10**10, 4), "f8", chunks=(100, 4))


def _replaced(name: str, values: Any) -> Any:
    def change(path: Path) -> None:
        with h5py.File(path, "a") as file:
            del file[f"COVAREP/data/03bSnISJMiM/{name}"]
            file[f"COVAREP/data/03bSnISJMiM/{name}"] = values

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_outside, "expected 'features' to be a dataset of this file"),
        (_bomb, "features claims 320000000000 bytes, which the file does not hold"),
        (_replaced("features", np.ones(1000)), r"expected features \(n, w\) and intervals \(n, 2\) for '03b"),
        (_replaced("intervals", np.ones((999, 2))), r"expected features \(n, w\)"),
        (_replaced("intervals", np.full((1000, 2), np.nan)), r"expected features \(n, w\)"),
        (_replaced("features", np.ones((1000, 3))), "expected 3 columns of numbers for"),
        (_replaced("features", np.ones((1000, 4), complex)), "expected features of numbers or text"),
        (lambda path: path.write_bytes(b"no HDF5"), "COVAREP.csd is no computational sequence"),
        (lambda path: path.write_bytes(path.read_bytes()[:3000]), "COVAREP.csd is no computational sequence"),
        (lambda path: h5py.File(path, "w").close(), "expected one group at its top, got 0"),
    ],
)
def test_damage_is_told_of(damage: Any, said: str, tmp_path: Path) -> None:
    folder, _ = _mosi(tmp_path)
    damage(folder / AUDIO)
    with pytest.raises(DataError, match=said):
        load(folder)


def test_without_h5py_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "x.csd").write_bytes(b"")
    code = f"import sys; sys.modules['h5py'] = None\nimport mmiln\nmmiln.data.load({str(tmp_path)!r})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert "DataError: x.csd needs h5py to be read: pip install 'mmiln[csd]'" in run.stderr

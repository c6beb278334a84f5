"""NaN, infinities and scales: what is replaced, counted and learned from train alone."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmiln.data import Dataset, Split, Standardizer, load
from mmiln.data.clean import clean_nonfinite
from mmiln.errors import ConfigError, DataError, DataWarning, MissingFileError


def _split(prefix: str, count: int, seed: int, **changes: Any) -> Split:
    rng = np.random.default_rng(seed)
    frames = {
        name: [rng.normal(5, 3, size=(int(rng.integers(1, 9)), width)) for _ in range(count)]
        for name, width in {"audio": 4, "vision": 3}.items()
    }
    ids = [f"{prefix}{i}" for i in range(count)]
    return Split(ids, rng.uniform(-3, 3, count).astype(np.float32), **{**frames, **changes})


def _dirty() -> Dataset:
    dataset = Dataset(_split("a", 20, 0), _split("b", 5, 1), _split("c", 6, 2), name="x")
    assert dataset.train.audio is not None
    assert dataset.test is not None
    assert dataset.test.vision is not None
    dataset.train.audio[3][0, 1:3] = [np.nan, -np.inf]
    dataset.train.audio[7][-1, 1] = np.inf
    dataset.test.vision[2][:, 0] = np.nan
    return dataset


def test_nonfinite_values_become_zero_and_are_counted() -> None:
    dataset = _dirty()
    frames = len(dataset.test.vision[2])
    clean_nonfinite(dataset, "zero")
    assert dataset.train.audio[3][0, 1:3].tolist() == [0.0, 0.0]
    counts = {"train.audio.nonfinite": 3, "test.vision.nonfinite": frames}
    assert dataset.report.counts == counts
    assert dataset.report.notes[0].startswith("train audio: 3 NaN or infinite values in 2 utt")


def test_nonfinite_values_become_the_mean_of_train() -> None:
    dataset = _dirty()
    column = np.concatenate(dataset.train.vision)[:, 0].astype(np.float64).mean()
    finite = np.concatenate(dataset.train.audio)[:, 1]
    finite = finite[np.isfinite(finite)].astype(np.float64).mean()
    clean_nonfinite(dataset, "mean")
    np.testing.assert_allclose(dataset.test.vision[2][:, 0], column, rtol=1e-6)
    np.testing.assert_allclose(dataset.train.audio[7][-1, 1], finite, rtol=1e-6)


def test_nonfinite_values_can_be_refused() -> None:
    with pytest.raises(DataError, match=r"train audio: 2 utterances .*'a3'"):
        clean_nonfinite(_dirty(), "raise")
    with pytest.raises(ConfigError, match="got 'drop'"):
        clean_nonfinite(_dirty(), "drop")  # type: ignore[arg-type]


def test_float64_values_beyond_float32_are_counted(tmp_path: Path) -> None:
    audio = np.ones((4, 2, 3))
    audio[1, 0, 0] = 1e300
    fields = {"id": list("abcd"), "audio": audio, "regression_labels": np.zeros(4)}
    (tmp_path / "data.pkl").write_bytes(pickle.dumps({"train": fields}))
    dataset = load(tmp_path / "data.pkl")
    assert dataset.report.counts["train.audio.nonfinite"] == 1
    with pytest.raises(DataError, match="'b'"):
        load(tmp_path / "data.pkl", nonfinite="raise")


@pytest.mark.parametrize("bits", [np.array([0x7FA00000], np.uint32), np.array([0x7FF4 << 48], np.uint64)])
def test_signalling_nan_is_treated_as_any_nan(bits: np.ndarray[Any, Any], tmp_path: Path) -> None:
    """Casting one makes numpy warn; damaged files may hold any bits."""
    signalling = bits.view(f"f{bits.itemsize}")
    audio = np.ones((4, 2, 3), signalling.dtype)
    labels = np.zeros(4, signalling.dtype)
    audio[1, 0, :1] = signalling
    fields = {"id": list("abcd"), "audio": audio, "regression_labels": labels}
    for fill in "zero", "mean":
        (tmp_path / "data.pkl").write_bytes(pickle.dumps({"train": fields}))
        assert load(tmp_path / "data.pkl", nonfinite=fill).report.counts["train.audio.nonfinite"] == 1
    frames = [*audio]
    with pytest.raises(DataError, match="'b'"):
        clean_nonfinite(Dataset(Split(list("abcd"), labels, audio=frames), name="x"), "raise")
    labels[2:3] = signalling
    with pytest.raises(DataError, match="got nan for 'c'"):
        Split(list("abcd"), labels, audio=audio[:, :1])
    (tmp_path / "data.pkl").write_bytes(pickle.dumps({"train": fields}))
    with pytest.raises(DataError, match="got nan for 'c'"):
        load(tmp_path / "data.pkl")


def test_standardized_columns_have_mean_0_and_variance_1() -> None:
    train = _split("a", 3000, 0)  # more than one block
    for frames in train.audio:
        frames[:, 2] = 0.1
    scaler = Standardizer.fit(train)
    audio = np.concatenate(scaler.transform(train).audio).astype(np.float64)
    np.testing.assert_allclose(audio.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(audio.std(axis=0), [1, 1, 0, 1], atol=1e-6)
    assert scaler.constant == {"audio": 1}
    other = scaler.transform(_split("b", 5, 1))
    assert not np.concatenate(other.audio)[:, 2].any()
    assert other.audio[0].dtype == np.float32


def _file(tmp_path: Path, *, test_scale: float) -> Path:
    rng = np.random.default_rng(0)
    content = {}
    for name, scale in {"train": 1.0, "valid": 1.0, "test": test_scale}.items():
        content[name] = {
            "id": [f"{name}{i}" for i in range(6)],
            "audio": rng.normal(size=(6, 4, 3)) * scale,
            "text": rng.normal(size=(6, 4, 2)),
            "regression_labels": np.zeros(6),
        }
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


def test_the_scaler_never_sees_test(tmp_path: Path) -> None:
    one = load(_file(tmp_path, test_scale=1), standardize=True)
    other = load(_file(tmp_path, test_scale=100), standardize=True)
    plain = load(_file(tmp_path, test_scale=100))
    for what in ("mean", "std"):
        ours, theirs = getattr(one.standardizer, what), getattr(other.standardizer, what)
        np.testing.assert_array_equal(ours["audio"], theirs["audio"])
    np.testing.assert_array_equal(one.train.audio[0], other.train.audio[0])
    assert np.abs(other.test.audio[0]).max() > 10 * np.abs(one.test.audio[0]).max()
    np.testing.assert_array_equal(other.train.text[0], plain.train.text[0])  # text stays
    assert plain.standardizer is None


def test_a_standardizer_survives_saving(tmp_path: Path) -> None:
    train = _split("a", 10, 0)
    scaler = Standardizer.fit(train)
    assert scaler.save(tmp_path).name == "standardizer.safetensors"
    again = Standardizer.load(tmp_path).transform(train)
    for ours, theirs in zip(scaler.transform(train).vision, again.vision, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(MissingFileError, match="standardizer"):
        Standardizer.load(tmp_path / "nowhere")
    with pytest.raises(MissingFileError, match="existing directory"):
        scaler.save(tmp_path / "nowhere")
    (tmp_path / "standardizer.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match="is damaged"):
        Standardizer.load(tmp_path)


def test_saving_that_fails_leaves_the_standardizer_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Standardizer.fit(_split("a", 10, 0)).save(tmp_path).read_bytes()

    def half(arrays: object, path: Path) -> None:
        path.write_bytes(before[:40])
        raise OSError("No space left on device")

    monkeypatch.setattr("mmiln.data.standardizer.save_file", half)
    with pytest.raises(OSError, match="No space left"):
        Standardizer.fit(_split("b", 10, 1)).save(tmp_path)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_foreign_widths_and_overflow_are_refused() -> None:
    scaler = Standardizer.fit(_split("a", 10, 0))
    assert scaler.transform(_split("b", 5, 0, vision=None)).vision is None
    tiny = Split(["a", "b"], np.zeros(2), audio=[np.full((1, 1), 1e-30), np.full((1, 1), 2e-30)])
    huge = Split(["c"], np.zeros(1), audio=[np.full((1, 1), 1e30)])
    scaler = Standardizer.fit(tiny)
    with pytest.warns(DataWarning, match="1 values of audio are more than 1000 deviations .* such as 'c'"):
        assert scaler.transform(huge).audio[0].tolist() == [[1000.0]]
    with pytest.warns(DataWarning, match="values of audio more than 1000 deviations"):
        assert scaler.transform({"audio": [np.full((2, 1), -1e30)]})["audio"][0].tolist() == [[-1000.0]] * 2
    undefined = Split(["c"], np.zeros(1), audio=[np.full((1, 1), np.nan)])
    with pytest.raises(DataError, match="column 0 of audio in 'c' is not finite"):
        scaler.transform(undefined)


def test_a_column_that_hardly_varies_in_train_is_bounded() -> None:
    rng = np.random.default_rng(0)
    train = Split(["a"], audio=[np.stack([rng.normal(0, 1e-12, 50), rng.normal(size=50)], 1)])
    with pytest.warns(DataWarning, match="1 values of audio"):
        frames = Standardizer.fit(train).transform(Split(["b"], audio=[np.full((1, 2), 0.5)])).audio[0]
    assert frames[0, 0] == 1000
    assert abs(frames[0, 1]) < 5


def test_extreme_values_fit_without_overflow() -> None:
    audio = [np.full((2, 1), 3e38, np.float32), np.full((2, 1), -3e38, np.float32)]
    split = Split(["a", "b"], np.zeros(2), audio=audio)
    assert Standardizer.fit(split).transform(split).audio[0].tolist() == [[1.0], [1.0]]


def test_a_standardizer_is_not_learned_from_nan() -> None:
    for values in ([np.nan, 1.0], [np.inf, -np.inf]):
        audio = [np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32)]
        audio[1][:, 1] = values
        with pytest.raises(DataError, match=rf"got {values[0]} in frame 0, column 1 of 'b': mend"):
            Standardizer.fit(Split(["a", "b"], np.zeros(2), audio=audio))

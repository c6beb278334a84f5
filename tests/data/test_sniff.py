"""A file of another format is named by its first bytes, with what to do."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from mmiln.data import load
from mmiln.errors import DataError

ARRAYS = {"audio": np.ones((2, 3, 4))}


def _made(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def _zip(name: str) -> bytes:
    def write(buffer: io.BytesIO) -> None:
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(name, b"some content")

    return _made(write)


def _tar() -> bytes:
    def write(buffer: io.BytesIO) -> None:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("features.pkl"))

    return _made(write)


PICKLE = pickle.dumps(ARRAYS)
FILES = [
    (b"", "empty", "download"),
    (bytes(9000), "zeros", "interrupted"),
    (b"version https://git-lfs.github.com/spec/v1\nsize 5\n", "a pointer of Git LFS", "lfs pull"),
    (b"\n<!DOCTYPE html>\n<html><head>Quota exceeded</head></html>\n", "a web page", "the file itself"),
    (_made(lambda file: torch.save(ARRAYS, file)), "an archive of torch.save", "torch.load"),
    (
        _made(lambda file: torch.save(ARRAYS, file, _use_new_zipfile_serialization=False)),
        "an archive of torch.save", "torch.load",
    ),
    (_tar(), "an archive of torch.save or tar", "unpack it"),
    (_made(lambda file: np.save(file, ARRAYS["audio"])), "a file of numpy.save", "pickle a dictionary"),
    (_made(lambda file: np.savez(file, **ARRAYS)), "a file of numpy.save or savez", "pickle a dictionary"),
    (_zip("[Content_Types].xml"), "an office document", "save the sheet as CSV"),
    *((data, "compressed", "unpack it") for data in (
        _zip("features.pkl"), gzip.compress(PICKLE), bz2.compress(PICKLE), lzma.compress(PICKLE),
    )),
    (_made(lambda file: savemat(file, ARRAYS)), "a file of MATLAB", "loadmat"),
    (b"\x89HDF\r\n\x1a\n\0\0\0", "HDF5", "name the folder"),
    (b"PAR1\x15\x04\x15\0", "a table in Parquet", ".parquet"),
    *((head + bytes(99), "a recording or a picture", "extract them, by MMSA-FET") for head in (
        b"\0\0\0\x20ftypisom", b"RIFF\x24\x08\0\0WAVEfmt ", b"RIFF\x24\x08\0\0AVI LIST", b"\x1aE\xdf\xa3\x01",
        b"ID3\x03", b"\xff\xfb\x90", b"OggS\0\x02", b"fLaC\0", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n",
    )),
    (json.dumps([{"text": "good"}]).encode(), "JSON", "CSV"),
    (json.dumps({"text": ["good"]}, indent=1).encode(), "JSON", "CSV"),
    (b"clip_id,text,label\n1,good,0.5\n", "text", "the ending .csv"),
    ("文字,标签\n好,1\n".encode("gbk"), "text", "the ending .csv"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "kind", "what_to_do"), FILES)
def test_a_foreign_file_is_named(content: bytes, kind: str, what_to_do: str, tmp_path: Path) -> None:
    (tmp_path / "mosi.pkl").write_bytes(content)
    with pytest.raises(
        DataError, match=rf"^mosi\.pkl is not a readable pickle, but {kind}.*: .*{re.escape(what_to_do)}"
    ):
        load(tmp_path / "mosi.pkl")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("content", "kind"), [(FILES[n][0], FILES[n][1]) for n in (1, 2, 3, 4, 9, 11, 15, 17)]
)
def test_a_table_that_is_none_is_named(content: bytes, kind: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"mosi.{ending}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"mosi\.{ending} is not a .*, but {kind}"):
        load(path)


def test_so_it_is_in_a_folder_of_parts(tmp_path: Path) -> None:
    (tmp_path / "train.pkl").write_bytes(gzip.compress(PICKLE))
    with pytest.raises(DataError, match=r"^train\.pkl is not .* but compressed"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"<\x01\x02", b"\xff\x00\x01 what is this", PICKLE[:40]])
def test_bytes_that_nobody_knows_are_shown(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(DataError, match=r"not a readable pickle.* its first bytes are b'") as caught:
        load(tmp_path / "x.pkl")
    assert "KeyError" not in str(caught.value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("content", [{"train": {"id": ["a"]}}, ["a"], "a", 1.5, ({"a": 1},)])
def test_no_pickle_is_taken_for_another_format(content: object, protocol: int, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(DataError) as caught:
        load(tmp_path / "x.pkl")
    assert not re.search("is text|JSON|compressed", str(caught.value))

"""Names a file that is not what was expected, by its first bytes, and says what to do with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

PARQUET: Final = "a table in Parquet"
TEXT: Final = "text"
HEAD: Final = 4096  # bytes that are looked at

_AS_ARRAYS: Final = "pickle a dictionary of its NumPy arrays"
# In this order: a pattern of the first bytes, what such a file is, and what to do with it.
_KINDS: Final = (
    (rb"\Z", "empty", "download or copy it again"),
    (rb"\0+\Z", "zeros where its content should be", "a download or copy was interrupted; do it again"),
    (rb"version https://git-lfs", "a pointer of Git LFS to it", "fetch it by `git lfs pull`"),
    (rb"(?i)\s*<(!doctype|html|head|\?xml)", "a web page",
     "a download was refused or needs a login; open the link in a browser and download the file itself"),
    (rb"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19|PK\x03\x04.{26}[^\0]*data\.pkl|.{257}ustar",
     "an archive of torch.save or tar", f"torch.load or unpack it, and {_AS_ARRAYS}"),
    (rb"PK\x03\x04.{26}[^\0]*\.npy|\x93NUMPY", "a file of numpy.save or savez",
     "pickle a dictionary of the splits, each a dictionary of arrays"),
    (rb"PK\x03\x04.{26}\[Content_Types\]", "an office document", "save the sheet as CSV"),
    (rb"PK[\x03\x05]|\x1f\x8b|BZh\d|\xfd7zXZ|7z\xbc\xaf|\x28\xb5\x2f\xfd|Rar!", "compressed",
     "unpack it, and name what is in it"),
    (rb"MATLAB \d", "a file of MATLAB", f"read it by scipy.io.loadmat or h5py, and {_AS_ARRAYS}"),
    (rb"\x89HDF\r\n\x1a\n", "HDF5",
     "if it is a .csd file of the CMU-MultimodalSDK, name the folder that holds it and the others; else "
     f"{_AS_ARRAYS}"),
    (rb"PAR1", PARQUET, "give it the ending .parquet"),
    (rb".{4}ftyp|RIFF.{4}(WAVE|AVI )|\x1aE\xdf\xa3|OggS|fLaC|ID3|\xff[\xfb\xf3\xf2]|\xff\xd8\xff|\x89PNG",
     "a recording or a picture",
     "MMILN reads features of clips: extract them, by MMSA-FET for one, and name the pickle that it writes"),
    (rb"\s*[{\[]\s*[\"\[{\d\]}-]", "JSON", f"save sentences as CSV; of features, {_AS_ARRAYS}"),
)  # fmt: skip
_TEXT: Final = re.compile(rb"[^\x00-\x08\x0e-\x1f\x7f]+")  # in UTF-8 or another encoding


def foreign(path: Path, expected: str = "a pickle") -> str | None:
    """Says what a file is, and what to do with it; None where it may be what is expected."""
    with path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(max(0, path.stat().st_size - 1))
        last = file.read(1)
    for pattern, kind, what_to_do in _KINDS:
        if re.match(pattern, head, re.DOTALL):
            return None if kind == expected else f"{kind}: {what_to_do}"
    # The first pickles were text too; all of them end in a full stop.
    if expected != TEXT and last != b"." and _TEXT.fullmatch(head):
        return "text: if it is a table with a header, give it the ending .csv"
    return None

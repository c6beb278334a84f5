"""ONNX files against the core, read by onnxruntime."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmiln
from mmiln.errors import ConfigError, MissingFileError
from mmiln.pytorch import padded, save_onnx
from reference import batches, configs
from support import small_bert

SEVERAL = {"text": [13, 2, 1], "audio": [1, 31, 6], "vision": [17, 5, 2]}
ONE = {"text": [5], "audio": [40], "vision": [3]}
SINGLE = {"text": [1], "audio": [1], "vision": [1]}
KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "text encoder": {"text_dim": 8, "vision_dim": 0},
}


@pytest.mark.parametrize("kind", [pytest.param("full", marks=pytest.mark.slow), "text encoder"])
def test_scores_are_those_of_predict(kind: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="reads the file")
    pytest.importorskip("onnxscript", reason="writes the file")
    config = configs.tiny(num_layers=1, **KINDS[kind])
    bert, arguments = None, {}
    if kind == "text encoder":
        bert, arguments = configs.TINY_BERT, {"text_encoder": small_bert.write(tmp_path)}
    model = mmiln.Model("mosi", label_range=(1, 5), **arguments, **config)
    path = tmp_path / "model.onnx"
    save_onnx(model.to_torch(), path)
    assert not [other for other in tmp_path.iterdir() if other.suffix in (".tmp", ".data")]
    session = runtime.InferenceSession(path)
    assert [output.name for output in session.get_outputs()] == ["score"]
    names = [value.name for value in session.get_inputs()]
    for lengths in (ONE, SINGLE, SEVERAL):
        batch = batches.random_batch(config, lengths, 1, bert)
        del batch["labels"]
        inputs = {n: (v.float() if v.is_floating_point() else v).numpy() for n, v in padded(batch).items()}
        assert sorted(names) == sorted(inputs)
        (scores,) = session.run(None, inputs)
        np.testing.assert_allclose(scores, model.predict([batch]).score, rtol=0, atol=1e-5)


def test_what_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = mmiln.Model("mosi", **configs.tiny()).to_torch()
    monkeypatch.setattr("mmiln.pytorch.onnx.LARGEST", 100)
    with pytest.raises(ConfigError, match="less than 2 GiB"):
        save_onnx(module, tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingFileError, match=r"pip install 'mmiln\[onnx\]'"):
        save_onnx(module, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())

"""ONNX files of MMILN, for runtimes without PyTorch."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import files
from ..errors import ConfigError, MissingFileError
from .module import MMILN

TIME = {"text": 1, "text_bert": 2, "audio": 1, "vision": 1}  # the axis of frames of each input
LARGEST = 2**31 - 1  # bytes of a file in protobuf's format


def save_onnx(module: MMILN, path: str | Path) -> None:
    """Writes an ONNX file that scores batches of any size and length.

    Its inputs are those of :meth:`MMILN.forward` that the model reads, float32 and int64, each of ``text``,
    ``audio`` and ``vision`` with its ``<name>_lengths`` ``(B,)``. Its output is ``score`` ``(B,)``.

    Args:
        module: What ``model.to_torch()`` returned.
        path: The file, replaced if it is there.

    Raises:
        MissingFileError: The package ``onnxscript``, of the extra ``onnx``, is not installed.
        ConfigError: The weights take 2 GiB or more, which such a file can't hold.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise MissingFileError("an export to ONNX needs onnxscript: pip install 'mmiln[onnx]'") from None
    if (size := 4 * sum(weight.numel() for weight in module.parameters())) > LARGEST:
        raise ConfigError(
            f"expected a model of less than 2 GiB, which an ONNX file holds, got {size:,} bytes"
        )
    example = _example(module)
    free = torch.export.Dim.DYNAMIC
    axes = {name: {0: free} | ({TIME[name]: free} if name in TIME else {}) for name in example}
    with _quiet():
        program = torch.onnx.export(
            _Score(module).eval(),
            kwargs={"batch": example},
            dynamic_shapes={"batch": axes},
            input_names=list(example),
            output_names=["score"],
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    files.write(Path(path), lambda staged: program.save(staged))


@contextmanager
def _quiet() -> Iterator[None]:
    """Holds back what torch and onnxscript say of their own parts."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _Score(nn.Module):
    """The score alone, without gradients, in float32."""

    def __init__(self, module: MMILN) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).cpu().float().requires_grad_(False)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.module(**batch)["score"]


def _example(module: MMILN) -> dict[str, Any]:
    """Two utterances, of the kind that the model reads, from which the graph is traced."""
    c = module.config["model"]
    used = [name for name in ("text", "audio", "vision") if c[f"{name}_dim"]]
    example: dict[str, Tensor] = {}
    for steps, name in enumerate(used, 3):
        if name == "text" and module.config.get("text_encoder") is not None:
            example["text_bert"] = torch.ones(2, 3, steps, dtype=torch.int64)
            example["text_bert"][:, 2] = 0
        else:
            example[name] = torch.zeros(2, steps, c[f"{name}_dim"])
            example[f"{name}_lengths"] = torch.tensor([steps, 2])
    return example

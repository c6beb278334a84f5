"""The models of an experiment by name: MMILN, its ablations (Table 3 of the paper), and controls.

There is no control of audio and vision together: text is the centre of MMILN and can't be left out of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from ..data.dataset import MODALITIES


class Entry(NamedTuple):
    """How a named model differs from the experiment's settings.

    Attributes:
        about: What it is, for reports.
        settings: Arguments of :class:`mmiln.Model` that replace the experiment's.
        needs: Modalities that the data must have.
        shuffled_labels: Whether it is trained on permuted labels.
    """

    about: str
    settings: Mapping[str, Any] = MappingProxyType({})
    needs: tuple[str, ...] = ()
    shuffled_labels: bool = False


def _of(*modalities: str) -> dict[str, Any]:
    """Settings of a model of these modalities alone."""
    absent = {f"{name}_dim": 0 for name in MODALITIES if name not in modalities}
    return absent if "text" in modalities else absent | {"text_encoder": None, "freeze_text": False}


def _control(*modalities: str) -> Entry:
    return Entry(f"{' and '.join(modalities)} alone", _of(*modalities), needs=modalities)


MODELS: Final[dict[str, Entry]] = {
    "full": Entry("MMILN on all modalities of the data"),
    "no_mrm": Entry("MMILN without similarity and difference losses (-MRM)", {"variant": "no_mrm"}),
    "no_mfm": Entry(
        "MMILN with every gate at 1, hence without these losses too (-MFM)", {"variant": "no_mfm"}
    ),
    "no_gate_fusion": Entry("MMILN without SAG-Transformers (-GateFusion)", {"variant": "no_gate_fusion"}),
    "text_audio": _control("text", "audio"),
    "text_vision": _control("text", "vision"),
    "text": _control("text"),
    "audio": _control("audio"),
    "vision": _control("vision"),
    "shuffled": Entry("MMILN trained on permuted labels: must fall to chance", shuffled_labels=True),
}

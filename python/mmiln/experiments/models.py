"""The models of an experiment by name: MMILN, its ablations (Table 3 of the paper), controls, baselines.

There is no control of audio and vision together by MMILN, of which text is the centre; baselines such as
``lf_lstm`` read the two with ``text_dim = 0``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from ..baselines import NETWORKS, Network
from ..data.names import MODALITIES


class Entry(NamedTuple):
    """How a named model differs from the experiment's settings.

    Attributes:
        about: Description for reports.
        settings: Arguments of :class:`mmiln.Model` that replace the experiment's.
        needs: Modalities that the data must have.
        shuffled_labels: Whether it is trained on permuted labels.
        network: Name of a baseline, which takes only :data:`SHARED` of the experiment's settings.
    """

    about: str
    settings: Mapping[str, Any] = MappingProxyType({})
    needs: tuple[str, ...] = ()
    shuffled_labels: bool = False
    network: str | None = None


def _of(*modalities: str) -> dict[str, Any]:
    """Settings of a model of these modalities alone."""
    absent = {f"{name}_dim": 0 for name in MODALITIES if name not in modalities}
    return absent if "text" in modalities else absent | {"text_encoder": None, "freeze_text": False}


def _control(*modalities: str) -> Entry:
    return Entry(f"{' and '.join(modalities)} alone", _of(*modalities), needs=modalities)


def _title(network: type[Network]) -> str:
    """The first line of a network's docstring."""
    return (network.__doc__ or network.__name__).strip().split("\n")[0].rstrip(".")


#: Every model that an experiment may name.
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
    **{name: Entry(_title(network), needs=network.NEEDS, network=name) for name, network in NETWORKS.items()},
}

# Settings with the same meaning for MMILN and baselines; rates and sizes are each publication's own.
SHARED: Final = (
    *(f"{name}_dim" for name in MODALITIES),
    "text_encoder",
    "freeze_text",
    "batch_size",
    "accumulate",
    "device",
    "dtype",
    "patience",
    "seed",
)

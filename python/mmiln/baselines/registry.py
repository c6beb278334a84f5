"""Every baseline by name. A new baseline needs an entry here."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ..errors import ConfigError
from .amml import AMML
from .early_lstm import EarlyFusionLSTM
from .emt import EMT
from .late_lstm import LateFusionLSTM
from .lmf import LMF
from .mag_bert import MagBERT
from .mean import Mean
from .mfm import MFM
from .mfn import MFN
from .misa import MISA
from .mmim import MMIM
from .mult import MulT
from .network import Network
from .raven import RAVEN
from .self_mm import SelfMM
from .text_only import TextOnly
from .tfn import TFN

#: Every baseline by name, in the order of the paper's Table 2; controls last.
NETWORKS: Final[Mapping[str, type[Network]]] = MappingProxyType(
    {
        "tfn": TFN,
        "lmf": LMF,
        "mfn": MFN,
        "mfm": MFM,
        "raven": RAVEN,
        "mult": MulT,
        "misa": MISA,
        "mag_bert": MagBERT,
        "self_mm": SelfMM,
        "mmim": MMIM,
        "amml": AMML,
        "emt": EMT,
        "text_only": TextOnly,
        "lf_lstm": LateFusionLSTM,
        "ef_lstm": EarlyFusionLSTM,
        "mean": Mean,
    }
)


def name_of(network: type[Network]) -> str:
    """The name of a baseline; for another network, the name of its class."""
    return next((name for name, kind in NETWORKS.items() if kind is network), network.__name__)


def find(name: object) -> type[Network]:
    """The class of the baseline with this name; returns a network class unchanged.

    Raises:
        ConfigError: No baseline has this name.
    """
    if isinstance(name, type) and issubclass(name, Network):
        return name
    if name not in NETWORKS:
        near = difflib.get_close_matches(str(name), NETWORKS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"there is no baseline {name!r}; {hint}Known: {', '.join(NETWORKS)}")
    return NETWORKS[name]  # type: ignore[index]

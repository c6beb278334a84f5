"""Models that MMILN is compared with, in PyTorch, and controls that the field leaves out.

Adding one: a file with a :class:`Network`, and an entry in ``registry.py``.
"""

from __future__ import annotations

from .baseline import Baseline
from .inputs import Inputs, Sequence
from .network import Network, Settings
from .registry import NETWORKS, find

__all__ = ["NETWORKS", "Baseline", "Inputs", "Network", "Sequence", "Settings", "find"]

"""Why a model gives an utterance its score: :meth:`mmiln.Model.explain`, and numbers over many utterances."""

from __future__ import annotations

from .explanation import Explanation, Similar, Word
from .utterance import disagreement, explain, outputs

__all__ = ["Explanation", "Similar", "Word", "disagreement", "explain", "outputs"]

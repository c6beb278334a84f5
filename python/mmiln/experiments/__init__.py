"""The paper's experiments under one protocol: many seeds, the epoch chosen on validation, numbers traceable.

>>> from mmiln import experiments
>>> experiment = experiments.Experiment.of({
...     "name": "example",
...     "datasets": {"synthetic": {"path": "synthetic"}},
...     "models": ["full", "text"],
... })
>>> len(list(experiment.tasks()))  # two models, five seeds
10
"""

from .cases import Case, CaseStudy, case_study, cases
from .compare import Comparison, Scores, compare
from .experiment import Experiment, Source
from .models import MODELS
from .report import Report
from .runner import run
from .search import Found, Range, Search, search

__all__ = [
    "MODELS",
    "Case",
    "CaseStudy",
    "Comparison",
    "Experiment",
    "Found",
    "Range",
    "Report",
    "Scores",
    "Search",
    "Source",
    "case_study",
    "cases",
    "compare",
    "run",
    "search",
]

"""Data sets in and out: published formats, a synthetic stand-in, ragged batches."""

from mmiln.data.batching import collate
from mmiln.data.dataset import Dataset, standardized
from mmiln.data.folds import fold
from mmiln.data.formats.convert import convert
from mmiln.data.formats.converted import verify
from mmiln.data.load import load, load_csd
from mmiln.data.split import Split
from mmiln.data.standardizer import Standardizer
from mmiln.data.synthetic import synthetic

__all__ = [
    "Dataset", "Split", "Standardizer", "collate", "convert", "fold", "load", "load_csd", "standardized",
    "synthetic", "verify",
]  # fmt: skip

"""Parts of a file as they were read, put together to a data set with one range of labels."""

from __future__ import annotations

from collections.abc import Mapping

from mmiln.data.dataset import Dataset
from mmiln.data.findings import Findings, Read
from mmiln.data.split import Split
from mmiln.data.target import Target
from mmiln.errors import DataError


def dataset_of(parts: Mapping[str, Read], name: str, target: Target, report: Findings) -> Dataset:
    """The data set of parts by train, valid and test.

    Raises:
        DataError: Labels, counts or shapes are wrong.
    """
    labelled = [part.labels for part in parts.values() if part.labels is not None]
    among = target.range_of(labelled, report, unimodal=any(part.unimodal for part in parts.values()))
    splits = {}
    for split, part in parts.items():
        if part.labels is None:
            report.add(f"{split} has no labels: it can be predicted, not measured.{part.advice}")
        try:
            splits[split] = Split(
                part.ids,
                None if part.labels is None else target.clamped(part.labels, among, part.ids, split, report),
                **part.fields,
                label_range=among,
                unimodal_labels={
                    modality: target.clamped(values, among, part.ids, f"{split} {modality}", report)
                    for modality, values in part.unimodal.items()
                },
            )
        except DataError as error:
            raise DataError(f"{split}: {error}") from None
    return Dataset(splits.get("train"), splits.get("valid"), splits.get("test"), name=name, report=report)

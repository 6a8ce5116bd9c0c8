"""What a report says beyond the metrics: failures, slices, calibration and the common space."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dagnn_core.data.dataset import Dataset
from dagnn_core.reports.evaluation.failures import Confusions, confusions, precision_of_ranks
from dagnn_core.reports.evaluation.measure import Evaluation
from dagnn_core.reports.evaluation.queries import Queries
from dagnn_core.reports.evaluation.slices import FoundSlice, find_slices
from dagnn_core.reports.evaluation.space import Hubness, SpaceMap, hubness, map_space
from dagnn_core.retrieval.calibration import Reliability, reliability
from dagnn_core.retrieval.directions import DIRECTIONS
from dagnn_core.retrieval.metrics import map_by_label
from dagnn_core.retrieval.space import centroid_distance


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelAnalysis:
    """How well the queries of a label do."""

    name: str
    num_train: int
    """Training items that carry it."""
    num_queries: int
    """Test items that carry it, at least one."""
    map_by_direction: Mapping[str, float]
    calibration_error: float | None
    """Of its probabilities, of images and texts together; None where the model is not calibrated."""

    @property
    def map_mean(self) -> float:
        """Mean of both directions."""
        return float(np.mean(list(self.map_by_direction.values())))


@dataclass(frozen=True, kw_only=True, slots=True)
class Analysis:
    """The parts of a report beyond the metrics."""

    queries: Queries
    labels: Sequence[LabelAnalysis]
    """Those that some test item carries, the best retrieved first."""
    confusions: Confusions
    precision_of_ranks: Mapping[str, NDArray[np.float64]]
    """By direction."""
    slices: Sequence[FoundSlice]
    reliability: Mapping[str, Reliability]
    """By modality; none where the model is not calibrated."""
    centroid_distance: float
    hubness: Mapping[str, Hubness]
    """Of what each direction finds."""
    space: SpaceMap | None

    def summary(self, evaluation: Evaluation) -> dict[str, Any]:
        """The numbers of it, as plain values for JSON."""
        return {
            "protocols": [
                protocol._asdict() | {"map_at": {str(cutoff): value for cutoff, value in protocol.map_at.items()}}
                for protocol in evaluation.protocols
            ],
            "calibration_error": {modality: diagram.error for modality, diagram in self.reliability.items()},
            "centroid_distance": self.centroid_distance,
            "hubness": {direction: found._asdict() for direction, found in self.hubness.items()},
            "labels": {
                label.name: {
                    "num_train": label.num_train,
                    "num_queries": label.num_queries,
                    **{f"map_{direction}": value for direction, value in label.map_by_direction.items()},
                    "calibration_error": label.calibration_error,
                }
                for label in self.labels
            },
            "slices": [
                {
                    "rule": part.rule,
                    "num_queries": len(part.items),
                    "map_mean": part.mean,
                    "map_mean_low": part.interval.low,
                    "map_mean_high": part.interval.high,
                    "map_mean_rest": part.rest,
                    "p_value": part.p_value,
                }
                for part in self.slices
            ],
        }


def analyse(evaluation: Evaluation, dataset: Dataset) -> Analysis:
    """Analyse the results of a model on the test split."""
    labels = dataset.labels[evaluation.rows]
    queries = Queries.of(dataset, evaluation.rows, scores=evaluation.scores, first=evaluation.first)
    image, text = evaluation.compared
    return Analysis(
        queries=queries,
        labels=_analyse_labels(evaluation, dataset, labels),
        confusions=confusions([evaluation.first[direction] for direction in DIRECTIONS], labels),
        precision_of_ranks={direction: precision_of_ranks(evaluation.first[direction]) for direction in DIRECTIONS},
        slices=find_slices(queries),
        reliability={
            modality: reliability(probabilities, labels) for modality, probabilities in evaluation.probabilities.items()
        },
        centroid_distance=centroid_distance(image, text),
        hubness={direction: hubness(evaluation.first[direction], len(labels)) for direction in DIRECTIONS},
        space=map_space(image, text),
    )


def _analyse_labels(evaluation: Evaluation, dataset: Dataset, labels: NDArray[np.uint8]) -> list[LabelAnalysis]:
    """Labels that some test item carries."""
    means = {
        direction: map_by_label(average_precision, labels)
        for direction, average_precision in evaluation.average_precision.items()
    }
    num_train = dataset.labels[dataset.splits == "train"].sum(axis=0, dtype=np.int64)
    num_queries = labels.sum(axis=0, dtype=np.int64)
    probabilities = list(evaluation.probabilities.values())

    def calibration_error(column: int) -> float | None:
        if not probabilities:
            return None
        of_label = np.stack([modality[:, column] for modality in probabilities])
        return reliability(of_label, np.stack([labels[:, column]] * len(probabilities))).error

    found = [
        LabelAnalysis(
            name=name,
            num_train=int(num_train[column]),
            num_queries=int(num_queries[column]),
            map_by_direction={direction: float(mean[column]) for direction, mean in means.items()},
            calibration_error=calibration_error(column),
        )
        for column, name in enumerate(dataset.label_names)
        if num_queries[column] > 0
    ]
    return sorted(found, key=lambda label: (-sum(label.map_by_direction.values()), label.name))

"""What a training reads: a split of the features, in memory or from the disk, and the label graph."""

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dagnn_core.artifacts import rerun
from dagnn_core.devices import free_memory
from dagnn_core.disk import readable_size
from dagnn_core.errors import ArtifactError
from dagnn_core.features.features import Features
from dagnn_core.label_graph.label_graph import LabelGraph
from dagnn_core.nn.label_graphs import GraphTensors
from dagnn_core.parallel import num_processes
from dagnn_core.training.disk_matrix import DiskMatrix
from dagnn_core.training.split import Split

log = logging.getLogger(__name__)


def read_split(features: Features, name: str, *, device: torch.device | str = "cpu", from_disk: bool = False) -> Split:
    """One split of the features.

    Args:
        features: the artifact.
        name: train, val or test.
        device: where labels go, and features.
        from_disk: leave the features on the disk, and read a batch when it is asked for.
    """
    rows = features.rows(name)
    place = torch.device(device)
    image, text = (
        DiskMatrix(matrix, rows, place) if from_disk else _rows_of(matrix, rows).to(place)
        for matrix in (features.image, features.text)
    )
    labels = features.labels[rows]
    is_labelled = labels.any(axis=1)
    return Split(
        *(image, text, torch.tensor(labels, dtype=torch.float32, device=place)),
        torch.tensor(features.has_image[rows]),
        torch.tensor(features.has_text[rows]),
        None if name != "train" or is_labelled.all() else torch.tensor(is_labelled),
    )


def fit_in_memory(features: Features, budget: float, device: torch.device) -> bool:
    """Whether the features that a training reads fit its budget of memory on the device; the log says where not.

    Args:
        features: the artifact; train and val splits count.
        budget: GiB, as `train.memory_budget`; 0: half of what is free, shared with the other processes of torchrun
            on a CPU.
        device: where they are to be.
    """
    num_items = sum(len(features.rows(name)) for name in ("train", "val"))
    need = num_items * (features.image.shape[1] + features.text.shape[1]) * np.dtype(np.float32).itemsize
    sharers = num_processes() if device.type == "cpu" else 1
    given = int(budget * 2**30) if budget else free_memory(device) // (2 * sharers)
    fit = bool(need <= given)
    if not fit:
        log.info(
            "features of %d items are read from the disk, batch by batch: they have %s, train.memory_budget is %s",
            num_items,
            readable_size(need),
            readable_size(given),
        )
    return fit


def graph_tensors(graph: LabelGraph) -> GraphTensors:
    """A label graph as a network takes it."""
    embeddings, adjacency, normalized = (
        torch.tensor(array, dtype=torch.float32) for array in (graph.embeddings, graph.adjacency, graph.normalized)
    )
    return GraphTensors(embeddings, adjacency, normalized, graph.threshold, trains_embeddings=graph.is_drawn)


def check_same_dataset(features: Features, graph: LabelGraph) -> None:
    """See that features and a label graph belong together.

    Raises:
        ArtifactError: they were made from different data sets.
    """
    ancestors = [artifact.provenance.get("ancestors", {}) for artifact in (features.artifact, graph.artifact)]
    if ancestors[0].get("dataset") != ancestors[1].get("dataset") or features.label_names != graph.label_names:
        raise ArtifactError(
            f"{features.artifact.path} and {graph.artifact.path} were made from different data sets",
            rerun("build_label_graph"),
        )


def _rows_of(matrix: NDArray[np.float32], rows: NDArray[np.int64]) -> Tensor:
    """Some rows, copied once."""
    copied = torch.empty(len(rows), matrix.shape[1])
    np.take(matrix, rows, axis=0, out=copied.numpy(), mode="clip")  # any other mode takes a second copy
    return copied

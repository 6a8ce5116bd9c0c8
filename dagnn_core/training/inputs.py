"""What a training reads, as tensors: a split of the features, and the label graph."""

import torch

from dagnn_core.artifacts import rerun
from dagnn_core.errors import ArtifactError
from dagnn_core.features.features import Features
from dagnn_core.label_graph.label_graph import LabelGraph
from dagnn_core.nn.label_graphs import GraphTensors
from dagnn_core.training.split import Split


def read_split(features: Features, name: str, *, device: torch.device | str = "cpu") -> Split:
    """One split of the features, in the memory of a device.

    Args:
        features: the artifact.
        name: train, val or test.
        device: where features and labels go.
    """
    rows = features.rows(name)
    matrices = (features.image, features.text, features.labels)
    image, text, labels = (torch.tensor(matrix[rows], dtype=torch.float32, device=device) for matrix in matrices)
    is_labelled = features.labels[rows].any(axis=1)
    return Split(
        *(image, text, labels),
        torch.tensor(features.has_image[rows]),
        torch.tensor(features.has_text[rows]),
        None if name != "train" or is_labelled.all() else torch.tensor(is_labelled),
    )


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

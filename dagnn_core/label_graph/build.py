"""Build the label graph of a data set's training split."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dagnn_core.artifacts import ArtifactDraft
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.data.vectors import save_array
from dagnn_core.errors import InputError
from dagnn_core.label_graph.cooccurrence import (
    conditional_probabilities,
    count_cooccurrences,
    isolated_labels,
    normalize_adjacency,
    threshold_adjacency,
)
from dagnn_core.label_graph.drawing import draw_label_graph
from dagnn_core.label_graph.embeddings import learn_label_vectors, read_label_vectors, unit_length
from dagnn_core.label_graph.label_graph import ARRAYS, DRAWING

log = logging.getLogger(__name__)


def write_label_graph(draft: ArtifactDraft, dataset: Dataset, config: LabelGraphConfig) -> None:
    """Build the label graph of a data set's training split and write it, with its image, into an artifact draft.

    A graph without any edge costs a warning.

    Raises:
        InputError: a label that no training item carries, or a label without a vector.
    """
    rows = dataset.rows("train")
    labels, names = dataset.labels[rows], dataset.label_names
    if len(names) < 2:
        raise InputError(
            f"{dataset.artifact.path} has {len(names)} label ({', '.join(names)}), expected at least 2 for a graph",
            "name more label columns, or lower dataset.min_label_count",
        )
    counts, label_counts = count_cooccurrences(labels)
    for name, count in zip(names, label_counts, strict=True):
        if count == 0:
            raise InputError(
                f"{dataset.artifact.path}: no training item has label {name!r}, expected at least one, else it has no "
                "conditional probability",
                "move items that have it into the training split, or drop such labels with "
                "dataset.min_label_count above 1",
            )
    conditional = conditional_probabilities(counts, label_counts)
    adjacency = threshold_adjacency(
        conditional if config.conditional == "i_given_j" else conditional.T,
        threshold=config.threshold,
        edge_weight=config.edge_weight,
        self_loop=config.self_loop,
    )
    if config.embedding == "file":
        embeddings = read_label_vectors(config.embedding_file, names)
    else:
        with_text = rows[dataset.has_text[rows]]
        texts = [dataset.texts[row] for row in with_text]
        embeddings = learn_label_vectors(texts, dataset.labels[with_text], names, dim=config.embedding_dim)
    if config.embedding_norm == "unit":
        embeddings = unit_length(embeddings)

    edges: NDArray[np.bool_] = np.greater_equal(conditional, config.threshold)
    if not edges.any():
        log.warning(
            "the label graph has no edge: no conditional probability reaches label_graph.threshold %g (the largest is "
            "%.3g), so labels do not exchange anything",
            config.threshold,
            conditional.max(),
        )
    normalized = normalize_adjacency(adjacency)
    arrays: Sequence[NDArray[Any]] = (counts, label_counts, conditional, adjacency, normalized, embeddings)
    for name, array in zip(ARRAYS, arrays, strict=True):
        save_array(draft.path / f"{name}.npy", array)
    draw_label_graph(
        draft.path / DRAWING,
        label_names=names,
        label_counts=label_counts,
        conditional=conditional,
        threshold=config.threshold,
        listener="a" if config.conditional == "i_given_j" else "b",
        num_items=len(rows),
    )
    draft.content |= {
        "label_names": list(names),
        "num_items": len(rows),
        "threshold": config.threshold,
        "num_edges": int(edges.sum()),
        "isolated_labels": [names[label] for label in isolated_labels(edges)],
        "embedding": {"kind": config.embedding, "dim": embeddings.shape[1]},
    }

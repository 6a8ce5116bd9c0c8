"""Build the label graph of a data set's training split."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dagnn_core.artifacts import ArtifactDraft
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.config.section import DEFAULT_SEED
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
from dagnn_core.label_graph.embeddings import (
    draw_label_vectors,
    learn_from_labels,
    learn_label_vectors,
    read_label_vectors,
    unit_length,
)
from dagnn_core.label_graph.label_graph import ARRAYS, DRAWING, UNSEEN_EMBEDDINGS

log = logging.getLogger(__name__)


def write_label_graph(draft: ArtifactDraft, dataset: Dataset, config: LabelGraphConfig) -> None:
    """Build the label graph of a data set's training split and write it, with its image, into an artifact draft.

    A graph without any edge costs a warning.

    Raises:
        InputError: a label that no training item carries, or a label without a vector.
    """
    rows = dataset.rows("train")
    labels, names = dataset.labels[rows], dataset.label_names
    num_labelled = int(labels.any(axis=1).sum())
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
    kind, embeddings = _node_vectors(dataset, rows, counts, label_counts, config)
    if config.embedding_norm == "unit":
        embeddings = unit_length(embeddings)
    embeddings, unseen_embeddings = embeddings[: len(names)], embeddings[len(names) :]

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
    known = unseen_embeddings.any(axis=1)
    if known.any():
        save_array(draft.path / UNSEEN_EMBEDDINGS, unseen_embeddings[known])
        draft.content["unseen_label_names"] = np.array(dataset.unseen_label_names)[known].tolist()
    draw_label_graph(
        draft.path / DRAWING,
        label_names=names,
        label_counts=label_counts,
        conditional=conditional,
        threshold=config.threshold,
        listener="a" if config.conditional == "i_given_j" else "b",
        num_items=num_labelled,
    )
    draft.content |= {
        "label_names": list(names),
        "num_items": num_labelled,
        "threshold": config.threshold,
        "num_edges": int(edges.sum()),
        "isolated_labels": [names[label] for label in isolated_labels(edges)],
        "embedding": {"kind": kind, "dim": embeddings.shape[1]},
    }


def _node_vectors(
    dataset: Dataset,
    rows: NDArray[np.int64],
    counts: NDArray[np.int64],
    label_counts: NDArray[np.int64],
    config: LabelGraphConfig,
) -> tuple[str, NDArray[np.float32]]:
    """How the vectors of the label nodes are made, and themselves, [C, e]; those of unseen labels follow, if known."""
    names, unseen = dataset.label_names, dataset.unseen_label_names
    if config.embedding == "file":
        return "file", read_label_vectors(config.embedding_file, [*names, *unseen])
    if config.embedding == "learned":
        return "learned", draw_label_vectors(len(names), dim=config.embedding_dim, seed=DEFAULT_SEED)
    with_text = rows[dataset.has_text[rows]]
    texts = [dataset.texts[row] for row in with_text]
    if config.embedding == "auto" and not any(texts):
        log.info("no training item has a text, so the label vectors are learned from the labels alone")
        return "ppmi_svd_of_labels", learn_from_labels(counts, label_counts, dim=config.embedding_dim)
    labels = dataset.labels[with_text]
    return "ppmi_svd", learn_label_vectors(texts, labels, names, dim=config.embedding_dim, unseen_names=unseen)

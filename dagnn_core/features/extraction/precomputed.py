"""Precomputed vectors as features: the data set's own, or those of a file, joined by id."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dagnn_core.config.features import FeaturesConfig
from dagnn_core.data.dataset import Dataset, Modality
from dagnn_core.data.vectors import read_vectors
from dagnn_core.errors import InputError
from dagnn_core.text import name_first

log = logging.getLogger(__name__)


class PrecomputedMatrix(NamedTuple):
    """Vectors of all items of a data set, a few rows at a time."""

    rows: Callable[[slice], NDArray[np.float32]]
    """Some rows; zeros where an item lacks the modality."""
    dim: int


def join_vectors(dataset: Dataset, modality: Modality, file: Path) -> PrecomputedMatrix:
    """The vectors of an `.npz` file with `ids` and `features`; those of other ids are left out.

    Raises:
        InputError: the file cannot be used, or has no finite vector for an item with this modality.
    """
    key = f"features.{modality}_vectors"
    try:
        ready = read_vectors(file)
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
    present = dataset.has_image if modality == "image" else dataset.has_text
    ids = [item_id if has else None for item_id, has in zip(dataset.ids, present.tolist(), strict=True)]
    wanted = {item_id for item_id in ids if item_id is not None}
    for bad, fault in (
        (wanted - ready.row_of.keys(), "has no vector for"),
        (wanted & ready.not_finite, "has NaN or infinity for"),
    ):
        if bad:
            named = name_first([repr(item_id) for item_id in ids if item_id in bad])
            raise InputError(
                f"{key}: {file} {fault} {len(bad)} of the {len(wanted)} items with {modality} ({named}), expected a "
                f"finite vector for each",
                f"correct the file, or choose another features.{modality} in params.yaml",
            )
    extra = len(ready.row_of.keys() - wanted)
    if extra:
        log.info("%s: %d vectors of %s belong to no item with %s and are left out", key, extra, file, modality)
    return PrecomputedMatrix(lambda rows: ready.of(ids[rows]).astype(np.float32), ready.features.shape[1])


def own_vectors(dataset: Dataset, modality: Modality) -> PrecomputedMatrix:
    """The vectors that the data set came with.

    Raises:
        InputError: there are none, or they do not fit; or, when rows are read, they are not finite.
    """
    vectors = dataset.vectors(modality)
    if vectors is None:
        raise InputError(
            f"{dataset.artifact.path} has no precomputed {modality} vectors, "
            f"as features.{modality}: precomputed expects",
            f"name a file with them in features.{modality}_vectors, or choose another features.{modality} in "
            "params.yaml",
        )
    if vectors.ndim != 2 or len(vectors) != len(dataset) or not vectors.shape[1] or vectors.dtype.kind != "f":
        raise InputError(
            f"{dataset.artifact.path}: vectors/{modality}.npy is {vectors.dtype} {list(vectors.shape)}, expected "
            f"floating-point numbers [{len(dataset)}, dim]",
            "correct the raw data and rebuild the data set",
        )
    return PrecomputedMatrix(lambda rows: _finite(dataset, modality, vectors, rows), vectors.shape[1])


def own_vector_files(config: FeaturesConfig) -> list[str]:
    """Files of a data set that `own_vectors` reads."""
    chosen = {"image": (config.image, config.image_vectors), "text": (config.text, config.text_vectors)}
    return [f"vectors/{modality}.npy" for modality, value in chosen.items() if value == ("precomputed", "")]


def _finite(
    dataset: Dataset, modality: Modality, vectors: NDArray[np.floating[Any]], rows: slice
) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, and is refused
        block = vectors[rows].astype(np.float32)
    bad = rows.start + np.flatnonzero(~np.isfinite(block).all(axis=1))
    if len(bad):
        named = name_first([f"{dataset.ids[row]!r} (row {row})" for row in bad])
        raise InputError(
            f"{dataset.artifact.path}: vectors/{modality}.npy has NaN or infinity for the items {named}, expected "
            "finite numbers",
            "correct the raw data and rebuild the data set",
        )
    return block

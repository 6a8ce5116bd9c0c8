"""Measure versions again on one test split: the challenger alone, and beside the champion."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.services.promotion.gate import SLICES, Comparison, NotApplicable
from dagnn_core.config.register import GateConfig
from dagnn_core.data.dataset import Dataset, Modality
from dagnn_core.errors import InputError
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.progress import track
from dagnn_core.retrieval.bootstrap import Difference
from dagnn_core.retrieval.comparison import compare_queries
from dagnn_core.retrieval.directions import DIRECTIONS
from dagnn_core.retrieval.metrics import mean_scores, score_pairs
from dagnn_core.retrieval.slices import rare_label_items, short_text_items

BATCH = 64  # images or texts at a time
SAMPLE = 16  # items of a load test


class Scored(NamedTuple):
    """A model on the test split, N pairs."""

    image: NDArray[np.float32]
    """Image embeddings [N, d]."""
    text: NDArray[np.float32]
    """Text embeddings [N, d]."""
    metrics: Mapping[str, float]
    average_precision: Mapping[str, NDArray[np.float64]]
    """By direction, [N]; NaN where nothing is relevant."""


class Sample(NamedTuple):
    """A few queries as a served version takes them, and their embeddings."""

    rows: Sequence[Mapping[str, str]]
    """One of `text` and `image` each."""
    embeddings: NDArray[np.float32]


def rows_of_test(dataset: Dataset) -> NDArray[np.int64]:
    """The test items that have both image and text.

    Raises:
        InputError: there are none.
    """
    rows = np.flatnonzero((dataset.splits == "test") & dataset.has_image & dataset.has_text)
    if not len(rows):
        raise InputError(f"{dataset.artifact.path} has no test items with image and text, expected at least one")
    return rows


def score(model: TrainedModel, dataset: Dataset, *, name: str) -> Scored:
    """Encode the raw test split by a model and measure its retrieval.

    Args:
        model: the model.
        dataset: the data set.
        name: what messages call the model.

    Raises:
        InputError: the model cannot encode these data: it was trained on precomputed vectors that they do not have, or
            on images or texts where they have vectors alone.
    """
    rows = rows_of_test(dataset)
    image = model.embed_image_features(_encode(model, dataset, rows, "image", name))
    text = model.embed_text_features(_encode(model, dataset, rows, "text", name))
    scores = score_pairs(image, text, dataset.labels[rows])
    return Scored(
        image,
        text,
        mean_scores(*scores),
        {direction: one.average_precision for direction, one in zip(DIRECTIONS, scores, strict=True)},
    )


def compare(challenger: Scored, champion: Scored, dataset: Dataset, config: GateConfig) -> Comparison:
    """Compare two models by paired bootstrap over the same queries, all of them and slice by slice.

    Raises:
        InputError: fewer than two queries have a relevant item.
    """
    rows = rows_of_test(dataset)

    def difference(directions: Iterable[str], part: NDArray[np.bool_] | slice = slice(None)) -> Difference:
        return compare_queries(
            challenger.average_precision,
            champion.average_precision,
            directions,
            part,
            num_resamples=config.num_resamples,
            seed=config.seed,
            level=2 * config.confidence - 1,  # one side of it
        )

    def of_slice(directions: Iterable[str], part: NDArray[np.bool_], what: str) -> Difference | NotApplicable:
        num_queries = int((part & ~np.isnan(challenger.average_precision["i2t"])).sum())
        if num_queries < 2:
            return NotApplicable(f"{what} in the test split: {num_queries}, too few to compare")
        return difference(directions, part)

    rare = rare_label_items(
        dataset.labels[rows], dataset.labels[dataset.splits == "train"].sum(axis=0, dtype=np.int64), config.rare_labels
    )
    written = bool(dataset.is_written[rows].all())
    short = short_text_items([dataset.texts[row] for row in rows], config.short_texts)
    return Comparison(
        champion.metrics,
        {direction: difference([direction]) for direction in DIRECTIONS},
        {
            "rare_labels": of_slice(DIRECTIONS, rare, SLICES["rare_labels"]),
            "short_texts": of_slice(["t2i"], short, SLICES["short_texts"])
            if written
            else NotApplicable("the data set has precomputed text vectors, not texts in words"),
        },
    )


def sample(model: TrainedModel, dataset: Dataset, scored: Scored) -> Sample:
    """The first few test items as rows for a served version, with the embeddings that it must give."""
    rows = rows_of_test(dataset)[:SAMPLE]
    texts = [dataset.texts[row] for row in rows]
    if model.text_encoder.kind == "precomputed":
        texts = [json.dumps(vector.tolist()) for vector in _precomputed_vectors(model, dataset, rows, "text", "")]
    if model.image_encoder.kind == "precomputed":
        images = [json.dumps(vector.tolist()) for vector in _precomputed_vectors(model, dataset, rows, "image", "")]
    else:
        images = [base64.b64encode(encoded or b"").decode() for encoded in dataset.images(rows.tolist())]
    return Sample(
        [*({"text": text} for text in texts), *({"image": image} for image in images)],
        np.concatenate([scored.text[: len(rows)], scored.image[: len(rows)]]),
    )


def _encode(
    model: TrainedModel, dataset: Dataset, rows: NDArray[np.int64], modality: Modality, name: str
) -> NDArray[np.float32]:
    """Features of one modality, by the encoder that the model has stored."""
    if modality == "image" and model.image_encoder.kind != "precomputed":
        return _encode_images(model, dataset, rows, name)
    if modality == "text" and model.text_encoder.kind != "precomputed":
        return _encode_texts(model, dataset, rows, name)
    return _precomputed_vectors(model, dataset, rows, modality, name)


def _encode_texts(model: TrainedModel, dataset: Dataset, rows: NDArray[np.int64], name: str) -> NDArray[np.float32]:
    texts = [dataset.texts[row] for row in rows]
    if not all(texts):
        raise InputError(
            f"{name} cannot encode these data: it takes texts ({model.text_encoder.kind}), but item "
            f"{dataset.ids[rows[texts.index('')]]!r} has a precomputed text vector only"
        )
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    encoded = track(map(model.text_encoder.encode, batches), description="encoding texts", total=len(batches))
    return np.concatenate(list(encoded))


def _encode_images(model: TrainedModel, dataset: Dataset, rows: NDArray[np.int64], name: str) -> NDArray[np.float32]:
    wanted = np.zeros(len(dataset), dtype=np.bool_)
    wanted[rows] = True
    blocks = []
    groups = dataset.iterate_images(wanted)
    for group in track(groups, description="encoding images", total=len(rows), size=len):
        images = [image for image in group if image is not None]
        if len(images) < len(group):
            raise InputError(
                f"{name} cannot encode these data: it takes images ({model.image_encoder.kind}), but the data set "
                "has precomputed image vectors only"
            )
        blocks += [model.image_encoder.encode(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    return np.concatenate(blocks)


def _precomputed_vectors(
    model: TrainedModel, dataset: Dataset, rows: NDArray[np.int64], modality: Modality, name: str
) -> NDArray[np.float32]:
    dim = (model.image_encoder if modality == "image" else model.text_encoder).dim
    vectors = dataset.vectors(modality)
    fault = ""
    if "vectors_sha256" in model.artifact.content[modality]:
        fault = f"it takes {modality} vectors of a file of its own (features.{modality}_vectors)"
    elif vectors is None:
        fault = f"it takes precomputed {modality} vectors, and the data set has none"
    elif vectors.shape[1:] != (dim,):
        fault = f"it takes {modality} vectors of {dim} numbers, and those of the data set have {vectors.shape[-1]}"
    if fault or vectors is None:
        raise InputError(f"{name} cannot encode these data: {fault}", "train on the data set's own vectors or raw data")
    return vectors[rows].astype(np.float32)

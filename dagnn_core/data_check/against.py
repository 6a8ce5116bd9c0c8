"""How a data set differs from another one, such as new data from the data of the training."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dagnn_core.config.section import DEFAULT_SEED
from dagnn_core.data.dataset import Dataset, Modality
from dagnn_core.data_check.copies import Items, copy_rates, text_keys
from dagnn_core.data_check.findings import Finding, Limits, judge
from dagnn_core.data_check.schema import MODALITIES
from dagnn_core.data_check.splits import LabelledItems, label_shift
from dagnn_core.data_check.statistics import distribution_shifts, unseen_words
from dagnn_core.data_check.traits import ImageTraits
from dagnn_core.features.tokens import tokenize

MAX_VECTORS = 2000  # drawn of each data set: then a distance of 0.1 is significant in thousands of dimensions
UNKNOWN_LABELS = 0.01  # fraction of items with labels of one data set alone: random halves differ in the rarest ones
RETRAIN = "train on data like this, or find out why it differs"


def check_against(
    dataset: Dataset, traits: ImageTraits, other: Dataset, other_traits: ImageTraits, limits: Limits
) -> Iterator[Finding]:
    """Compare all items of a data set with all items of the other one."""
    yield from _labels(dataset, other, limits)
    yield from _texts(dataset, other, limits)
    yield from _images(traits, other_traits, limits)
    yield from _vectors(dataset, other, limits)
    yield from _shared(dataset, traits, other, other_traits, limits)


def _labels(dataset: Dataset, other: Dataset, limits: Limits) -> Iterator[Finding]:
    unseen, share = _labels_alone(dataset, other)
    yield judge(
        "unseen_labels",
        share,
        UNKNOWN_LABELS,
        "fraction of items with labels that the other data set does not have; a model of it never answers with them",
        examples=unseen,
    )
    missing, share = _labels_alone(other, dataset)
    yield judge(
        "missing_labels",
        share,
        UNKNOWN_LABELS,
        "fraction of the other's items with labels that are missing here; nothing is measured on them",
        examples=missing,
        above="warning",
    )
    shared = [name for name in dataset.label_names if name in other.label_names]
    if shared:
        yield label_shift(
            "label_shift",
            LabelledItems("this", dataset.labels[:, [dataset.label_names.index(name) for name in shared]]),
            LabelledItems("the other", other.labels[:, [other.label_names.index(name) for name in shared]]),
            label_names=shared,
            limits=limits,
            remedy=RETRAIN,
        )


def _labels_alone(dataset: Dataset, other: Dataset) -> tuple[list[str], float]:
    """Labels that items of one data set have and none of the other, and the fraction of its items with them."""
    present = {name for name, count in zip(other.label_names, other.labels.sum(axis=0), strict=True) if count}
    alone = np.array([name not in present for name in dataset.label_names])
    counts = dataset.labels.sum(axis=0, dtype=np.int64) * alone
    names = [dataset.label_names[label] for label in np.argsort(-counts, kind="stable") if counts[label]]
    return names, float(dataset.labels[:, alone].any(axis=1).mean())


def _texts(dataset: Dataset, other: Dataset, limits: Limits) -> Iterator[Finding]:
    texts, other_texts = ([text for text in side.texts if text] for side in (dataset, other))
    if not texts or not other_texts:
        return
    lengths, other_lengths = (np.array([[len(tokenize(text))] for text in side]) for side in (texts, other_texts))
    yield judge(
        "text_length_shift",
        float(distribution_shifts(lengths, other_lengths)[0]),
        limits.drift,
        f"distance of the distributions of words per text; {RETRAIN}",
        examples=[f"mean {lengths.mean():.1f} words, {other_lengths.mean():.1f} in the other"],
    )
    excess, words = unseen_words(texts, other_texts)
    yield judge(
        "unseen_words",
        excess,
        limits.unseen_words,
        f"fraction of words that the other data set lacks, beyond the expected; {RETRAIN}",
        examples=words,
    )


def _images(traits: ImageTraits, other_traits: ImageTraits, limits: Limits) -> Iterator[Finding]:
    if not traits.decodes.any() or not other_traits.decodes.any():
        return
    one, other = (np.stack([side.brightness, side.num_pixels], axis=1)[side.decodes] for side in (traits, other_traits))
    brightness, size = distribution_shifts(one, other).tolist()
    means = one.mean(axis=0), other.mean(axis=0)
    yield judge(
        "image_brightness_shift",
        brightness,
        limits.drift,
        f"distance of the distributions of mean brightness; {RETRAIN}",
        examples=[f"mean {means[0][0]:.0f} of 255, {means[1][0]:.0f} in the other"],
    )
    yield judge(
        "image_size_shift",
        size,
        limits.drift,
        "distance of the distributions of pixels per image; encoders resize, but small images say less",
        examples=[f"mean {means[0][1]:,.0f} pixels, {means[1][1]:,.0f} in the other"],
        above="warning",
    )


def _vectors(dataset: Dataset, other: Dataset, limits: Limits) -> Iterator[Finding]:
    for modality in MODALITIES:
        one, two = _drawn_vectors(dataset, modality), _drawn_vectors(other, modality)
        if one is None or two is None:
            continue
        dims = one.shape[1], two.shape[1]
        yield judge(
            f"{modality}_vector_dimensions",
            abs(dims[0] - dims[1]),
            0,
            "difference in the dimensions of the precomputed vectors: no model takes both; make them with one encoder",
            examples=[f"{dims[0]} here, {dims[1]} in the other"],
        )
        if dims[0] != dims[1] or not len(one) or not len(two):
            continue
        shifts = distribution_shifts(one, two)
        shifted = [dim for dim in np.argsort(-shifts, kind="stable").tolist() if shifts[dim] > 0]
        yield judge(
            f"{modality}_vector_shift",
            float(shifts.max()),
            limits.drift,
            f"largest distance of the distributions of a dimension of the precomputed vectors; {RETRAIN}",
            examples=[f"dimension {dim}: {shifts[dim]:.2f}" for dim in shifted],
        )


def _drawn_vectors(dataset: Dataset, modality: Modality) -> NDArray[np.floating[Any]] | None:
    """Some finite precomputed vectors, [at most MAX_VECTORS, dim]."""
    vectors = dataset.vectors(modality)
    if vectors is None:
        return None
    rows = np.flatnonzero(dataset.has_image if modality == "image" else dataset.has_text)
    rows = np.sort(np.random.default_rng(DEFAULT_SEED).permutation(rows)[:MAX_VECTORS])
    drawn = vectors[rows]
    finite: NDArray[np.floating[Any]] = drawn[np.isfinite(drawn).all(axis=1)]
    return finite


def _shared(
    dataset: Dataset, traits: ImageTraits, other: Dataset, other_traits: ImageTraits, limits: Limits
) -> Iterator[Finding]:
    known = set(other.ids)
    ids = [item for item in dataset.ids if item in known]
    yield judge(
        "shared_ids",
        len(ids),
        0,
        "ids that the other data set has, too; they cannot be told apart, if these are different items",
        examples=ids,
        above="warning",
    )
    sizes = len(dataset), len(other)
    items = Items(
        names=[*dataset.ids, *(f"{item} of the other" for item in other.ids)],
        groups=np.repeat([0, 1], sizes),
        counted=np.repeat([True, False], sizes),
        is_written=np.concatenate([dataset.is_written, other.is_written]),
        text_keys=np.concatenate([text_keys(dataset), text_keys(other)]),
        traits=traits.followed_by(other_traits),
    )
    rates = copy_rates(items, near_distance=limits.near_distance)
    with_image = traits.has_encoded_image.any() and other_traits.has_encoded_image.any()
    for name, how, rate in (
        ("shared_images", "too", rates.images),
        ("shared_near_images", "nearly identically", rates.near_images),
    ):
        if with_image:
            yield judge(
                name,
                rate.across,
                limits.leaked_images,
                f"fraction of images that the other data set has, {how}; leave them out before one tests the other",
                examples=rate.examples_across,
            )
    yield judge(
        "shared_texts",
        rates.texts.across,
        limits.leaked_texts,
        "fraction of texts that the other data set has with the same labels; right where names are short",
        examples=rates.texts.examples_across,
        above="warning",
    )

"""Precomputed vectors of a file, joined by id."""

import logging
import re
from dataclasses import replace

import numpy as np
import pytest

from dagnn_core.artifacts import sha256_of, write_artifact
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.errors import InputError
from dagnn_core.features.extraction import extract as extraction
from dagnn_core.features.features import Features
from tests.features.small_backbones import make_dataset

NUM_ITEMS = 12  # rows 6 and 13 ... lack the image, 5 and 12 ... the text


@pytest.fixture
def dataset(tmp_path):
    return make_dataset(tmp_path / "dataset", NUM_ITEMS)


def write_vectors(path, ids, *, changes=None, dtype=np.float32):
    features = np.random.default_rng(0).normal(size=(len(ids), 3)).astype(dtype)
    for row, value in (changes or {}).items():
        features[row, 1] = value
    np.savez(path, ids=np.array(ids), features=features)
    return features


def extract(root, dataset, config):
    with write_artifact(root / "features", kind="features", provenance={}) as draft:
        draft.content = extraction.write_features(draft.path, dataset, config, cache=root / "cache")
    return Features.read(root / "features", verify=True)


def config_for(modality, path):
    config = FeaturesConfig(min_word_count=1)
    return replace(config, **{modality: "precomputed", f"{modality}_vectors": str(path)})


IMAGE_IDS = [f"item-{row}" for row in range(NUM_ITEMS) if row % 7 != 6]
TEXT_IDS = [f"item-{row}" for row in range(NUM_ITEMS) if row % 7 != 5]


@pytest.mark.parametrize(("modality", "ids"), [("image", IMAGE_IDS), ("text", TEXT_IDS)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_vectors_are_joined_by_id(tmp_path, dataset, caplog, modality, ids, dtype):  # noqa: PLR0917
    path = tmp_path / "vectors.npz"
    shuffled = [*reversed(ids), "a stranger", "another"]
    vectors = write_vectors(path, shuffled, dtype=dtype)
    with caplog.at_level(logging.INFO):
        features = extract(tmp_path, dataset, config_for(modality, path))
    matrix = getattr(features, modality)
    for row, item_id in enumerate(dataset.ids):
        expected = vectors[shuffled.index(item_id)].astype(np.float32) if item_id in ids else np.zeros(3)
        np.testing.assert_array_equal(matrix[row], expected)
    assert f"features.{modality}_vectors: 2 vectors of {path} belong to no item with {modality}" in caplog.text
    content = features.artifact.content
    assert content[modality]["kind"] == "precomputed"
    assert content[modality]["vectors_sha256"] == sha256_of(path)
    assert "vectors_sha256" not in content["text" if modality == "image" else "image"]


@pytest.mark.parametrize(
    ("ids", "changes", "message"),
    [
        (
            IMAGE_IDS[:6],
            {},
            "has no vector for 5 of the 11 items with image ('item-7', 'item-8', 'item-9' and 2 more)",
        ),
        (
            IMAGE_IDS,
            {2: np.nan, 4: np.inf},
            "has NaN or infinity for 2 of the 11 items with image ('item-2', 'item-4')",
        ),
    ],
)
def test_items_without_a_usable_vector_are_named(tmp_path, dataset, ids, changes, message):
    path = tmp_path / "vectors.npz"
    write_vectors(path, ids, changes=changes)
    with pytest.raises(
        InputError,
        match=rf"^features\.image_vectors: {re.escape(str(path))} {re.escape(message)}, expected a finite vector",
    ) as error:
        extract(tmp_path, dataset, config_for("image", path))
    assert "\n" not in str(error.value)


def test_nan_of_an_item_that_is_not_used_does_not_matter(tmp_path, dataset):
    path = tmp_path / "vectors.npz"
    write_vectors(path, [*IMAGE_IDS, "item-6"], changes={11: np.nan})
    features = extract(tmp_path, dataset, config_for("image", path))
    assert np.isfinite(features.image).all() and not features.image[6].any()


def test_a_file_that_cannot_be_used_is_named_with_its_key(tmp_path, dataset):
    with pytest.raises(InputError, match=r"^features\.text_vectors: .*nothing\.npz does not exist"):
        extract(tmp_path, dataset, config_for("text", tmp_path / "nothing.npz"))

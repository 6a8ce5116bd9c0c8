import io
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dagnn_core.artifacts import write_artifact
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.data.dataset import Dataset, Item
from dagnn_core.data.ingest.writer import DatasetWriter
from dagnn_core.errors import InputError
from dagnn_core.features.encoders.registry import load_image_encoder, load_text_encoder
from dagnn_core.features.extraction import extract as extraction
from dagnn_core.features.extraction.extract import write_features
from dagnn_core.features.features import Features

WORDS = ["red boat", "blue boat", "blue sea"]
SPLITS = ["train", "train", "val", "train", "test"]
CLASSIC = FeaturesConfig(min_word_count=1)
PRECOMPUTED = FeaturesConfig(image="precomputed", text="precomputed")


def make_image(seed):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def make_dataset(path, *, texts=WORDS * 4, images=None, splits=SPLITS * 3, vectors=None, without_image=()):
    num_items = len(texts)
    images = images or [None if row in without_image else make_image(row) for row in range(num_items)]
    with write_artifact(path, kind="dataset", provenance={}) as draft:
        with DatasetWriter(draft.path, ["boat", "sea"]) as writer:
            for row, (text, image, split) in enumerate(zip(texts, images, splits, strict=False)):
                label = "boat" if "boat" in text else "sea"
                has = (row not in without_image, text != "")
                writer.add(Item(f"item-{row}", text, (label,), image, f"{row}.png", split, *has))
            writer.write_rejected([])
            for modality, matrix in (vectors or {}).items():
                writer.write_vectors(modality, matrix, range(len(matrix)))
        draft.content = writer.content
    return Dataset.read(path)


def extract(path, dataset, config):
    with write_artifact(path, kind="features", provenance={}) as draft:
        draft.content = write_features(draft.path, dataset, config, cache=path.parent / "cache")
    return Features.read(path, verify=True)


@pytest.mark.parametrize("text", ["bow", "tfidf", "supervised_bow"])
def test_features_are_those_of_the_saved_encoders_in_row_order(tmp_path, monkeypatch, text):
    monkeypatch.setattr(extraction, "BLOCK_ROWS", 5)
    dataset = make_dataset(tmp_path / "dataset")
    features = extract(tmp_path / "features", dataset, FeaturesConfig(text=text, min_word_count=1))
    assert features.ids == dataset.ids
    assert features.label_names == ("boat", "sea")
    np.testing.assert_array_equal(features.splits, dataset.splits)
    np.testing.assert_array_equal(features.labels, dataset.labels)
    assert features.image.dtype == features.text.dtype == np.float32
    image_encoder = load_image_encoder(features.artifact.path / "image_encoder")
    text_encoder = load_text_encoder(features.artifact.path / "text_encoder")
    images = [image for batch in dataset.iterate_images() for image in batch]
    assert features.image.tobytes() == image_encoder.encode(images).tobytes()
    assert features.text.tobytes() == text_encoder.encode(dataset.texts).tobytes()
    assert np.abs(features.image[features.rows("train")].mean(axis=0)).max() < 0.5
    samples = pq.read_table(features.artifact.file("samples.parquet"))
    assert samples["has_image"].to_pylist() == samples["has_text"].to_pylist() == [True] * len(dataset)
    fitted = ("hidden.safetensors", "words/encoder.json") if text == "supervised_bow" else ()
    assert sorted(features.artifact.files) == [
        *("image.npy", "image_encoder/deviation.npy", "image_encoder/encoder.json", "image_encoder/mean.npy"),
        *("labels.npy", "samples.parquet", "text.npy", "text_encoder/encoder.json"),
        *(f"text_encoder/{name}" for name in fitted),
    ]


def test_the_manifest_says_what_the_files_hold(tmp_path):
    texts = ["red boat", "blue boat", "nothing known", "blue boat", "nor here"]
    features = extract(tmp_path / "features", make_dataset(tmp_path / "dataset", texts=texts), CLASSIC)
    image_dim, text_dim = features.image.shape[1], features.text.shape[1]
    assert features.artifact.content == {
        "label_names": ["boat", "sea"],
        "num_items": 5,
        "splits": {"train": 3, "val": 1, "test": 1},
        "image": {
            "kind": "classic",
            "dim": image_dim,
            "dtype": "float32",
            "num_zero_vectors": {"train": 0, "val": 0, "test": 0},
        },
        "text": {
            "kind": "bow",
            "dim": text_dim,
            "dtype": "float32",
            "num_zero_vectors": {"train": 0, "val": 1, "test": 1},
        },
    }


@pytest.mark.parametrize("text", ["bow", "tfidf", "supervised_bow"])
def test_encoders_see_the_training_split_alone(tmp_path, text):
    def state(name, last_text, last_image):
        dataset = make_dataset(
            tmp_path / f"dataset-{name}",
            texts=[*WORDS, "red sea", last_text],
            images=[*(make_image(row) for row in range(4)), last_image],
        )
        features = extract(tmp_path / name, dataset, FeaturesConfig(text=text, min_word_count=1, supervised_dim=4))
        return {file: entry.sha256 for file, entry in features.artifact.files.items() if "encoder/" in file}

    assert state("one", "red boat", make_image(4)) == state("other", "green tree", make_image(5))


@pytest.mark.parametrize("text", ["bow", "tfidf", "supervised_bow"])
def test_missing_images_and_texts_are_zeros_and_fit_nothing(tmp_path, monkeypatch, text):
    """Encoders are those of the items that have the modality, as if the others were not there."""
    monkeypatch.setattr(extraction, "BLOCK_ROWS", 5)
    without_image, without_text = (0, 6), (1, 3)
    texts = ["" if row in without_text else text for row, text in enumerate(WORDS * 4)]
    dataset = make_dataset(tmp_path / "dataset", texts=texts, without_image=without_image)
    config = FeaturesConfig(text=text, min_word_count=1)
    features = extract(tmp_path / "features", dataset, config)
    assert np.flatnonzero(~features.has_image).tolist() == list(without_image)
    assert np.flatnonzero(~features.has_text).tolist() == list(without_text)
    assert features.image[[0, 6]].tobytes() == bytes(features.image[[0, 6]].nbytes)
    assert features.text[[1, 3]].tobytes() == bytes(features.text[[1, 3]].nbytes)
    for part in ("image", "text"):
        present = np.flatnonzero(getattr(features, f"has_{part}"))
        others = extract(
            tmp_path / f"{part}_features",
            make_dataset(
                tmp_path / f"{part}_dataset",
                texts=[dataset.texts[row] for row in present],
                images=[make_image(row) for row in present],
                splits=dataset.splits[present].tolist(),
            ),
            config,
        )
        np.testing.assert_array_equal(getattr(features, part)[present], getattr(others, part))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            ["一条船", "一条船", "太阳照耀", "小狗在跑", "绿色的树"],
            r"3 of 5 texts have no word .*features\.text: hugg",
        ),
        (["red boat", "red boat", "a", "b", "c"], r"3 of 5 texts have no word .*; lower features\.min_word_count"),
        (["red boat", "red boat", "red", "a boat", "boats, red"], ""),
    ],
)
def test_many_texts_without_a_word_are_reported_with_the_remedy(tmp_path, caplog, texts, message):
    config = FeaturesConfig(min_word_count=2)
    extract(tmp_path / "features", make_dataset(tmp_path / "dataset", texts=texts), config)
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == bool(message)
    assert not message or re.search(message, warned[0])


def test_zero_vectors_of_missing_modalities_do_not_count(tmp_path):
    texts = ["red boat", "", "blue boat", "nothing known", "blue sea"]
    splits = ["train", "train", "train", "val", "test"]
    dataset = make_dataset(tmp_path / "dataset", texts=texts, splits=splits, without_image=(0,))
    content = extract(tmp_path / "features", dataset, CLASSIC).artifact.content
    assert content["text"]["num_zero_vectors"] == {"train": 0, "val": 1, "test": 0}
    assert content["image"]["num_zero_vectors"] == {"train": 0, "val": 0, "test": 0}


def test_precomputed_vectors_of_missing_modalities_stay_zeros(tmp_path):
    vectors = np.arange(1, 25, dtype=np.float32).reshape(12, 2)
    vectors[4] = 0
    dataset = make_dataset(tmp_path / "dataset", vectors={"image": vectors}, without_image=(4,))
    features = extract(tmp_path / "features", dataset, FeaturesConfig(image="precomputed", min_word_count=1))
    np.testing.assert_array_equal(features.image, vectors)
    assert features.artifact.content["image"]["num_zero_vectors"] == {"train": 0, "val": 0, "test": 0}


def test_pairs_are_the_rows_of_a_split_that_have_both(tmp_path):
    texts = ["" if row == 1 else text for row, text in enumerate(WORDS * 4)]
    features = extract(
        tmp_path / "features", make_dataset(tmp_path / "dataset", texts=texts, without_image=(0, 6)), CLASSIC
    )
    assert features.rows("train").tolist() == [0, 1, 3, 5, 6, 8, 10, 11]
    assert features.pairs("train").tolist() == [3, 5, 8, 10, 11]
    assert features.pairs("val").tolist() == features.rows("val").tolist() == [2, 7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"without_image": range(12)},
            r"dataset: none of the 8 training items has an image, .* dataset\.folder\.images or image_vectors",
        ),
        ({"texts": [""] * 12}, r"none of the 8 training items has a text, .* dataset\.folder\.text_column\)"),
    ],
)
@pytest.mark.parametrize("config", [CLASSIC, PRECOMPUTED])
def test_a_modality_that_no_training_item_has_is_refused(tmp_path, changes, message, config):
    dataset = make_dataset(tmp_path / "dataset", **changes)
    with pytest.raises(InputError, match=message) as error:
        extract(tmp_path / "features", dataset, config)
    assert "\n" not in str(error.value)


def test_precomputed_vectors_are_taken_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    vectors = {"image": rng.normal(size=(12, 3)).astype(np.float16), "text": rng.normal(size=(12, 2))}
    features = extract(tmp_path / "features", make_dataset(tmp_path / "dataset", vectors=vectors), PRECOMPUTED)
    np.testing.assert_array_equal(features.image, vectors["image"].astype(np.float32))
    np.testing.assert_array_equal(features.text, vectors["text"].astype(np.float32))
    assert features.artifact.content["image"]["kind"] == features.artifact.content["text"]["kind"] == "precomputed"
    assert load_image_encoder(features.artifact.path / "image_encoder").dim == 3
    assert load_text_encoder(features.artifact.path / "text_encoder").dim == 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PRECOMPUTED, r"no precomputed text vectors.*in features\.text_vectors, or choose another features\.text"),
        (
            FeaturesConfig(image="precomputed"),
            r"no precomputed image vectors.*in features\.image_vectors, or choose another features\.image",
        ),
    ],
)
def test_missing_vectors_are_named_with_the_remedy(tmp_path, config, message):
    dataset = make_dataset(tmp_path / "dataset")
    with pytest.raises(InputError, match=message):
        extract(tmp_path / "features", dataset, config)
    assert [entry.name for entry in tmp_path.iterdir()] == ["dataset"]


@pytest.mark.parametrize(
    ("vectors", "shape"),
    [
        (np.zeros((11, 3), np.float32), "float32 [11, 3]"),
        (np.zeros((12, 3), np.int64), "int64 [12, 3]"),
        (np.zeros((12, 0), np.float32), "float32 [12, 0]"),
        (np.zeros((12, 3, 1), np.float32), "float32 [12, 3, 1]"),
    ],
)
def test_vectors_of_another_shape_are_refused(tmp_path, vectors, shape):
    dataset = make_dataset(tmp_path / "dataset", vectors={"image": vectors})
    message = re.escape(f"vectors/image.npy is {shape}, expected floating-point numbers [12, dim]")
    with pytest.raises(InputError, match=message):
        extract(tmp_path / "features", dataset, FeaturesConfig(image="precomputed"))


def test_vectors_that_are_not_finite_name_items_and_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "BLOCK_ROWS", 6)
    vectors = np.zeros((12, 2))
    vectors[[7, 8, 9, 11], 1] = np.nan, np.inf, 1e300, -np.inf  # float32 cannot hold 1e300
    dataset = make_dataset(tmp_path / "dataset", vectors={"image": vectors})
    message = r"NaN or infinity for the items 'item-7' \(row 7\), 'item-8' \(row 8\), 'item-9' \(row 9\) and 1 more"
    with pytest.raises(InputError, match=message):
        extract(tmp_path / "features", dataset, FeaturesConfig(image="precomputed"))


def test_items_without_a_image_are_named_with_the_remedy(tmp_path):
    images = [None if row in (2, 5) else make_image(row) for row in range(12)]
    dataset = make_dataset(tmp_path / "dataset", images=images)
    message = r"no image for the items 'item-2', 'item-5', as features\.image: classic .*or set features\.image"
    with pytest.raises(InputError, match=message):
        extract(tmp_path / "features", dataset, CLASSIC)


def test_an_undecodable_image_is_named(tmp_path):
    images = [b"no image" if row == 7 else make_image(row) for row in range(12)]
    dataset = make_dataset(tmp_path / "dataset", images=images)
    with pytest.raises(InputError, match=r"dataset: the image of item 'item-7' cannot be decoded"):
        extract(tmp_path / "features", dataset, CLASSIC)
    assert [entry.name for entry in tmp_path.iterdir()] == ["dataset"]


def test_a_data_set_without_training_items_is_refused(tmp_path):
    dataset = make_dataset(tmp_path / "dataset", splits=["test"] * 12)
    with pytest.raises(InputError, match="has no training items"):
        extract(tmp_path / "features", dataset, CLASSIC)


def test_a_vocabulary_without_words_is_refused(tmp_path):
    dataset = make_dataset(tmp_path / "dataset")
    with pytest.raises(InputError, match=r"no word is in at least 99 of the 8 training texts.*min_word_count"):
        extract(tmp_path / "features", dataset, FeaturesConfig(min_word_count=99))


@pytest.mark.parametrize("kind", ["bow", "supervised_bow"])
def test_texts_that_are_vectors_alone_have_no_words_to_encode(tmp_path, kind):
    with write_artifact(tmp_path / "dataset", kind="dataset", provenance={}) as draft:
        with DatasetWriter(draft.path, ["boat", "sea"]) as writer:
            for row, split in enumerate(SPLITS):
                writer.add(Item(f"item-{row}", "", ("boat",), make_image(row), f"{row}.png", split))
            writer.write_rejected([])
            writer.write_vectors("text", np.ones((len(SPLITS), 3), np.float32), range(len(SPLITS)))
        draft.content = writer.content
    message = rf"no words for {len(SPLITS)} texts \('item-0', .*features\.text: {kind} .*features\.text: precomputed"
    with pytest.raises(InputError, match=message):
        extract(tmp_path / "features", Dataset.read(tmp_path / "dataset"), FeaturesConfig(text=kind))

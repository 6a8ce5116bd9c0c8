import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import scipy.io

from dagnn_core.config.dataset import MatricesConfig
from dagnn_core.data.layouts.matrices import open_matrices
from dagnn_core.data.raw import Reason
from dagnn_core.errors import InputError
from tests.fixtures.layouts import write_matlab73
from tests.fixtures.locations import SHARED

CONFIG = MatricesConfig()
HASHING = MatricesConfig(image="x.npy", text="y.npy", labels="l.npy")
MIRFLICKR = SHARED / "data/mirflickr25k"


@pytest.fixture
def hashing(tmp_path):
    """One matrix for each modality, ten rows, as `.npy`."""
    root = tmp_path / "hashing"
    root.mkdir()
    np.save(root / "x.npy", np.arange(30, dtype=np.float32).reshape(10, 3))
    np.save(root / "y.npy", np.tile(np.array([[1, 0], [1, 1]], dtype=np.uint8), (5, 1)))
    np.save(root / "l.npy", np.tile(np.array([[1, 0], [1, 1]], dtype=np.uint8), (5, 1)))
    return root


def splits(raw):
    return dict(Counter(item.split for item in raw.items))


def test_the_files_of_the_authors(matrices):
    vectors = np.random.default_rng(1).normal(size=(6, 5))
    scipy.io.savemat(matrices / "test_img.mat", {"test_img": vectors})  # MATLAB 5
    raw = open_matrices(matrices, CONFIG)
    assert splits(raw) == {"train": 20, "test": 6}
    assert raw.draws_val
    assert raw.label_order == ("label_0", "label_1", "label_2")
    assert (raw.items[0].id, raw.items[20].id) == ("train-1", "test-1")
    assert raw.items[1].labels == ("label_0", "label_2")
    assert raw.image is None
    assert {(item.text, item.has_text, item.has_image) for item in raw.items} == {("", True, True)}
    image = raw.vectors["image"].of(["test-2"])
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[0], vectors[1], rtol=1e-6)


def test_validation_files_are_the_validation_split(matrices):
    for kind in ("img", "txt", "lab"):
        shutil.copy(matrices / f"test_{kind}.mat", matrices / f"val_{kind}.mat")
    raw = open_matrices(matrices, CONFIG)
    assert splits(raw) == {"train": 20, "val": 6, "test": 6}
    assert not raw.draws_val


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({}, {"": 10}),
        ({"test_rows": "0:2"}, {"test": 2, "train": 8}),
        ({"test_rows": ":2", "train_rows": "2:6"}, {"test": 2, "train": 4}),
        ({"test_rows": "8:", "val_rows": "0:3"}, {"test": 2, "val": 3, "train": 5}),
    ],
)
def test_ranges_of_rows_are_splits_and_other_rows_are_left_out(hashing, rows, expected):
    raw = open_matrices(hashing, replace(HASHING, **rows))
    assert splits(raw) == expected
    assert raw.num_rows == sum(expected.values())
    assert raw.draws_val == ("test" in expected and "val" not in expected)
    for item in raw.items:
        assert raw.vectors["image"].of([item.id])[0, 0] == 3 * (int(item.id) - 1)


def test_names_of_labels_and_of_text_columns(hashing):
    (hashing / "labels.txt").write_text("sky\nsea\n")
    config = replace(HASHING, label_names="labels.txt", text_names="words.txt")
    for words in ("explore 1483\r\nboeing 747\r\n", "explore\nboeing\n"):
        (hashing / "words.txt").write_text(words)
        raw = open_matrices(hashing, config)
        assert raw.items[0].labels == ("sky",)
        assert (raw.items[0].text, raw.items[1].text) == ("explore", "explore boeing")
    assert raw.vectors["text"].features.dtype == np.float16, "which holds single bytes exactly"
    (hashing / "words.txt").write_text("explore\nboeing 747\n")
    assert open_matrices(hashing, config).items[1].text == "explore boeing 747"


def test_a_text_without_any_word_is_empty(hashing):
    (hashing / "words.txt").write_text("a\nb\n")
    text = np.load(hashing / "y.npy")
    text[3] = 0
    np.save(hashing / "y.npy", text)
    config = replace(HASHING, text_names="words.txt")
    assert [(entry.id, entry.reason) for entry in open_matrices(hashing, config).rejections] == [
        ("4", Reason.EMPTY_TEXT)
    ]
    kept = open_matrices(hashing, config, keep_incomplete=True)
    assert [item.id for item in kept.items if not item.has_text] == ["4"]
    assert not open_matrices(hashing, HASHING).rejections, "vectors alone may be zero"


def test_texts_alone_are_kept_where_asked_for(hashing):
    config = replace(HASHING, image="")
    with pytest.raises(InputError, match=r"dataset\.features\.image is empty, expected a file with image vectors"):
        open_matrices(hashing, config)
    raw = open_matrices(hashing, config, keep_incomplete=True)
    assert raw.is_text_alone
    assert {item.has_image for item in raw.items} == {False}


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_rows_with_vectors_that_are_not_finite_are_rejected(hashing, value):
    image = np.load(hashing / "x.npy").astype(np.float64)
    image[4, 1] = value
    np.save(hashing / "x.npy", image)
    raw = open_matrices(hashing, HASHING)
    assert [(entry.row, entry.id, entry.reason) for entry in raw.rejections] == [(5, "5", Reason.BAD_VECTOR)]


def test_rows_without_labels_are_rejected(hashing):
    labels = np.load(hashing / "l.npy")
    labels[7] = 0
    np.save(hashing / "l.npy", labels)
    raw = open_matrices(hashing, HASHING)
    assert [(entry.row, entry.reason) for entry in raw.rejections] == [(8, Reason.NO_LABEL)]


@pytest.mark.parametrize("value", [2, -1, 0.5, np.nan])
def test_labels_are_zeros_and_ones(hashing, value):
    labels = np.load(hashing / "l.npy").astype(np.float64)
    labels[2, 1] = value
    np.save(hashing / "l.npy", labels)
    with pytest.raises(InputError, match=r"l\.npy: -?[\dna.]+ in row 3, column 2, expected a label matrix of zeros"):
        open_matrices(hashing, HASHING)


def test_numbers_of_rows_must_agree_in_every_split(matrices):
    for split, rows in {"train": 19, "test": 7}.items():
        write_matlab73(matrices / f"{split}_txt.mat", t=np.ones((rows, 4)))
    with pytest.raises(InputError, match=r"train_txt\.mat has 19 rows, but .*train_lab\.mat has 20, expected the same"):
        open_matrices(matrices, CONFIG)


@pytest.mark.parametrize(
    ("turned", "message"),
    [
        ("xyl", r"y\.npy has 2 rows, but .*l\.npy has 3, .*; both have the items as columns, it seems: store them"),
        (
            "x",
            r"x\.npy has 4 rows, but .*l\.npy has 10, .*; .*x\.npy has the items as columns, .*: store it",
        ),
        ("l", r"y\.npy has 10 rows, but .*l\.npy has 3, .*; .*l\.npy has the items as columns, it seems: store it"),
    ],
)
def test_transposed_matrices_are_named_with_the_remedy(hashing, turned, message):
    shapes = {"x": (10, 4), "y": (10, 2), "l": (10, 3)}
    for name, shape in shapes.items():
        matrix = np.ones(shape)
        np.save(hashing / f"{name}.npy", matrix.T if name in turned else matrix)
    with pytest.raises(InputError, match=message + r".*X' in MATLAB, X\.T in NumPy"):
        open_matrices(hashing, HASHING)


def test_another_number_of_rows_is_not_called_transposed(hashing):
    np.save(hashing / "x.npy", np.ones((9, 3)))
    with pytest.raises(InputError, match=r"one a row$"):
        open_matrices(hashing, HASHING)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.tile([[1, -1], [-1, 1]], (5, 1)), r"-1 in row 1, column 2, expected .* zeros and ones; store it as L > 0"),
        (np.arange(10)[:, None], r"2 in row 3, column 1, .*; it has class numbers: store a column of zeros and ones"),
        (np.full((10, 2), 0.5), r"0\.5 in row 1, column 1, expected a label matrix of zeros and ones$"),
    ],
)
def test_other_codes_of_labels_are_named_with_the_remedy(hashing, labels, message):
    np.save(hashing / "l.npy", labels)
    with pytest.raises(InputError, match=message):
        open_matrices(hashing, HASHING)


def test_numbers_of_columns_must_agree_between_splits(matrices):
    write_matlab73(matrices / "test_img.mat", t=np.ones((6, 4)))
    with pytest.raises(InputError, match=r"_img\.mat: the matrices of the splits have 5, 4 columns"):
        open_matrices(matrices, CONFIG)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_names": "three.txt"}, r"three\.txt has 3 names, expected 2, one a label column"),
        ({"text_names": "three.txt"}, r"three\.txt has 3 names, expected 2, one for each text column"),
        ({"label_names": "none.txt"}, r"none\.txt does not exist"),
        ({"image": "none.npy"}, r"none\.npy does not exist, expected a matrix"),
        ({"test_rows": "5:11"}, r"dataset\.features\.test_rows is '5:11', expected START:STOP within 0:10"),
        ({"test_rows": "5:5"}, r"test_rows is '5:5', expected START:STOP"),
        ({"test_rows": "0:5", "train_rows": "4:"}, r"row 4 is in dataset\.features\.train_rows and in test_rows"),
    ],
)
def test_mistakes_name_file_or_key(hashing, changes, message):
    (hashing / "three.txt").write_text("a\nb\nc\n")
    with pytest.raises(InputError, match=message):
        open_matrices(hashing, replace(HASHING, **changes))


@pytest.mark.skipif(not MIRFLICKR.is_dir(), reason="MIRFlickr's matrices are not at ../shared/data/mirflickr25k")
def test_real_matrices_of_mirflickr():
    config = MatricesConfig(
        image="",
        text="mirflickr25k-yall.mat",
        labels="mirflickr25k-lall.mat",
        label_names="label_names.txt",
        text_names="common_tags.txt",
        test_rows="0:2000",
        train_rows="2000:12000",
    )
    raw = open_matrices(MIRFLICKR, config, keep_incomplete=True)
    assert splits(raw) == {"test": 2000, "train": 10_000}
    assert not raw.rejections
    assert len(raw.label_order) == 24
    assert raw.vectors["text"].features.shape == (20_015, 1386)
    assert all(len(item.text.split()) == raw.vectors["text"].of([item.id]).sum() for item in raw.items[:50])

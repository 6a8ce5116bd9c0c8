import logging

import numpy as np
import pytest

from dagnn_core.errors import InputError
from dagnn_core.label_graph.embeddings import MEAN_NORM, learn_label_vectors, read_label_vectors

NAMES = ["boat", "water", "car", "road"]


def cosines(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


@pytest.fixture
def training():
    """Texts and labels of two worlds, the sea and the street, with words of their own and words in common."""
    rng = np.random.default_rng(0)
    words = {"boat": "sail mast harbour", "water": "waves blue tide", "car": "engine wheel red", "road": "asphalt lane"}
    texts, rows = [], []
    for _ in range(200):
        world = [0, 1] if rng.random() < 0.5 else [2, 3]
        present = [label for label in world if rng.random() < 0.8] or world
        own = [word for label in present for word in words[NAMES[label]].split() if rng.random() < 0.7]
        texts.append(" ".join([*own, *rng.choice(["a", "the", "image", "nice"], 2)]))
        rows.append(np.isin(range(4), present))
    return texts, np.array(rows, dtype=np.uint8)


def test_labels_used_in_like_texts_get_like_vectors(training):
    vectors = learn_label_vectors(*training, NAMES, dim=300)
    similarity = cosines(vectors)
    assert similarity[0, 1] > similarity[0, 2:].max() + 0.3
    assert similarity[2, 3] > similarity[2, :2].max() + 0.3


def test_learned_vectors_are_float32_of_the_published_scale(training):
    vectors = learn_label_vectors(*training, NAMES, dim=300)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1).mean() == pytest.approx(MEAN_NORM, rel=1e-6)


def test_dimension_is_the_one_asked_for_or_else_the_rank(training):
    assert learn_label_vectors(*training, NAMES, dim=3).shape == (4, 3)
    num_words = len({word for text in training[0] for word in text.split()})
    assert learn_label_vectors(*training, NAMES, dim=300).shape == (4, num_words)


def test_vectors_are_a_factor_of_the_ppmi_matrix(training):
    """Inner products with the words' vectors give back PPMI: checked by an independent count over all pairs."""
    texts, labels = training
    documents = [set(text.split()) for text in texts]
    words = sorted({word for words in documents for word in words})
    rows = [(lambda item, label=label: labels[item, label]) for label in range(4)]
    rows += [(lambda item, word=word: word in documents[item]) for word in words]
    counts = np.array(
        [
            [
                sum(row(item) and word in documents[item] for item in range(len(texts))) * (number != 4 + column)
                for column, word in enumerate(words)
            ]
            for number, row in enumerate(rows)
        ]
    )
    pmi = np.log(np.maximum(counts * counts.sum() / np.outer(counts.sum(axis=1), counts.sum(axis=0)), 1))
    left, singular, _ = np.linalg.svd(pmi, full_matrices=False)
    expected = left[:4] * np.sqrt(singular)
    expected *= MEAN_NORM / np.linalg.norm(expected, axis=1).mean()
    vectors = learn_label_vectors(texts, labels, NAMES, dim=300)
    np.testing.assert_allclose(np.abs(vectors), np.abs(expected), atol=1e-4)


def test_an_unseen_label_has_the_vectors_of_its_words(training):
    unseen = ["red sail", "Harbour", "submarine"]
    known = learn_label_vectors(*training, NAMES, dim=300)
    vectors = learn_label_vectors(*training, NAMES, dim=300, unseen_names=unseen)
    np.testing.assert_array_equal(vectors[:4], known)
    lengths = np.linalg.norm(vectors[4:], axis=1)
    np.testing.assert_allclose(lengths, [MEAN_NORM, MEAN_NORM, 0], rtol=1e-6)  # no text has the word submarine
    similarity = cosines(vectors[:6])
    assert similarity[5, :2].min() > similarity[5, 2:4].max() + 0.3
    assert similarity[4, 0] > 0 and similarity[4, 2] > 0  # a word of each world


def test_learning_is_deterministic_and_follows_the_order_of_labels_and_items(training):
    texts, labels = training
    vectors = learn_label_vectors(texts, labels, NAMES, dim=10)
    np.testing.assert_array_equal(learn_label_vectors(texts, labels, NAMES, dim=10), vectors)
    order = [2, 0, 3, 1]
    reordered = learn_label_vectors(texts, labels[:, order], [NAMES[label] for label in order], dim=10)
    np.testing.assert_allclose(reordered, vectors[order], atol=1e-4)
    backwards = learn_label_vectors(texts[::-1], labels[::-1], NAMES, dim=10)
    np.testing.assert_allclose(backwards, vectors, atol=1e-4)


def test_a_label_without_words_is_named(training):
    texts, labels = training
    labels = np.concatenate([np.pad(labels, ((0, 0), (0, 1))), [[0, 0, 0, 0, 1]] * 3])
    message = "label 'mute' has no training text with a word that occurs in at least 3 .* drop it .*embedding: file"
    with pytest.raises(InputError, match=message):
        learn_label_vectors([*texts, "42", "once", "..."], labels, [*NAMES, "mute"], dim=5)


def test_texts_that_are_all_alike_teach_nothing():
    with pytest.raises(InputError, match="same words, so no label vectors can be learned"):
        learn_label_vectors(["one"] * 5, np.ones((5, 2), dtype=np.uint8), ["a", "b"], dim=5)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("header", ["", "5 2\n"], ids=["glove", "word2vec"])
def test_text_file(tmp_path, header):
    file = write(tmp_path / "vectors.txt", f"{header}the 9 9\ncar 1 2\nshoes 3 -4\ncasual 1 1e1\nCar 7 7\n")
    vectors = read_label_vectors(file, ["Casual Shoes", "car"])
    np.testing.assert_array_equal(vectors, np.array([[2, 3], [1, 2]], dtype=np.float32))
    assert vectors.dtype == np.float32


def test_text_file_with_capitals_trailing_spaces_and_words_with_spaces(tmp_path):
    file = write(tmp_path / "vectors.vec", "3 2 \nat name@domain.com 5 5\nPlant 1 2 \nlife 3 4 \n\n")
    np.testing.assert_array_equal(read_label_vectors(file, ["plant_life"]), [[2, 3]])


def test_a_vector_of_the_whole_name_comes_before_the_words(tmp_path):
    file = write(tmp_path / "vectors.txt", "flip 1 1\nFlip_Flops 5 6\nflops 2 2\n")
    np.testing.assert_array_equal(read_label_vectors(file, ["Flip Flops"]), [[5, 6]])


def test_a_word_without_vector_warns_and_the_others_serve(tmp_path, caplog):
    file = write(tmp_path / "vectors.txt", "plant 1 2\n")
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(read_label_vectors(file, ["plant_life"]), [[1, 2]])
    assert "no vector for ['life']: label 'plant_life'" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("boat 1 2\ncar 1\n", r"vectors.txt, line 2: 1 numbers after 'car', expected 2"),
        ("boat 1 2\ncar 1 2 3\n", r"vectors.txt, line 2: 3 numbers after 'car', expected 2"),
        ("boat\n", r"vectors.txt, line 1: 0 numbers after 'boat', expected some"),
        ("boat 1  2\n", r"vectors.txt, line 1: could not convert .* '', expected 3 numbers after 'boat'"),
        ("boat 1 2\ncar x 2\n", r"vectors.txt, line 2: .*'x', expected 2 numbers after 'car'"),
        ("boat 1 2\ncar nan 2\n", r"vectors.txt, line 2: the vector of 'car' is not finite"),
        ("boat 1 2\n", r"vectors.txt has no vector for label 'car' and 1 more \(2012\); add it .* ppmi_svd"),
        ("", r"vectors.txt has no vector for label 'boat' and 2 more \(car, 2012\)"),
    ],
    ids=["short", "long", "nothing", "two spaces", "no number", "not finite", "absent", "empty file"],
)
def test_bad_text_files(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_label_vectors(write(tmp_path / "vectors.txt", text), ["boat", "car", "2012"])


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"no.txt does not exist, expected word vectors; correct label_graph"):
        read_label_vectors(str(tmp_path / "no.txt"), ["boat"])


@pytest.mark.parametrize("key", ["", "#fasttext"])
def test_npz_file(tmp_path, key):
    file = tmp_path / "vectors.npz"
    names = np.array(["Traffic Light", "potted_plant", "life", "plant"])
    vectors = np.arange(8, dtype=np.float16).reshape(4, 2)
    np.savez(file, names=names, **{key.removeprefix("#") or "vectors": vectors})
    found = read_label_vectors(f"{file}{key}", ["plant_life", "traffic_light", "Potted Plant"])
    np.testing.assert_array_equal(found, np.array([[5, 6], [0, 1], [2, 3]], dtype=np.float32))


def test_npz_files_in_use(tmp_path, request):
    folder = request.config.rootpath.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the development data at ../shared/data")
    names = (folder / "mirflickr25k" / "label_names.txt").read_text().split()
    vectors = read_label_vectors(f"{folder}/label_embeddings/mirflickr.npz#glove6B", names)
    assert vectors.shape == (24, 300)
    assert np.linalg.norm(vectors, axis=1).mean() == pytest.approx(MEAN_NORM, abs=0.1)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"words": ["boat"], "vectors": [[1.0]]}, r"no array 'names', got vectors, words; expected `names` and"),
        ({"names": ["boat"], "glove": [[1.0]]}, r"no array 'vectors', got glove, names; .*embedding_file: .*npz#KEY"),
        ({"names": [1], "vectors": [[1.0]]}, r"`names` must be a list of texts, got int64 of shape \(1,\)"),
        ({"names": ["boat"], "vectors": [[1.0], [2.0]]}, r"one row for each of the 1 names, got float64 of shape \(2,"),
        ({"names": ["boat"], "vectors": [["a"]]}, r"'vectors' must hold numbers"),
        ({"names": ["Boat"], "vectors": [[np.inf]]}, r"the vector of 'Boat' in 'vectors' is not finite"),
        ({"names": ["car"], "vectors": [[1.0]]}, r"no vector for label 'boat'; add it to the file"),
        ({"names": np.array(["boat"], dtype=object), "vectors": [[1.0]]}, r"not a readable .npz file of plain arrays"),
    ],
    ids=["no names", "no vectors", "names", "rows", "text", "not finite", "absent", "objects"],
)
def test_bad_npz_files(tmp_path, arrays, message):
    np.savez(tmp_path / "vectors.npz", **{key: np.asarray(value) for key, value in arrays.items()})
    with pytest.raises(InputError, match=message):
        read_label_vectors(str(tmp_path / "vectors.npz"), ["boat"])


def test_files_that_only_look_like_npz(tmp_path):
    (tmp_path / "vectors.npz").write_bytes(b"boat 1 2\n")
    with pytest.raises(InputError, match=r"vectors.npz is not a readable .npz file"):
        read_label_vectors(str(tmp_path / "vectors.npz"), ["boat"])
    with (tmp_path / "vectors.npz").open("wb") as stream:
        np.save(stream, np.ones(3))
    with pytest.raises(InputError, match=r"vectors.npz is not a readable .npz file"):
        read_label_vectors(str(tmp_path / "vectors.npz"), ["boat"])

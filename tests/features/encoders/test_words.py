import csv
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.encoders.words import WordEncoder
from dagnn_core.features.tokens import tokenize
from tests.fixtures.locations import SHARED

FASHION = SHARED / "data/fashion"

TEXTS = ["a red boat, a red sail", "the blue boat", "The RED sea", "waves"]


def fit(texts=TEXTS, *, kind="bow", min_word_count=1, max_words=5000):
    return WordEncoder.fit(texts, kind=kind, min_word_count=min_word_count, max_words=max_words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Two boats, ONE sail!", ["two", "boats", "one", "sail"]),
        ("rock'n'roll re-mix_tape 2nd", ["rock", "n", "roll", "re", "mix", "tape", "nd"]),
        ("Éclair ÜBER Ёлка 東京", ["éclair", "über", "ёлка", "東京"]),
        (" 42 -- ... ", []),
    ],
)
def test_words_are_lower_cased_runs_of_letters(text, words):
    assert tokenize(text) == words


@given(st.text())
def test_every_letter_is_in_a_word_and_nothing_else_is(text):
    letters = [character for character in text.lower() if character.isalpha()]
    assert [character for word in tokenize(text) for character in word if character.isalpha()] == letters
    assert not any(character.isspace() or character == "_" for word in tokenize(text) for character in word)


def test_the_vocabulary_counts_texts_and_is_sorted():
    assert fit(min_word_count=2).vocabulary == ("boat", "red", "the")
    assert fit(["red red red", "blue"], min_word_count=1).vocabulary == ("blue", "red")
    with pytest.raises(InputError, match=r"no word is in at least 2 of the 2 training texts.*features\.min_word_count"):
        fit(["red red red", "blue"], min_word_count=2)


def test_the_vocabulary_keeps_the_most_frequent_words_and_of_equal_ones_the_first():
    assert fit(max_words=1).vocabulary == ("boat",)
    assert fit(["z y", "z x", "w"], max_words=2).vocabulary == ("w", "z")


def test_bow_is_binary_and_passes_over_unknown_words():
    encoder = fit(min_word_count=2)
    vectors = encoder.encode(["red red boat", "unknown", "The sea"])
    np.testing.assert_array_equal(vectors, [[1, 1, 0], [0, 0, 0], [0, 0, 1]])
    assert vectors.dtype == np.float32
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_tfidf_is_count_times_idf_at_unit_length():
    encoder = fit(kind="tfidf")
    idf = {word: math.log((1 + 4) / (1 + count)) + 1 for word, count in {"boat": 2, "red": 2, "sail": 1}.items()}
    expected = np.array([1 * idf["boat"], 2 * idf["red"], 1 * idf["sail"]])
    columns = [encoder.vocabulary.index(word) for word in ("boat", "red", "sail")]
    vector = encoder.encode(["red boat, red sail"])[0]
    np.testing.assert_allclose(vector[columns], expected / np.linalg.norm(expected), rtol=1e-6)
    assert np.linalg.norm(vector) == pytest.approx(1, rel=1e-6)
    assert np.count_nonzero(vector) == 3
    assert not encoder.encode(["nothing known"]).any()


words = st.text(alphabet="abcé東", min_size=1, max_size=3)
sentences = st.lists(words, min_size=1, max_size=6).map(" ".join)


@given(st.lists(sentences, min_size=1, max_size=8), st.lists(sentences, max_size=4), st.sampled_from(["bow", "tfidf"]))
def test_a_saved_encoder_gives_equal_bits(training, texts, kind):
    encoder = fit(training, kind=kind)
    with tempfile.TemporaryDirectory() as directory:
        encoder.save(Path(directory))
        loaded = WordEncoder.load(Path(directory))
    assert loaded == encoder
    assert loaded.encode(training + texts).tobytes() == encoder.encode(training + texts).tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocabulary": None}, "`vocabulary` is damaged, expected sorted words"),
        ({"vocabulary": ["b", "a"]}, "`vocabulary` is damaged"),
        ({"vocabulary": ["a", "a"]}, "`vocabulary` is damaged"),
        ({"vocabulary": []}, "`vocabulary` is damaged"),
        ({"vocabulary": ["a", 1]}, "`vocabulary` is damaged"),
        ({"idf": [1.0]}, "`idf` is damaged, expected 8 numbers"),
        ({"idf": ["a"] * 8}, "`idf` is damaged"),
        ({"kind": "bow"}, "`idf` is damaged, expected 0 numbers"),
    ],
)
def test_a_damaged_state_is_refused(tmp_path, change, message):
    fit(kind="tfidf").save(tmp_path)
    path = tmp_path / "encoder.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError, match=rf"encoder\.json: {message}"):
        WordEncoder.load(tmp_path)


@pytest.mark.skipif(not FASHION.is_dir(), reason="needs ../shared/data/fashion")
def test_vocabulary_of_real_product_names():
    with (FASHION / "products.csv").open(newline="") as table:
        names = {row["id"]: row["productDisplayName"] for row in csv.DictReader(table)}
    with (FASHION / "splits.csv").open(newline="") as table:
        training = [names[row["id"]] for row in csv.DictReader(table) if row["split"] == "train"]
    assert fit(list(names.values()), min_word_count=10).dim == 437  # as published with the data
    assert fit(training, min_word_count=10).dim == 356

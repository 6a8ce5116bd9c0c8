import csv
import json
import math
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.encoders.words import WordEncoder
from dagnn_core.features.tokens import is_unspaced, tokenize
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


MARKS = {
    "Hindi": ("पानी पर नाव, और हरा पेड़।", ["पानी", "पर", "नाव", "और", "हरा", "पेड\u093c"]),
    "Tamil": ("படகு நீரில்", ["படகு", "நீரில்"]),
    "Bengali": ("নৌকা জলে", ["নৌকা", "জলে"]),
    "vowelled Arabic": ("قَارِبٌ صَغِيرٌ", ["قَارِبٌ", "صَغِيرٌ"]),
    "pointed Hebrew": ("סִירָה קְטַנָּה", ["סִירָה", "קְטַנָּה"]),
    "Persian, a half space within a word": ("می\u200cروم خانه\u200c", ["می\u200cروم", "خانه"]),
    "decomposed French": ("E\u0301te\u0301 1 chêne", ["été", "chêne"]),
    "decomposed Vietnamese": ("thuye\u0302\u0300n", ["thuyền"]),
    "decomposed Korean": ("\u1112\u1161\u11ab\u1100\u1173\u11af", ["한글"]),
    "a mark that no letter is composed with": ("x\u0304y q\u0301", ["x\u0304y", "q\u0301"]),
    "Turkish": ("İstanbul", ["i\u0307stanbul"]),
    "soft hyphens and marks of direction": ("co\u00adope\u200erate \ufeffcafé", ["cooperate", "café"]),
    "variants of glyphs": ("葛\U000e0100 \u2139\ufe0f", ["葛", "\u2139"]),
    "a space of no width": ("เรือ\u200bเล็ก", ["เรือ", "เล็ก"]),
    "marks without a letter": ("1\ufe0f\u20e3 \u0301 \u093e", []),
}


@pytest.mark.parametrize(("text", "words"), MARKS.values(), ids=MARKS)
def test_marks_stay_on_their_letters(text, words):
    assert tokenize(text) == words


@given(st.text())
def test_every_letter_is_in_a_word_and_nothing_else_is(text):
    letters = [letter for letter in unicodedata.normalize("NFC", text.lower()) if letter.isalpha()]
    words = tokenize(text)
    assert [letter for word in words for letter in unicodedata.normalize("NFC", word) if letter.isalpha()] == letters
    assert not any(character.isspace() or character == "_" for word in words for character in word)
    assert all(word[0].isalpha() or not word[0].isascii() for word in words)


@given(st.text())
def test_composed_and_decomposed_texts_have_the_same_words(text):
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert tokenize(composed) == tokenize(decomposed)


@given(st.text(alphabet=st.characters(codec="ascii")))
def test_ascii_has_the_same_words_by_both_rules(text):
    assert tokenize(text) == tokenize(text, "letters")


def test_an_encoder_stored_before_encodes_as_it_did(tmp_path):
    state = {"kind": "bow", "vocabulary": ["e", "été", "नाव", "प"], "idf": []}
    (tmp_path / "encoder.json").write_text(json.dumps(state))
    encoder = WordEncoder.load(tmp_path)
    texts = ["पानी", "e\u0301", "été", "नाव"]
    assert encoder.encode(texts).tolist() == [[0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    encoder.save(tmp_path)
    assert WordEncoder.load(tmp_path) == encoder
    assert json.loads((tmp_path / "encoder.json").read_text())["rule"] == "letters"


def test_a_rule_of_a_later_program_is_refused(tmp_path):
    fit().save(tmp_path)
    path = tmp_path / "encoder.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rule": "syllables"}))
    with pytest.raises(ArtifactError, match=r"`rule` is 'syllables', expected one of letters, unicode"):
        WordEncoder.load(tmp_path)


CHINESE = ["一条船在水上", "太阳照耀", "小狗在跑", "一棵绿色的树"]


@pytest.mark.parametrize(
    ("text", "unspaced"),
    [
        *((text, True) for text in CHINESE),
        ("เรือในน้ำ", True),
        ("水の上のボート", True),
        ("ទូកនៅលើទឹក", True),
        ("한국어는 띄어 쓴다", False),
        ("पानी पर नाव", False),
        ("a boat on 水", False),
        ("", False),
        ("42", False),
    ],
)
def test_scripts_without_spaces_are_recognised(text, unspaced):
    assert is_unspaced(text) == unspaced


def test_texts_without_spaces_are_named_with_the_remedy():
    with pytest.raises(InputError, match=r"without spaces between words \(Chinese.*features\.text: huggingface"):
        fit(CHINESE, min_word_count=2)


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

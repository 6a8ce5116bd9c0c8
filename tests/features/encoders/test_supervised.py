import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.encoders.registry import load_text_encoder
from dagnn_core.features.encoders.supervised import LabelledTexts, SupervisedEncoder
from dagnn_core.features.encoders.words import WordEncoder

THEMES = (("boat", "ship", "harbour", "sail"), ("oak", "fir", "wood", "leaf"), ("cup", "plate", "spoon", "table"))
FILLERS = ("a", "the", "one", "old", "new", "some", "red", "small", "near", "with", "under", "seen")


def draw(seed, num_items):
    """Items with one or two of three labels, and two words for each label among words that say nothing."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((num_items, len(THEMES)), np.uint8)
    texts = []
    for row in labels:
        chosen = rng.permutation(len(THEMES))[: rng.integers(1, 3)]
        row[chosen] = 1
        words = [*rng.choice(FILLERS, 6), *(word for theme in chosen for word in rng.choice(THEMES[theme], 2))]
        texts.append(" ".join(rng.permutation(words)))
    return LabelledTexts(texts, labels)


TRAIN, VAL, TEST = draw(0, 300), draw(1, 60), draw(2, 200)
BAG = WordEncoder.fit(TRAIN.texts, kind="bow", min_word_count=1, max_words=99)


def fit(train=TRAIN, val=VAL, *, dim=16, seed=3):
    return SupervisedEncoder.fit(BAG, train, val, dim=dim, seed=seed)


@pytest.fixture(scope="module")
def encoder():
    return fit()


def mean_average_precision(vectors, labels):
    """Of every item as a query among all others, by cosine; relevant is what shares a label."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    scores = unit @ unit.T
    np.fill_diagonal(scores, -np.inf)
    precisions = []
    for row, order in enumerate(np.argsort(-scores, axis=1)[:, :-1]):
        relevant = (labels[order] & labels[row]).any(axis=1)
        precisions.append((np.cumsum(relevant) / np.arange(1, len(order) + 1))[relevant].mean())
    return np.mean(precisions)


def test_texts_with_equal_labels_are_closer_than_by_their_words(encoder):
    vectors = encoder.encode(TEST.texts)
    assert (vectors.shape, vectors.dtype) == ((200, 16), np.float32)
    assert (vectors >= 0).all()
    chance = mean_average_precision(np.random.default_rng(0).normal(size=(200, 16)), TEST.labels)
    words, hidden = (mean_average_precision(x, TEST.labels) for x in (BAG.encode(TEST.texts), vectors))
    assert hidden > words + 0.05 > chance + 0.1


def test_same_seed_same_bits_and_no_trace_in_the_global_generator(encoder):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    same, other = fit(), fit(seed=4)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(encoder.weight, same.weight)
    assert torch.equal(encoder.bias, same.bias)
    assert not torch.equal(encoder.weight, other.weight)


def test_the_vector_is_the_hidden_layer_and_zero_without_known_words():
    encoder = fit(dim=5)
    vectors = encoder.encode(["boat", "nothing of these words", ""])
    weight, bias = encoder.weight.numpy(), encoder.bias.numpy()
    expected = np.maximum(weight[:, BAG.vocabulary.index("boat")] + bias, 0)
    np.testing.assert_allclose(vectors[0], expected, rtol=1e-6)
    assert not vectors[1:].any()
    assert encoder.encode([]).shape == (0, 5)


def test_stops_where_validation_says_so(monkeypatch, caplog):
    monkeypatch.setattr("dagnn_core.features.encoders.supervised.PATIENCE", 2)
    rng = np.random.default_rng(0)
    noise = LabelledTexts(VAL.texts, rng.permutation(VAL.labels))
    with caplog.at_level("INFO"):
        fit(val=noise)
    assert "text classifier of epoch" in caplog.text
    assert int(caplog.text.split("of epoch ")[1].split(",")[0]) < 40
    with pytest.raises(InputError, match=r"supervised_bow, which stops by the validation texts, but there are none"):
        fit(val=LabelledTexts([], np.zeros((0, 3), np.uint8)))


def test_a_saved_encoder_gives_equal_bits(encoder, tmp_path):
    encoder.save(tmp_path)
    loaded = load_text_encoder(tmp_path)
    assert (loaded.kind, loaded.dim) == ("supervised_bow", 16)
    assert loaded.encode(TEST.texts).tobytes() == encoder.encode(TEST.texts).tobytes()


def test_a_damaged_state_is_refused(encoder, tmp_path):
    encoder.save(tmp_path)
    path = tmp_path / "hidden.safetensors"
    for weight, bias in ((torch.zeros(3, BAG.dim), torch.zeros(4)), (torch.zeros(4, 7), torch.zeros(4))):
        save_file({"weight": weight, "bias": bias}, path)
        with pytest.raises(ArtifactError, match=r"hidden.safetensors: weight .* and bias \[4\] do not fit"):
            load_text_encoder(tmp_path)
    save_file({"weight": torch.zeros(4, BAG.dim)}, path)
    with pytest.raises(ArtifactError, match=r"hidden.safetensors is damaged \('bias'\)"):
        load_text_encoder(tmp_path)
    path.write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"hidden.safetensors is damaged"):
        load_text_encoder(tmp_path)
    (tmp_path / "words" / "encoder.json").unlink()
    with pytest.raises(ArtifactError, match=r"words/encoder.json cannot be read"):
        load_text_encoder(tmp_path)

import json

import numpy as np
import pytest

from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.encoders.classic import ClassicEncoder
from dagnn_core.features.encoders.descriptors import DIM
from dagnn_core.features.encoders.precomputed import PrecomputedEncoder
from dagnn_core.features.encoders.registry import load_image_encoder, load_text_encoder
from dagnn_core.features.encoders.words import WordEncoder


@pytest.mark.parametrize("kind", ["bow", "tfidf"])
def test_a_text_encoder_is_loaded_by_its_kind(tmp_path, kind):
    encoder = WordEncoder.fit(["a boat", "the sea"], kind=kind, min_word_count=1, max_words=9)
    encoder.save(tmp_path)
    assert load_text_encoder(tmp_path) == encoder
    with pytest.raises(
        ArtifactError, match=rf"kind '{kind}', expected one of classic, huggingface, vgg19_bn, precomputed"
    ):
        load_image_encoder(tmp_path)


def test_an_image_encoder_is_loaded_by_its_kind(tmp_path):
    ClassicEncoder(mean=np.zeros(DIM, np.float32), deviation=np.ones(DIM, np.float32)).save(tmp_path)
    assert load_image_encoder(tmp_path).kind == "classic"
    with pytest.raises(
        ArtifactError, match=r"kind 'classic', expected one of bow, tfidf, supervised_bow, huggingface, precomputed"
    ):
        load_text_encoder(tmp_path)


@pytest.mark.parametrize(
    ("modality", "load", "raw"),
    [("image", load_image_encoder, "an image"), ("text", load_text_encoder, "a text")],
)
def test_precomputed_vectors_take_nothing_raw(tmp_path, modality, load, raw):
    PrecomputedEncoder(modality, 7).save(tmp_path)
    encoder = load(tmp_path)
    assert (encoder.kind, encoder.dim) == ("precomputed", 7)
    message = f"^this model was trained on precomputed {modality} vectors and cannot encode {raw}; pass vectors$"
    with pytest.raises(InputError, match=message):
        encoder.encode([])


@pytest.mark.parametrize("change", [{"dim": 0}, {"dim": "7"}, {"modality": "sound"}])
def test_a_damaged_state_of_precomputed_vectors_is_refused(tmp_path, change):
    PrecomputedEncoder("image", 7).save(tmp_path)
    path = tmp_path / "encoder.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError, match=r"encoder\.json is damaged, expected `modality` and `dim`"):
        load_image_encoder(tmp_path)


@pytest.mark.parametrize(("content", "message"), [("{", "cannot be read"), ("[]", "is damaged"), ("{}", "is damaged")])
def test_a_file_that_is_no_state_is_refused(tmp_path, content, message):
    (tmp_path / "encoder.json").write_text(content)
    with pytest.raises(ArtifactError, match=rf"encoder\.json {message}"):
        load_text_encoder(tmp_path)


def test_a_missing_state_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"encoder\.json cannot be read.*No such file"):
        load_image_encoder(tmp_path)

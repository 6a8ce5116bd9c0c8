import io
import json

import numpy as np
import pytest
from PIL import Image

from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.encoders import classic
from dagnn_core.features.encoders.classic import CLIP, MIN_DEVIATION, ClassicEncoder
from dagnn_core.features.encoders.descriptors import DIM, describe


def make_image(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((160, 120)).save(file, "JPEG")
    return file.getvalue()


IMAGES = [make_image(seed) for seed in range(6)]


@pytest.fixture(scope="module")
def encoder():
    return ClassicEncoder.fit(np.stack([describe(image) for image in IMAGES]), np.arange(5))


def test_mean_and_deviation_are_those_of_the_training_rows(monkeypatch):
    monkeypatch.setattr(classic, "FIT_ROWS", 7)
    descriptors = np.random.default_rng(0).normal(3, 2, (40, 5)).astype(np.float32)
    descriptors[:, 4] = 0.25
    rows = np.arange(0, 40, 2)
    encoder = ClassicEncoder.fit(descriptors, rows)
    np.testing.assert_allclose(encoder.mean, descriptors[rows].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(encoder.deviation[:4], descriptors[rows].std(axis=0)[:4], rtol=1e-5)
    assert encoder.deviation[4] == np.float32(MIN_DEVIATION)
    vectors = encoder.standardise(descriptors)
    assert vectors.dtype == np.float32
    assert np.abs(vectors[rows].mean(axis=0)).max() < 0.05
    assert not vectors[:, 4].any()


def test_outliers_are_clipped():
    encoder = ClassicEncoder(mean=np.zeros(2, np.float32), deviation=np.ones(2, np.float32))
    vectors = encoder.standardise(np.array([[-9, 9], [1, -2]], np.float32))
    np.testing.assert_array_equal(vectors, [[-CLIP, CLIP], [1, -2]])


def test_a_image_encodes_alike_alone_and_among_others(encoder):
    together = encoder.encode(IMAGES)
    assert together.shape == (6, DIM)
    assert together.dtype == np.float32
    assert together.std(axis=0).max() > 0.5
    for row, single in enumerate(IMAGES):
        assert encoder.encode([single])[0].tobytes() == together[row].tobytes()
    assert encoder.encode([]).shape == (0, DIM)


def test_a_saved_encoder_gives_equal_bits(encoder, tmp_path):
    encoder.save(tmp_path)
    loaded = ClassicEncoder.load(tmp_path)
    assert (loaded.kind, loaded.dim) == ("classic", DIM)
    assert loaded.encode(IMAGES).tobytes() == encoder.encode(IMAGES).tobytes()


def test_the_undecodable_image_is_named(encoder):
    with pytest.raises(InputError, match=r"^image 2 cannot be decoded"):
        encoder.encode([IMAGES[0], b"no image", IMAGES[1]])


def test_a_state_of_other_descriptors_is_refused(encoder, tmp_path):
    encoder.save(tmp_path)
    path = tmp_path / "encoder.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    with pytest.raises(
        ArtifactError, match=r"descriptors of version 99, but this program makes version 1.*train again"
    ):
        ClassicEncoder.load(tmp_path)


@pytest.mark.parametrize("name", ["mean.npy", "deviation.npy"])
def test_a_damaged_state_is_refused(encoder, tmp_path, name):
    encoder.save(tmp_path)
    np.save(tmp_path / name, np.zeros(3, np.float32))
    with pytest.raises(ArtifactError, match=rf"{name} is float32 \[3\], expected float32 \[{DIM}\]"):
        ClassicEncoder.load(tmp_path)
    np.save(tmp_path / name, np.zeros(DIM))
    with pytest.raises(ArtifactError, match=rf"{name} is float64 \[{DIM}\], expected float32"):
        ClassicEncoder.load(tmp_path)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ArtifactError, match=rf"{name} is damaged"):
        ClassicEncoder.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ArtifactError, match=rf"{name} is damaged.*No such file"):
        ClassicEncoder.load(tmp_path)

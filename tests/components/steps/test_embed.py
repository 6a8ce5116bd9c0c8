from pathlib import Path

import numpy as np
import pytest

from components.steps.embed import run
from dagnn_core import Dataset, InputError, TrainedModel


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("a boat on the sea\n\n  \na häuschen\n", encoding="utf-8")
    return file


def test_texts_are_embedded_in_their_order(scenes, texts, tmp_path):
    out = tmp_path / "out.npz"
    assert run(model=scenes.models["good"], texts=texts, out=out) == 2
    with np.load(out) as embedded:
        assert embedded["ids"].tolist() == ["a boat on the sea", "a häuschen"]
        expected = TrainedModel.read(scenes.models["good"]).encode_texts(["a boat on the sea", "a häuschen"])
        np.testing.assert_array_equal(embedded["embeddings"], expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npz", "texts.txt"]


def test_images_are_found_in_all_folders_and_embedded_in_order_of_their_paths(scenes, tmp_path):
    images = Dataset.read(scenes.datasets["scenes"]).images(range(70))  # more than a batch
    (tmp_path / "images/below").mkdir(parents=True)
    (tmp_path / "images/notes.txt").write_text("no image")
    for row, image in enumerate(images):
        (tmp_path / "images" / ("below" if row % 2 else ".") / f"{row:02}.JPG").write_bytes(image)
    assert run(model=scenes.models["good"], images=tmp_path / "images", out=tmp_path / "out.npz") == 70
    with np.load(tmp_path / "out.npz") as embedded:
        names = [*(f"{row:02}.JPG" for row in range(0, 70, 2)), *(f"below/{row:02}.JPG" for row in range(1, 70, 2))]
        assert embedded["ids"].tolist() == names
        rows = [*range(0, 70, 2), *range(1, 70, 2)]
        expected = TrainedModel.read(scenes.models["good"]).encode_images([images[row] for row in rows])
        np.testing.assert_allclose(embedded["embeddings"], expected, atol=1e-6)


def test_an_image_that_cannot_be_decoded_is_named(scenes, tmp_path):
    (tmp_path / "images").mkdir()
    image, other = Dataset.read(scenes.datasets["scenes"]).images(range(2))
    for name, content in (("a.png", image), ("b.png", b"no image"), ("c.png", other)):
        (tmp_path / "images" / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"^{tmp_path}/images/b\.png: image 1 cannot be decoded"):
        run(model=scenes.models["good"], images=tmp_path / "images", out=tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


def test_a_model_of_precomputed_vectors_takes_no_images(scenes, tmp_path):
    (tmp_path / "a.png").write_bytes(b"any")
    with pytest.raises(InputError, match=r"^this model was trained on precomputed image vectors"):
        run(model=scenes.models["vectors"], images=tmp_path, out=tmp_path / "out.npz")


def test_what_is_missing_is_said(scenes, texts, tmp_path):
    model, out = scenes.models["good"], tmp_path / "out.npz"
    for given, message in (
        ({}, "give one of --texts and --images"),
        ({"texts": texts, "images": tmp_path}, "give one of --texts and --images"),
        (
            {"texts": texts, "out": tmp_path / "none/out.npz"},
            "ends in .npz in a folder that exists",
        ),
        ({"texts": texts, "out": tmp_path / "out.npy"}, "expected a file that ends in .npz"),
        ({"texts": tmp_path / "none"}, r"none cannot be read .*, expected a UTF-8 file with one text per line"),
        ({"images": tmp_path}, "has no images, expected a folder with files .avif"),
        ({"images": tmp_path / "none"}, "has no images"),
    ):
        with pytest.raises(InputError, match=message):
            run(**({"model": model, "out": out} | given))
    texts.write_text("\n \n")
    with pytest.raises(InputError, match="has no text, expected one per line"):
        run(model=model, texts=texts, out=out)
    assert not out.exists()

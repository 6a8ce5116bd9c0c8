"""Images and texts through a network: equal to a plain loop, whatever the workers do."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch

from dagnn_core.config.features import FeaturesConfig
from dagnn_core.errors import BackendError, InputError
from dagnn_core.features.extraction import image_loader, vector_cache
from dagnn_core.features.extraction.extract import extract_with_image_backbone, extract_with_text_backbone
from tests.features.small_backbones import (
    SmallImageBackbone,
    SmallTextBackbone,
    convolutions,
    make_dataset,
    make_image,
    preprocess,
    preprocess_or_die,
    preprocess_with_a_bug,
)

NUM_ITEMS = 60
CONFIG = FeaturesConfig(batch_size=8, workers=2, device="cpu")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(vector_cache, "SHARD_ROWS", 20)


@pytest.fixture
def processes(monkeypatch):
    """Worker processes also for a few images."""
    monkeypatch.setattr(image_loader, "IMAGES_PER_WORKER", 1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "dataset", NUM_ITEMS)


def extract_images(root, dataset, backbone, config=CONFIG):
    extract_with_image_backbone(dataset, backbone, config, root / "cache", root / "image.npy")
    return np.load(root / "image.npy", allow_pickle=False)


def extract_texts(root, dataset, backbone, config=CONFIG):
    extract_with_text_backbone(dataset, backbone, config, root / "cache", root / "text.npy")
    return np.load(root / "text.npy", allow_pickle=False)


def plain_loop(dataset):
    network = convolutions()
    vectors = np.zeros((len(dataset), 12), dtype=np.float32)
    for row, encoded in enumerate(dataset.images(range(len(dataset)))):
        if encoded is not None:
            with torch.inference_mode():
                vectors[row] = network(torch.tensor(preprocess(encoded))[None].float() / 255)[0]
    return vectors


def test_vectors_are_those_of_a_plain_loop(tmp_path, dataset, processes):
    backbone = SmallImageBackbone()
    vectors = extract_images(tmp_path, dataset, backbone)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, plain_loop(dataset), rtol=1e-5, atol=1e-6)
    assert not vectors[~dataset.has_image].any() and vectors[dataset.has_image].any(axis=1).all()
    assert backbone.batch_sizes == [8, 8, 2, 8, 8, 1, 8, 8, 1], "no batch crosses a shard of 20 rows"


def test_processes_give_the_bits_of_none(tmp_path, dataset, monkeypatch):
    for images_per_worker, root in ((NUM_ITEMS, tmp_path / "without"), (1, tmp_path / "with")):
        root.mkdir()
        monkeypatch.setattr(image_loader, "IMAGES_PER_WORKER", images_per_worker)
        extract_images(root, dataset, SmallImageBackbone())
    assert (tmp_path / "with/image.npy").read_bytes() == (tmp_path / "without/image.npy").read_bytes()


def test_bf16_is_close_and_stored_as_float32(tmp_path, dataset):
    exact = extract_images(tmp_path, dataset, SmallImageBackbone())
    vectors = extract_images(tmp_path, dataset, SmallImageBackbone(), replace(CONFIG, precision="bf16"))
    assert vectors.dtype == np.float32
    assert 0 < np.abs(vectors - exact).max() < 0.02 * np.abs(exact).max()


def test_texts_come_back_in_order_from_batches_of_similar_length(tmp_path, dataset):
    backbone = SmallTextBackbone()
    vectors = extract_texts(tmp_path, dataset, backbone)
    expected = np.stack([SmallTextBackbone().encode([text])[0] for text in dataset.texts])
    np.testing.assert_array_equal(vectors, expected)
    assert not vectors[~dataset.has_text].any()
    assert [len(lengths) for lengths in backbone.lengths] == [8, 8, 1, 8, 8, 2, 8, 8, 1]
    for start in range(0, len(backbone.lengths), 3):
        shard = [length for lengths in backbone.lengths[start : start + 3] for length in lengths]
        assert shard == sorted(shard, reverse=True) and len(set(shard)) > 1


def data_of_another_seed(root):
    return make_dataset(root / "other", NUM_ITEMS, seed=1)


@pytest.mark.parametrize(
    ("change", "hit"),
    [
        ({}, True),
        ({"config": replace(CONFIG, batch_size=5, workers=1)}, True),
        ({"config": replace(CONFIG, text="tfidf", min_word_count=9)}, True),
        ({"config": replace(CONFIG, precision="bf16")}, False),
        ({"identity": {"weights": "1"}}, False),
        ({"identity": {"weights": "0", "transform": "centre crop"}}, False),
        ({"dataset": data_of_another_seed}, False),
    ],
)
def test_what_is_taken_from_the_cache(tmp_path, dataset, change, hit):
    extract_images(tmp_path, dataset, SmallImageBackbone())
    extract_texts(tmp_path, dataset, SmallTextBackbone())
    config = change.get("config", CONFIG)
    identity = change.get("identity", {"weights": "0"})
    if "dataset" in change:
        dataset = change["dataset"](tmp_path)
    image, text = SmallImageBackbone(identity=identity), SmallTextBackbone(identity=identity)
    vectors = extract_images(tmp_path, dataset, image, config)
    extract_texts(tmp_path, dataset, text, config)
    assert (not image.batch_sizes) == (not text.lengths) == hit
    np.testing.assert_allclose(vectors, plain_loop(dataset), atol=0.02)


def test_a_damaged_shard_is_made_again_alone_with_the_same_bits(tmp_path, dataset):
    before = extract_images(tmp_path, dataset, SmallImageBackbone()).tobytes()
    shards = sorted((tmp_path / "cache").rglob("shard-*"))
    os.truncate(shards[1], 100)
    backbone = SmallImageBackbone()
    assert extract_images(tmp_path, dataset, backbone).tobytes() == before
    assert backbone.batch_sizes == [8, 8, 1]


def test_an_undecodable_image_is_named(tmp_path, processes):
    dataset = make_dataset(tmp_path / "dataset", 60, special={45: b"no image"})
    with pytest.raises(InputError, match=r"dataset: the image of item 'item-45' cannot be decoded") as error:
        extract_images(tmp_path, dataset, SmallImageBackbone())
    assert "\n" not in str(error.value)
    assert len(list((tmp_path / "cache").rglob("shard-*"))) == 2, "the shards before it are kept"


def test_a_missing_image_is_named(tmp_path):
    dataset = make_dataset(tmp_path / "dataset", 20, special={3: None})
    with pytest.raises(InputError, match=r"no image for the items 'item-3', as features\.image: huggingface expects"):
        extract_images(tmp_path, dataset, SmallImageBackbone())


def test_a_bug_in_a_worker_is_shown_as_it_is(tmp_path, dataset, processes):
    with pytest.raises(RuntimeError, match="no such luck"):
        extract_images(tmp_path, dataset, SmallImageBackbone(preprocess=preprocess_with_a_bug))


@pytest.mark.slow
def test_a_worker_that_dies_is_said_so(tmp_path, processes):
    dataset = make_dataset(tmp_path / "dataset", 60, special={50: make_image(0, colour="red")})
    message = r"a process that decodes images died .*lower features\.workers or features\.batch_size"
    with pytest.raises(BackendError, match=message) as error:
        extract_images(tmp_path, dataset, SmallImageBackbone(preprocess=preprocess_or_die))
    assert "\n" not in str(error.value)


def test_no_memory_on_the_gpu_names_the_key(tmp_path, dataset, monkeypatch):
    def refuse(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SmallImageBackbone, "embed", refuse)
    monkeypatch.setattr(SmallTextBackbone, "encode", refuse)
    with pytest.raises(BackendError, match=r"a batch of 8 images; lower features\.batch_size"):
        extract_images(tmp_path, dataset, SmallImageBackbone())
    with pytest.raises(BackendError, match=r"a batch of 8 texts; lower features\.batch_size"):
        extract_texts(tmp_path, dataset, SmallTextBackbone())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path, dataset):
    with pytest.raises(InputError, match=r"features\.device is cuda, but this machine has no usable GPU"):
        extract_images(tmp_path, dataset, SmallImageBackbone(), replace(CONFIG, device="cuda"))


PROGRAM = """
import sys, time
from pathlib import Path
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.features.extraction import image_loader
from dagnn_core.features.extraction import vector_cache
from dagnn_core.features.extraction.extract import extract_with_image_backbone
from tests.features.small_backbones import SmallImageBackbone

class Slow(SmallImageBackbone):
    def embed(self, pixels):
        time.sleep(0.05)
        return super().embed(pixels)

if __name__ == "__main__":
    root = Path(sys.argv[1])
    vector_cache.SHARD_ROWS, image_loader.IMAGES_PER_WORKER = 20, 1
    config = FeaturesConfig(batch_size=8, workers=2, device="cpu")
    extract_with_image_backbone(Dataset.read(root / "dataset"), Slow(), config, root / "cache", root / "image.npy")
"""


def start_and_wait_for_two_shards(root):
    (root / "program.py").write_text(PROGRAM)
    process = subprocess.Popen([sys.executable, root / "program.py", root], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list((root / "cache").rglob("*.safetensors"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) >= 3, "two workers and the server that forks them"
    return process, below


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_leaves_no_process_and_goes_on(tmp_path, how):
    dataset = make_dataset(tmp_path / "dataset", 400)
    process, below = start_and_wait_for_two_shards(tmp_path)
    started = time.monotonic()
    process.send_signal(how)
    process.communicate()
    _, alive = psutil.wait_procs(below, timeout=10)
    assert not alive
    assert time.monotonic() - started < 10
    if how == signal.SIGINT:
        assert not list((tmp_path / "cache").rglob("*.tmp"))
    kept = len(list((tmp_path / "cache").rglob("*.safetensors")))
    assert 2 <= kept < 20

    resumed = SmallImageBackbone()
    vectors = extract_images(tmp_path, dataset, resumed)
    assert sum(resumed.batch_sizes) == dataset.has_image[20 * kept :].sum()
    (tmp_path / "whole").mkdir()
    assert vectors.tobytes() == extract_images(tmp_path / "whole", dataset, SmallImageBackbone()).tobytes()

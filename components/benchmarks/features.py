"""The program behind `dagnn bench features`: how much of a network's speed is left when images must be decoded."""

import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from dagnn_core.artifacts import write_artifact
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.data.dataset import KIND, Dataset, Item
from dagnn_core.data.ingest.writer import DatasetWriter
from dagnn_core.devices import choose_device
from dagnn_core.features.encoders.backbone import ImageBackbone
from dagnn_core.features.encoders.registry import open_image_backbone
from dagnn_core.features.extraction.embedding import inference
from dagnn_core.features.extraction.extract import extract_descriptors, extract_with_image_backbone

VIT_SMALL = "vit-small"
NUM_DISTINCT = 256
IMAGE_SIZE = (500, 375)


def run(*, model: str, num_images: int, precision: Literal["float32", "bf16"], repeats: int = 3) -> dict[str, Any]:
    """Time a network on pixels that are ready, then extraction from JPEG files to the matrix; the two take turns.

    Args:
        model: folder of a Hugging Face model, or `vit-small`: ViT-S/16 with random weights.
        num_images: images a run; starting the processes that decode is part of it, so let it take a minute.
        precision: arithmetic of the network.
        repeats: runs of each way.

    Returns:
        Median images a second, and the quotient. For `classic`, with an empty cache and with a full one.

    Raises:
        InputError: the model cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="dagnn-bench-") as temporary:
        folder = Path(temporary)
        if model == VIT_SMALL:
            _save_vit_small(folder / VIT_SMALL)
            model = str(folder / VIT_SMALL)
        config = FeaturesConfig(image="huggingface", image_model=model, precision=precision)
        backbone = open_image_backbone(config)
        dataset = _write_dataset(folder / "dataset", num_images)
        ways: dict[str, Callable[[Path], object]] = {
            "network alone": _prepare_network_alone(dataset, backbone, config),
            "extraction": lambda cache: extract_with_image_backbone(dataset, backbone, config, cache, folder / "1.npy"),
            "classic": lambda cache: extract_descriptors(dataset, cache, folder / "2.npy"),
        }
        rates: dict[str, list[float]] = {name: [] for name in (*ways, "classic, from the cache")}
        for repeat in range(repeats):
            cache = folder / f"cache-{repeat}"
            for name, way in (*ways.items(), ("classic, from the cache", ways["classic"])):
                start = time.perf_counter()
                way(cache)
                rates[name].append(num_images / (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "precision": precision,
        "batch size": config.batch_size,
        "images": num_images,
        **{f"{name}: images/s": rate for name, rate in medians.items()},
        "extraction / network alone": medians["extraction"] / medians["network alone"],
    }


def _prepare_network_alone(dataset: Dataset, backbone: ImageBackbone, config: FeaturesConfig) -> Callable[[Path], None]:
    """The network on batches of pixels that are ready on its device."""
    device = choose_device(config.device, key="features.device")
    images = [image for image in dataset.images(range(min(len(dataset), NUM_DISTINCT))) if image is not None]
    pixels = torch.stack([torch.tensor(backbone.preprocess(image)) for image in images]).to(device)
    starts = range(0, len(pixels), config.batch_size)

    def embed(_: Path) -> None:
        backbone.to(device)
        remaining = len(dataset)
        for start in itertools.cycle(starts):
            batch = pixels[start : start + min(config.batch_size, remaining)]
            with inference(config.precision, device):
                vectors = backbone.embed(batch)
            remaining -= len(batch)
            if not remaining:
                break
        vectors.cpu()  # waits for the GPU

    return embed


def _save_vit_small(folder: Path) -> None:
    """ViT-S/16 for 224 x 224 pixels (Touvron et al., ICML 2021), 22 million random weights."""
    # seconds to import
    from transformers import ViTConfig, ViTModel  # noqa: PLC0415
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()
    config = ViTConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536)
    ViTModel(config).save_pretrained(folder)
    ViTImageProcessorPil().save_pretrained(folder)


def _write_dataset(path: Path, num_images: int) -> Dataset:
    images = [_image(seed) for seed in range(min(NUM_DISTINCT, num_images))]
    with write_artifact(path, kind=KIND, provenance={}) as draft:
        with DatasetWriter(draft.path, ["a"]) as writer:
            for row in range(num_images):
                writer.add(Item(str(row), "a", ["a"], images[row % NUM_DISTINCT], f"{row}.jpg", "train"))
            writer.write_rejected([])
        draft.content = writer.content
    return Dataset.read(path)


def _image(seed: int) -> bytes:
    """A JPEG with as much detail as a photo: about 60 kB."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((IMAGE_SIZE[1], IMAGE_SIZE[0], 3), dtype=np.float32)
    for step in (4, 16, 64):
        grid = rng.integers(0, 256, (*(side // step + 2 for side in pixels.shape[:2]), 3), dtype=np.uint8)
        pixels += np.asarray(Image.fromarray(grid).resize(IMAGE_SIZE, Image.Resampling.BICUBIC)) / 3
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()

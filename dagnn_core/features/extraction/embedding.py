"""The images and texts of a data set as vectors, one shard of rows after the other.

What an item lacks is a zero row. No batch crosses the border of a shard, so the vectors do not depend on which shards
are asked for.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dagnn_core.config.features import FeaturesConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.devices import choose_device
from dagnn_core.errors import BackendError, InputError
from dagnn_core.features.encoders.backbone import ImageBackbone, TextBackbone
from dagnn_core.features.encoders.classic import describe_all
from dagnn_core.features.encoders.descriptors import DIM
from dagnn_core.features.extraction.image_loader import NumberedImage, load_pixels
from dagnn_core.progress import track
from dagnn_core.text import name_first


def describe_images(dataset: Dataset, shards: Sequence[range]) -> Iterator[Tensor]:
    """Descriptors of the images in some shards, not yet standardised.

    Raises:
        InputError: an image is missing or cannot be decoded.
    """
    name = image_namer(dataset)
    images = ((name(row), encoded) for row, encoded in _images_of_shards(dataset, shards, "classic"))
    total = sum(len(_present(dataset.has_image, rows)) for rows in shards)
    descriptors = track(describe_all(images), description="describing images", total=total)
    for rows in shards:
        vectors = np.zeros((len(rows), DIM), dtype=np.float32)
        for place in _present(dataset.has_image, rows) - rows.start:
            vectors[place] = next(descriptors)
        yield torch.from_numpy(vectors)


def embed_images(
    dataset: Dataset, backbone: ImageBackbone, config: FeaturesConfig, shards: Sequence[range]
) -> Iterator[Tensor]:
    """Vectors of the images in some shards, on the network's device.

    Raises:
        InputError: an image is missing or cannot be decoded, or there is no GPU where one is asked for.
        BackendError: memory ran out, or a process that decodes images died.
    """
    device = choose_device(config.device, key="features.device")
    backbone.to(device)
    sizes = [len(_present(dataset.has_image, rows)) for rows in shards]
    loaded = load_pixels(
        _batches(_images_of_shards(dataset, shards, backbone.kind), sizes, config.batch_size),
        backbone.preprocess,
        name=image_namer(dataset),
        num_images=sum(sizes),
        workers=config.workers or num_workers(device),
        pin_memory=device.type == "cuda",
    )
    batches = track(loaded, description="embedding images", total=sum(sizes), size=lambda batch: len(batch.rows))
    for rows, size in zip(shards, sizes, strict=True):
        vectors = torch.zeros(len(rows), backbone.dim, device=device)
        for batch in islice(batches, math.ceil(size / config.batch_size)):
            places, pixels = (part.to(device, non_blocking=True) for part in batch)
            with clear_memory_error(config.batch_size, "images"), inference(config.precision, device):
                vectors[places - rows.start] = backbone.embed(pixels).float()
        yield vectors
    backbone.to(torch.device("cpu"))  # the other modality may need the GPU's memory


def embed_texts(
    dataset: Dataset, backbone: TextBackbone, config: FeaturesConfig, shards: Sequence[range]
) -> Iterator[Tensor]:
    """Vectors of the texts in some shards; texts of similar length share a batch, so that little is padded.

    Raises:
        InputError: there is no GPU where one is asked for.
        BackendError: memory ran out.
    """
    device = choose_device(config.device, key="features.device")
    backbone.to(device)
    total = sum(map(len, shards))
    for rows in track(shards, description="embedding texts", total=total, size=len):
        vectors = torch.zeros(len(rows), backbone.dim)
        # the longest first: where memory does not suffice for them, that shows at once
        order = sorted(_present(dataset.has_text, rows).tolist(), key=lambda row: -len(dataset.texts[row]))
        for start in range(0, len(order), config.batch_size):
            batch = order[start : start + config.batch_size]
            with clear_memory_error(config.batch_size, "texts"), inference(config.precision, device):
                encoded = backbone.encode([dataset.texts[row] for row in batch])
            vectors[torch.tensor(batch) - rows.start] = torch.from_numpy(encoded)
        yield vectors
    backbone.to(torch.device("cpu"))


def num_workers(device: torch.device) -> int:
    """Processes that decode: one for each core but one; none where the network has the cores, with most of the work."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if device.type == "cpu" else max(1, cores - 1)


@contextmanager
def inference(precision: str, device: torch.device) -> Iterator[None]:
    """No gradients, and the arithmetic that `features.precision` asks for."""
    with torch.inference_mode(), arithmetic(precision, device):
        yield


def arithmetic(precision: str, device: torch.device) -> torch.autocast:
    """The arithmetic that `features.precision` asks for, as a context."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def clear_memory_error(batch_size: int, what: str) -> Iterator[None]:
    """Say in one line that the GPU's memory does not suffice for a batch.

    Raises:
        BackendError: memory ran out in the body.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise BackendError(
            f"the GPU has no memory left for a batch of {batch_size} {what}",
            "lower features.batch_size in params.yaml and run again, finished vectors are kept",
        ) from error


def _images_of_shards(dataset: Dataset, shards: Sequence[range], kind: str) -> Iterator[NumberedImage]:
    wanted = np.zeros(len(dataset), dtype=np.bool_)
    for rows in shards:
        wanted[_present(dataset.has_image, rows)] = True
    return read_images(dataset, wanted, kind)


def read_images(dataset: Dataset, wanted: NDArray[np.bool_], kind: str) -> Iterator[NumberedImage]:
    """Encoded images in row order.

    Args:
        dataset: where they are.
        wanted: which items' images, [N].
        kind: the encoder that expects them, for the message.

    Raises:
        InputError: an item has no image.
    """
    remaining = iter(np.flatnonzero(wanted).tolist())
    for images in dataset.iterate_images(wanted):
        numbered = list(zip(islice(remaining, len(images)), images, strict=True))
        missing = [repr(dataset.ids[row]) for row, image in numbered if image is None]
        if missing:
            raise InputError(
                f"{dataset.artifact.path} has no image for the items {name_first(missing)}, as features.image: "
                f"{kind} expects",
                "give the raw data images (layout folder: dataset.folder.images), or set "
                "features.image: precomputed in params.yaml",
            )
        yield from (NumberedImage(row, image) for row, image in numbered if image is not None)


def _batches(images: Iterator[NumberedImage], sizes: Sequence[int], batch_size: int) -> Iterator[list[NumberedImage]]:
    """Cut the images of shards, of which so many are present, into batches."""
    for size in sizes:
        for start in range(0, size, batch_size):
            yield list(islice(images, min(batch_size, size - start)))


def _present(has: NDArray[np.bool_], rows: range) -> NDArray[np.int64]:
    """Those rows of a shard whose items have the modality."""
    return rows.start + np.flatnonzero(has[rows.start : rows.stop])


def image_namer(dataset: Dataset) -> Callable[[int], str]:
    """Names the image of a row, for messages."""
    return lambda row: f"{dataset.artifact.path}: the image of item {dataset.ids[row]!r}"

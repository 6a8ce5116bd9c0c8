"""Small networks with the interface of pretrained ones, and data sets for them; worker processes import this."""

import io
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dagnn_core.artifacts import write_artifact
from dagnn_core.data.dataset import Dataset, Item
from dagnn_core.data.ingest.writer import DatasetWriter
from dagnn_core.errors import InputError

SIDE = 16


def preprocess(encoded: bytes) -> np.ndarray:
    try:
        image = Image.open(io.BytesIO(encoded)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    except OSError as error:
        raise InputError(f"cannot be decoded ({error}); replace it") from error
    return np.asarray(image).transpose(2, 0, 1)


def preprocess_or_die(encoded: bytes) -> np.ndarray:
    """Is killed, as by the kernel where memory runs out, at the one red image."""
    pixels = preprocess(encoded)
    if pixels[0].min() == 255 and pixels[1].max() == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return pixels


def preprocess_with_a_bug(encoded: bytes) -> np.ndarray:
    raise RuntimeError("no such luck")


def convolutions(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()


@dataclass
class SmallImageBackbone:
    network: nn.Module = field(default_factory=convolutions)
    preprocess: Any = preprocess
    identity: Mapping[str, Any] = field(default_factory=lambda: {"weights": "0"})
    kind: str = "huggingface"
    dim: int = 12
    batch_sizes: list[int] = field(default_factory=list)
    """Of all batches that were embedded."""

    def to(self, device: torch.device) -> None:
        self.network.to(device)

    def embed(self, pixels: Tensor) -> Tensor:
        self.batch_sizes.append(len(pixels))
        return self.network(pixels.float() / 255)

    def save(self, directory: Path) -> None: ...


@dataclass
class SmallTextBackbone:
    """Counts letters; keeps the lengths of the texts of every batch."""

    identity: Mapping[str, Any] = field(default_factory=lambda: {"weights": "0"})
    kind: str = "huggingface"
    dim: int = 26
    lengths: list[list[int]] = field(default_factory=list)

    def to(self, device: torch.device) -> None: ...

    def encode(self, texts: Sequence[str], /) -> np.ndarray:
        self.lengths.append([len(text) for text in texts])
        counts = [[text.count(chr(ord("a") + letter)) for letter in range(26)] for text in texts]
        return np.array(counts, dtype=np.float32)

    def save(self, directory: Path) -> None: ...


def make_image(seed: int, *, colour: str = "") -> bytes:
    """A PNG whose size depends on the seed, too."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(5, 60, 2)
    file = io.BytesIO()
    if colour:
        Image.new("RGB", (int(width), int(height)), colour).save(file, "PNG")
    else:
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def make_dataset(
    path: Path, num_items: int, *, special: Mapping[int, bytes | None] | None = None, seed: int = 0
) -> Dataset:
    """Images and texts of many sizes; every seventh item lacks the image, the one before it the text.

    Args:
        path: where it goes.
        num_items: how many.
        special: other images of some rows.
        seed: of images and texts.
    """
    with write_artifact(path, kind="dataset", provenance={"ancestors": {}}) as draft:
        with DatasetWriter(draft.path, ["boat"]) as writer:
            for row in range(num_items):
                has_image = row % 7 != 6
                image = (special or {}).get(row, make_image(seed + row) if has_image else None)
                text = "" if row % 7 == 5 else "boat " * (1 + (row + seed) * 37 % 11) + chr(ord("a") + row % 26)
                split = "train" if row % 2 == 0 else "val"
                writer.add(Item(f"item-{row}", text, ("boat",), image, f"{row}.png", split, has_image, bool(text)))
            writer.write_rejected([])
        draft.content = writer.content
    return Dataset.read(path)

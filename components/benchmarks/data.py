"""The program behind `dagnn bench data`: what grows how fast with the number of items, from the import on.

The items are random: a small image each, of which one in a hundred is nearly a copy of an earlier one, a text of
some words, and labels. They come in tar shards.
"""

import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from components.benchmarks.memory import peak_of
from components.benchmarks.table import Row
from components.steps import build_label_graph, dataset
from dagnn_core.artifacts import read_artifact
from dagnn_core.config.dataset import DatasetConfig
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.config.section import DEFAULT_SEED
from dagnn_core.data.dataset import KIND
from dagnn_core.data_check.check import check_dataset
from dagnn_core.data_check.findings import Limits

NUM_LABELS, NUM_WORDS = 24, 2000
LABELS_PER_ITEM, WORDS_PER_TEXT = 3, 8
IMAGE_SIZE = 16
ITEMS_PER_SHARD = 10_000
COPY_EVERY = 100
MIB = 1 << 20


def run(*, sizes: Sequence[int], folder: Path | None = None) -> list[Row]:
    """Time import (with quarantine, near copies, splits and data card), data check, and label graph.

    Args:
        sizes: numbers of items.
        folder: where the data lie for the while; about 5 kB an item.

    Returns:
        A row for each size and stage: seconds, seconds of CPU time, which other load on the machine moves less, of an
        item too, and MiB of memory at their highest.
    """
    rows: list[Row] = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="dagnn-bench-", dir=folder) as temporary:
            rows += _measure(size, Path(temporary))
    return rows


def _measure(size: int, root: Path) -> Iterator[Row]:
    _write_shards(root / "raw", size)
    made = root / "dataset"
    config = DatasetConfig(layout="webdataset", source=str(root / "raw"))
    graph = LabelGraphConfig()
    stages: dict[str, Callable[[], object]] = {
        "import, with data card": lambda: dataset.run(params=config, work=root / "work", dataset_out=made),
        "data check": lambda: check_dataset(read_artifact(made, KIND), Limits()),
        "label graph": lambda: build_label_graph.run(dataset=made, params=graph, label_graph_out=root / "label_graph"),
    }
    for name, stage in stages.items():
        with peak_of("VmRSS") as peak:
            start, start_cpu = time.perf_counter(), _cpu_seconds()
            stage()
            seconds, cpu_seconds = time.perf_counter() - start, _cpu_seconds() - start_cpu
        yield {
            "stage": name,
            "items": float(size),
            "seconds": seconds,
            "CPU seconds": cpu_seconds,
            "CPU microseconds an item": cpu_seconds / size * 1e6,
            "peak memory: MiB": peak() / MIB,
        }


def _cpu_seconds() -> float:
    """Of this process and of those it has waited for."""
    times = os.times()
    return sum(times[:4])


def _write_shards(folder: Path, size: int) -> None:
    rng = np.random.default_rng(DEFAULT_SEED)
    folder.mkdir()
    earlier = _random_pixels(rng)
    for start in range(0, size, ITEMS_PER_SHARD):
        with tarfile.open(folder / f"{start // ITEMS_PER_SHARD:05d}.tar", "w") as shard:
            for row in range(start, min(start + ITEMS_PER_SHARD, size)):
                pixels = _random_pixels(rng)
                if row % COPY_EVERY == 0:
                    pixels = earlier.copy()
                    pixels[0, 0] ^= 1 + row % 7
                elif row % COPY_EVERY == 1:
                    earlier = pixels
                for name, content in _members(row, pixels, rng):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))


def _members(row: int, pixels: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    image = io.BytesIO()
    Image.fromarray(pixels).resize((4 * IMAGE_SIZE, 4 * IMAGE_SIZE)).save(image, "PNG", compress_level=1)
    labels = sorted({f"label{number:02d}" for number in rng.integers(NUM_LABELS, size=LABELS_PER_ITEM)})
    words = [f"word{number}" for number in (NUM_WORDS * rng.random(WORDS_PER_TEXT) ** 2).astype(int)]
    yield f"{row:08d}.png", image.getvalue()
    yield f"{row:08d}.txt", " ".join([*words, *labels, f"item{row}"]).encode()
    yield f"{row:08d}.json", json.dumps({"labels": labels}).encode()


def _random_pixels(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)

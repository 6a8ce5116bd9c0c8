"""What a data card says beyond the manifest, gathered in one pass over the images."""

# N items

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dagnn_core.data.dataset import SPLITS, Dataset
from dagnn_core.data.images import read_header
from dagnn_core.data.ingest.duplicates import content_key, find_copies
from dagnn_core.data.splits import hash_point
from dagnn_core.progress import track
from dagnn_core.reports.page.thumbnail import thumbnail

NUM_SAMPLES = 12
QUANTILES = {"shortest": 0.0, "quarter": 0.25, "median": 0.5, "three quarters": 0.75, "95 %": 0.95, "longest": 1.0}
MAX_BINS = 16
COVERED = 0.995  # of the texts have bins of their own; the longest share the last one


class SampleItem(NamedTuple):
    """A training item, shown as an example."""

    id: str
    text: str
    labels: Sequence[str]
    image: bytes | None
    """A small copy, as JPEG."""


class Lengths(NamedTuple):
    """Words per text in one split."""

    quantiles: Sequence[int]
    """At QUANTILES."""
    bins: Sequence[float]
    """Fraction of the texts in each bin."""


class TextLengths(NamedTuple):
    """Words per text."""

    bin_starts: Sequence[int]
    """The fewest words of each bin."""
    bin_names: Sequence[str]
    by_split: Mapping[str, Lengths]
    """The splits that have texts."""

    @property
    def tallest(self) -> float:
        """The largest fraction of a bin."""
        return max(fraction for lengths in self.by_split.values() for fraction in lengths.bins)


class ImageStats(NamedTuple):
    """The encoded images."""

    num_images: int
    num_bytes: int
    formats: Mapping[str, int]
    """Images by format, the most frequent first."""
    median_size: tuple[int, int]
    """Width and height in pixels, each by itself."""
    smallest: tuple[int, int]
    """Width and height of the image with the fewest pixels."""
    largest: tuple[int, int]


class ItemPlace(NamedTuple):
    """Where an item is."""

    id: str
    split: str


class Overlap(NamedTuple):
    """Identical images, or identical texts."""

    what: str
    num_items: int
    """Items that have one."""
    within: int
    """Items that repeat an earlier one of their split."""
    across: int
    """Items that another split has, too."""
    examples: Sequence[tuple[ItemPlace, ItemPlace]]
    """The first few pairs across splits."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a data card says beyond the manifest."""

    samples: Sequence[SampleItem]
    labels_per_item: Mapping[int, int]
    """Number of labels -> items that have so many."""
    text_lengths: TextLengths | None
    """None where no item has a text."""
    images: ImageStats | None
    """None where there are precomputed vectors, or texts, alone."""
    overlaps: Sequence[Overlap]


@dataclass(slots=True)
class _Scan:
    """What the pass over the images collects."""

    keys: NDArray[np.uint64]
    sizes: NDArray[np.int64]
    """Width and height in pixels, [N, 2]; zeros where there is no image."""
    formats: Counter[str]
    num_bytes: int
    samples: dict[int, bytes | None]


def gather_facts(dataset: Dataset, *, seed: int) -> Facts:
    """Read a data set once, with few images at a time in memory.

    Args:
        dataset: any.
        seed: draws the samples from the training items, by their ids: not by their order.
    """
    drawn = sorted(
        dataset.rows("train").tolist(), key=lambda row: hash_point(dataset.ids[row], seed=seed, purpose="card")
    )
    scan = _scan_images(dataset, drawn[:NUM_SAMPLES])
    names = np.array(dataset.label_names)
    text_keys = np.array([content_key(text.encode()) for text in dataset.texts], np.uint64)
    has_encoded_image = scan.sizes.any(axis=1)
    return Facts(
        samples=[
            SampleItem(dataset.ids[row], dataset.texts[row], names[dataset.labels[row] > 0].tolist(), image)
            for row, image in scan.samples.items()
        ],
        labels_per_item=dict(sorted(Counter(dataset.labels.sum(axis=1).tolist()).items())),
        text_lengths=_text_lengths(dataset) if dataset.is_written.any() else None,
        images=_image_stats(scan, scan.sizes[has_encoded_image]) if has_encoded_image.any() else None,
        overlaps=[
            _overlap(dataset, what, np.flatnonzero(present), keys)
            for what, present, keys in (
                ("images", has_encoded_image, scan.keys),
                ("texts", dataset.is_written, text_keys),
            )
            if present.any()
        ],
    )


def _scan_images(dataset: Dataset, sample_rows: Sequence[int]) -> _Scan:
    scan = _Scan(
        keys=np.zeros(len(dataset), np.uint64),
        sizes=np.zeros((len(dataset), 2), np.int64),
        formats=Counter(),
        num_bytes=0,
        samples=dict.fromkeys(sample_rows),
    )
    images = (image for batch in dataset.iterate_images() for image in batch)
    for row, encoded in enumerate(track(images, description="describing the data", total=len(dataset))):
        if encoded is None:
            continue
        scan.keys[row] = content_key(encoded)
        scan.num_bytes += len(encoded)
        header = read_header(encoded)
        scan.sizes[row] = header.width, header.height
        scan.formats[header.format] += 1
        if row in scan.samples:
            scan.samples[row] = thumbnail(encoded)
    return scan


def _image_stats(scan: _Scan, sizes: NDArray[np.int64]) -> ImageStats:
    by_pixels = sizes[np.argsort(sizes.prod(axis=1), kind="stable")]

    def pair(size: NDArray[Any]) -> tuple[int, int]:
        return int(size[0]), int(size[1])

    return ImageStats(
        num_images=len(sizes),
        num_bytes=scan.num_bytes,
        formats=dict(sorted(scan.formats.items(), key=lambda entry: (-entry[1], entry[0]))),
        median_size=pair(np.quantile(sizes, 0.5, axis=0, method="nearest")),
        smallest=pair(by_pixels[0]),
        largest=pair(by_pixels[-1]),
    )


def _text_lengths(dataset: Dataset) -> TextLengths:
    lengths = np.array([len(text.split()) for text in dataset.texts])
    is_written = dataset.is_written
    low = int(lengths[is_written].min())
    high = int(np.quantile(lengths[is_written], COVERED, method="higher"))
    width = -(-(high - low + 1) // MAX_BINS)
    starts = range(low, high + 1, width)
    by_split = {}
    for split in SPLITS:
        here = lengths[(dataset.splits == split) & is_written]
        if len(here):
            quantiles = np.quantile(here, list(QUANTILES.values()), method="nearest")
            bins = np.bincount(np.minimum((here - low) // width, len(starts) - 1), minlength=len(starts)) / len(here)
            by_split[split] = Lengths(quantiles.tolist(), bins.tolist())
    names = [str(start) if width == 1 else f"{start}-{start + width - 1}" for start in starts]
    if lengths.max() > starts[-1] + width - 1:
        names[-1] = f"{starts[-1]}+"
    return TextLengths(starts, names, by_split)


def _overlap(dataset: Dataset, what: str, rows: NDArray[np.int64], keys: NDArray[np.uint64]) -> Overlap:
    groups = np.array([SPLITS.index(split) for split in dataset.splits[rows].tolist()])
    copies = find_copies(keys[rows], groups)

    def place(number: int) -> ItemPlace:
        row = int(rows[number])
        return ItemPlace(dataset.ids[row], str(dataset.splits[row]))

    examples = [(place(one), place(other)) for one, other in copies.examples_across]
    return Overlap(what, len(rows), int(copies.within.sum()), int(copies.across.sum()), examples)

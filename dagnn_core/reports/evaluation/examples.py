"""Test items as a report shows them: queries with the start of their rankings, and small images."""

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dagnn_core.data.dataset import Dataset
from dagnn_core.reports.page.thumbnail import data_uri, thumbnail
from dagnn_core.retrieval.metrics import FirstRanks


class Label(NamedTuple):
    """A label of an item."""

    name: str
    is_shared: bool
    """With the query."""


class ShownItem(NamedTuple):
    """A pair as a page shows it."""

    id: str
    text: str
    image: str
    """Data URI; empty where the data set has precomputed vectors only, or where none is shown."""
    labels: Sequence[Label]


class Hit(NamedTuple):
    """A retrieved item."""

    item: ShownItem
    is_relevant: bool
    is_own: bool
    """It is the query's own partner."""


class Example(NamedTuple):
    """A query and the first items of its ranking."""

    query: ShownItem
    average_precision: float
    hits: Sequence[Hit]


class Showcase:
    """Makes what a page shows of the test items.

    Args:
        dataset: texts and images.
        rows: rows of the test items in it, [N].
        with_image: test items of which images are going to be shown; they are read at once.
    """

    def __init__(self, dataset: Dataset, rows: NDArray[np.int64], with_image: Collection[int]) -> None:
        self._dataset = dataset
        self._rows = rows
        items = sorted(with_image)
        encoded = dataset.images([int(rows[item]) for item in items])
        self._encoded: Mapping[int, bytes | None] = dict(zip(items, encoded, strict=True))
        self._image = cache(self._make_image)
        self.scale = 1.0
        """Of the sides of all images."""

    def _make_image(self, item: int, pixels: int) -> str:
        """A small copy of an image as data URI; empty where there is none."""
        encoded = self._encoded.get(item)
        return data_uri(thumbnail(encoded, pixels), "jpeg") if encoded else ""

    def show(self, item: int, query: int | None = None, *, pixels: int = 0) -> ShownItem:
        """A test item.

        Args:
            item: its number.
            query: the query that it stands beside, with which it may share labels; None: itself.
            pixels: of its image; 0: without.
        """
        row = int(self._rows[item])
        query_labels = self._dataset.labels[self._rows[item if query is None else query]]
        labels = [
            Label(self._dataset.label_names[column], bool(query_labels[column]))
            for column in np.flatnonzero(self._dataset.labels[row]).tolist()
        ]
        image = self._image(item, max(1, int(pixels * self.scale))) if pixels else ""
        return ShownItem(self._dataset.ids[row], self._dataset.texts[row], image, labels)

    def example(
        self,
        query: int,
        direction: str,
        *,
        first: FirstRanks,
        average_precision: NDArray[np.float64],
        num_retrieved: int,
        pixels: int,
    ) -> Example:
        """A query with the start of its ranking; texts that find images show the images, and the other way round.

        Args:
            query: its number.
            direction: of the search.
            first: the first ranks of this direction.
            average_precision: of every query, [N].
            num_retrieved: how many results.
            pixels: of the images.
        """
        hits = [
            Hit(
                self.show(item, query, pixels=pixels if direction == "t2i" else 0),
                bool(first.relevant[query, rank]),
                item == query,
            )
            for rank, item in enumerate(first.order[query, :num_retrieved].tolist())
        ]
        shown = self.show(query, pixels=pixels if direction == "i2t" else 0)
        return Example(shown, float(average_precision[query]), hits)


def shown_images(queries: Sequence[int], direction: str, first: FirstRanks, num_retrieved: int) -> set[int]:
    """The test items of which examples of some queries show the images."""
    if direction == "i2t":
        return set(queries)
    return set(first.order[list(queries), :num_retrieved].ravel().tolist())

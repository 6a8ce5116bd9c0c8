"""Write the files of a `dataset` artifact, one item after the other."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dagnn_core.data.dataset import (
    REJECTED_SCHEMA,
    ROW_GROUP_ITEMS,
    SCHEMA,
    SHARD_BYTES,
    SPLITS,
    Item,
    Modality,
    Rejection,
)

ROW_GROUP_BYTES = 16 << 20  # large pictures: fewer of them in a row group, which is held in memory
MODALITIES = {(True, True): "complete", (True, False): "image_only", (False, True): "text_only"}
"""Whether an item has a picture, and a text -> what the manifest counts it as."""


class DatasetWriter:
    """Streams items into Parquet shards; at most one row group is in memory.

    Use it as a context manager, add all items, then take `content` after the block.
    """

    def __init__(self, folder: Path, label_names: Sequence[str], *, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._label_names = tuple(label_names)
        self._shard_bytes = shard_bytes
        self._shard: pq.ParquetWriter | None = None
        self._num_shards = 0
        self._shard_size = 0
        self._group: list[Item] = []
        self._group_size = 0
        self._label_counts = {split: Counter[str]() for split in SPLITS}
        self._split_sizes = Counter[str]()
        self._modalities = Counter[str]()
        self._rejected = Counter[str]()
        self._vectors: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._flush_group()
        self._close_shard()

    def add(self, item: Item) -> None:
        """Append one item."""
        self._group.append(item)
        self._group_size += len(item.image or b"")
        self._split_sizes[item.split] += 1
        self._modalities[MODALITIES[item.has_image, item.has_text]] += 1
        self._label_counts[item.split].update(item.labels)
        if len(self._group) == ROW_GROUP_ITEMS or self._group_size >= ROW_GROUP_BYTES:
            self._flush_group()

    def write_rejected(self, rejections: Sequence[Rejection]) -> None:
        """Write the rows that cannot be used."""
        columns = zip(*rejections, strict=True) if rejections else ([] for _ in REJECTED_SCHEMA)
        table = pa.table([list(column) for column in columns], schema=REJECTED_SCHEMA)
        pq.write_table(table, self._folder / "rejected.parquet")
        self._rejected.update(rejection.reason for rejection in rejections)

    def write_vectors(self, modality: Modality, vectors: NDArray[np.floating[Any]]) -> None:
        """Write ready vectors [N, dim] of all items, in their order."""
        path = self._folder / "vectors" / f"{modality}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, vectors, allow_pickle=False)
        self._vectors[modality] = {"dim": vectors.shape[1], "dtype": str(vectors.dtype)}

    @property
    def content(self) -> dict[str, Any]:
        """What the manifest says about the files."""
        return {
            "label_names": list(self._label_names),
            "num_items": self._split_sizes.total(),
            "splits": {split: self._split_sizes[split] for split in SPLITS},
            "modalities": {name: self._modalities[name] for name in MODALITIES.values()},
            "label_counts": {
                split: {name: counts[name] for name in self._label_names}
                for split, counts in self._label_counts.items()
            },
            "rejected": dict(self._rejected.most_common()),
            "vectors": self._vectors,
        }

    def _flush_group(self) -> None:
        if not self._group:
            return
        if self._shard is None:
            self._shard = self._open_shard()
        self._shard.write_table(_table(self._group), row_group_size=len(self._group))
        self._shard_size += self._group_size
        self._group, self._group_size = [], 0
        if self._shard_size >= self._shard_bytes:
            self._close_shard()

    def _open_shard(self) -> pq.ParquetWriter:
        path = self._folder / f"data-{self._num_shards:05d}.parquet"
        self._num_shards += 1
        # pictures are compressed already; dictionaries and statistics of them would only cost time
        return pq.ParquetWriter(path, SCHEMA, compression="none", use_dictionary=["split"], write_statistics=False)

    def _close_shard(self) -> None:
        if self._shard is not None:
            self._shard.close()
        self._shard, self._shard_size = None, 0


def _table(items: Sequence[Item]) -> pa.Table:
    images = [None if item.image is None else {"bytes": item.image, "path": item.image_path} for item in items]
    return pa.table(
        [
            [item.id for item in items],
            [item.text for item in items],
            [list(item.labels) for item in items],
            images,
            [item.split for item in items],
            [item.has_image for item in items],
            [item.has_text for item in items],
        ],
        schema=SCHEMA,
    )

"""Parquet shards of items. A shard that has its name is whole and on disk, whatever happens next.

A finished shard has the sha256 of its bytes in its name, so one that is damaged afterwards is not taken up again.
"""

import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dagnn_core.artifacts import sha256_of
from dagnn_core.data.dataset import COLUMN_PREFIX, ROW_GROUP_ITEMS, SCHEMA, Item, with_columns
from dagnn_core.disk import writing

log = logging.getLogger(__name__)

ROW_GROUP_BYTES = 16 << 20  # large images: fewer of them in a row group, which is held in memory


class ShardWriter:
    """Streams items into shards; at most one row group is in memory. Equal items make equal files."""

    def __init__(self, folder: Path, *, columns: Sequence[str], shard_bytes: int) -> None:
        self._folder = folder
        self._columns = columns
        self._shard_bytes = shard_bytes
        self._shard: pq.ParquetWriter | None = None
        self._finished: list[Path] = []
        self._shard_size = 0
        self._group: list[Item] = []
        self._group_size = 0

    def take_finished(self) -> int:
        """Resume after the finished shards in the folder; returns how many items they hold."""
        num_items = 0
        while found := sorted(self._folder.glob(f"{self._stem}-*.parquet")):
            path = found[0]
            if path.stem != f"{self._stem}-{sha256_of(path)}":
                log.warning("%s is damaged: the items from there on are written again", path)
                path.unlink()
                break
            num_items += pq.read_metadata(path).num_rows
            self._finished.append(path)
        return num_items

    def add(self, item: Item) -> None:
        """Append one item."""
        self._group.append(item)
        self._group_size += len(item.image or b"")
        if len(self._group) == ROW_GROUP_ITEMS or self._group_size >= ROW_GROUP_BYTES:
            self._flush_group()

    def finish(self) -> None:
        """Finish the last shard."""
        self._flush_group()
        self._finish_shard()

    def drop_unfinished(self) -> None:
        """Drop the shard that is not finished, where there is one."""
        if self._shard is not None:
            with suppress(OSError):  # the disk that failed may do so again
                self._shard.close()
            self._temporary.unlink(missing_ok=True)

    def publish(self, folder: Path) -> None:
        """Give all finished shards the names that readers expect.

        Args:
            folder: the writer's own, or another: there they are hard links, or copies on another file system.
        """
        for shard, source in enumerate(self._finished):
            target = folder / f"{_stem(shard)}.parquet"
            if folder == self._folder:
                source.rename(target)
                continue
            try:
                target.hardlink_to(source)
            except OSError:
                with writing(target, need=source.stat().st_size):
                    shutil.copyfile(source, target)

    @property
    def _stem(self) -> str:
        return _stem(len(self._finished))

    @property
    def _temporary(self) -> Path:
        return self._folder / f"{self._stem}.tmp"

    def _flush_group(self) -> None:
        if not self._group:
            return
        with writing(self._temporary.with_suffix(".parquet")):
            if self._shard is None:
                # images are compressed already; dictionaries and statistics of them would only cost time
                self._shard = pq.ParquetWriter(
                    self._temporary,
                    with_columns(SCHEMA, self._columns),
                    compression="none",
                    use_dictionary=["split", *(COLUMN_PREFIX + name for name in self._columns)],
                    write_statistics=False,
                )
            self._shard.write_table(_table(self._group, self._columns), row_group_size=len(self._group))
        self._shard_size += self._group_size
        self._group, self._group_size = [], 0
        if self._shard_size >= self._shard_bytes:
            self._finish_shard()

    def _finish_shard(self) -> None:
        if self._shard is None:
            return
        with writing(self._temporary.with_suffix(".parquet")):
            self._shard.close()
            with self._temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            path = self._folder / f"{self._stem}-{sha256_of(self._temporary)}.parquet"
            self._temporary.rename(path)
        self._finished.append(path)
        self._shard, self._shard_size = None, 0


def _stem(shard: int) -> str:
    return f"data-{shard:05d}"


def _table(items: Sequence[Item], columns: Sequence[str]) -> pa.Table:
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
            *([item.columns[name] for item in items] for name in columns),
        ],
        schema=with_columns(SCHEMA, columns),
    )

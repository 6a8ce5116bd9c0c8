"""The `dataset` artifact: Parquet shards of items, the rejected rows, and precomputed vectors where there are any.

`data-00000.parquet` ... hold `id`, `text`, `labels` (list of texts), `image` (struct of `bytes` and `path`; null where
the item has no image, or precomputed vectors only), `split`, `has_image` and `has_text`. A training item may lack one
of the two modalities: then its image is null or its text empty; data of precomputed vectors alone has neither images
nor texts. A training item without labels is unlabelled: its labels are not known. `column_NAME` holds the column NAME
of the source, as texts, where `dataset.folder.keep_columns` asks for it. `rejected.parquet` holds `row` (of the raw
table, from 1), `id`, `reason` and `detail`. `vectors/image.npy` and `vectors/text.npy` [N, dim] are in row order, with
zeros for items that lack the modality. `unseen_labels.npy` uint8 [N, U], where `dataset.unseen_labels` asks
for it, has the labels that training must not see. `card.html` and `card.md`, with images in `card/`, describe it all to
people.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import RawIOBase
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dagnn_core.arrays import opening, read_array, read_columns
from dagnn_core.artifacts import Artifact, read_artifact
from dagnn_core.errors import ArtifactError, InputError

KIND = "dataset"
UNSEEN_LABELS = "unseen_labels.npy"
SPLITS = ("train", "val", "test")
COLUMN_PREFIX = "column_"  # of columns of the source, so that no name is one of ours
SHARD_BYTES = 64 << 20  # few large files: DVC and S3 are slow with many small ones
ROW_GROUP_ITEMS = 256  # an image is read with its row group, so groups stay small

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("split", pa.string()),
        ("has_image", pa.bool_()),
        ("has_text", pa.bool_()),
    ]
)
REJECTED_SCHEMA = pa.schema(
    [("row", pa.int64()), ("id", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)

Modality = Literal["image", "text"]


class Item(NamedTuple):
    """One row of a data set."""

    id: str
    text: str
    """Empty where the item has no text, or a precomputed vector only."""
    labels: Sequence[str]
    image: bytes | None
    """The encoded image (JPEG, PNG ...); None where the item has none, or a precomputed vector only."""
    image_path: str
    split: str
    has_image: bool = True
    """Whether there is an image, or a precomputed vector of it."""
    has_text: bool = True
    """Whether there is a text, or a precomputed vector of it."""
    columns: Mapping[str, str] = {}
    """Column of the source -> the item's cell, empty where it has none; the same columns for all items, mostly none."""


class Rejection(NamedTuple):
    """A row that cannot be used."""

    row: int
    """Row of the raw table, from 1: the first row of data."""
    id: str
    reason: str
    """Why, in words that are the same for all rows with the same fault."""
    detail: str = ""
    """What is particular to this row, such as the path of its image."""


class DataFile(NamedTuple):
    """One of the Parquet files of the items."""

    path: Path
    rows: range
    """Rows of the data set that it holds."""
    is_here: bool
    """Whether images can be read from it."""


class ImageNotHereError(InputError):
    """An image is asked for that lies in a file of which only the other columns were read."""


@dataclass(frozen=True, slots=True, weakref_slot=True)  # a lock may end with it
class Dataset:
    """A data set opened for reading; images are read when asked for."""

    artifact: Artifact
    label_names: tuple[str, ...]
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    splits: NDArray[np.str_]
    """Split of each item, [N]."""
    has_image: NDArray[np.bool_]
    """Which items have an image, or a precomputed vector of it, [N]."""
    has_text: NDArray[np.bool_]
    """Which items have a text, or a precomputed vector of it, [N]."""
    labels: NDArray[np.uint8]
    """Label matrix Y, [N, C], columns in the order of `label_names`."""
    unseen_label_names: tuple[str, ...]
    """Labels that only test items carry, and no other step than the evaluation sees; mostly none."""
    unseen_labels: NDArray[np.uint8]
    """Their matrix, [N, U], of test items alone."""
    columns: Mapping[str, tuple[str, ...]]
    """Column of the source -> its cell of every item, [N]; mostly none."""
    files: tuple[DataFile, ...]
    """Where the images are, in row order."""

    @classmethod
    def read(cls, path: Path, *, verify: bool = False) -> "Dataset":
        """Open a data set artifact.

        Raises:
            ArtifactError: it is missing or damaged, or its files are not what its manifest says.
        """
        return cls.of(read_artifact(path, KIND, verify=verify))

    @classmethod
    def of(cls, artifact: Artifact, *, elsewhere: Mapping[str, pa.Table] = MappingProxyType({})) -> "Dataset":
        """Open the data set of an artifact that is checked.

        Args:
            artifact: the artifact.
            elsewhere: name of a data file that is not here -> what `read_table` made of it.

        Raises:
            ArtifactError: its files are not what its manifest says.
        """
        content = artifact.require("label_names", "num_items", "splits")
        paths = shards(artifact)
        tables = [elsewhere[path.name] if path.name in elsewhere else read_table(artifact, path.name) for path in paths]
        columns = content.get("columns", ())
        table = pa.concat_tables(tables) if tables else with_columns(SCHEMA, columns).empty_table()
        if table.num_rows != content["num_items"]:
            raise ArtifactError(
                f"{artifact.path}: the shards have {table.num_rows} rows, but the manifest says {content['num_items']}",
                artifact.remedy,
            )
        names = tuple(content["label_names"])
        splits = np.array(table["split"].to_pylist(), dtype=np.str_)
        check_splits(splits, content["splits"], artifact)
        return cls(
            artifact=artifact,
            label_names=names,
            ids=tuple(table["id"].to_pylist()),
            texts=tuple(table["text"].to_pylist()),
            splits=splits,
            has_image=table["has_image"].to_numpy(),
            has_text=table["has_text"].to_numpy(),
            labels=_label_matrix(table["labels"].to_pylist(), names, artifact),
            unseen_label_names=tuple(content.get("unseen_label_names", ())),
            unseen_labels=read_unseen_labels(artifact, splits),
            columns={name: tuple(table[COLUMN_PREFIX + name].to_pylist()) for name in columns},
            files=tuple(
                DataFile(path, range(stop - len(of_file), stop), path.name not in elsewhere)
                for path, of_file, stop in zip(paths, tables, accumulate(map(len, tables)), strict=True)
            ),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def is_written(self) -> NDArray[np.bool_]:
        """Which items have a text in words, not a precomputed vector of it alone, [N]."""
        return np.array([bool(text) for text in self.texts])

    def rows(self, split: str) -> NDArray[np.int64]:
        """Row numbers of one split, ascending."""
        return np.flatnonzero(self.splits == split)

    def iterate_images(self, wanted: NDArray[np.bool_] | None = None) -> Iterator[list[bytes | None]]:
        """Encoded images in row order, a row group at a time, without holding them all in memory.

        Args:
            wanted: which items' images, [N]; all by default. What lies between them is not read.

        Raises:
            ImageNotHereError: only the other columns of a file were read.
        """
        for _, images in self._read_images(np.ones(len(self), dtype=np.bool_) if wanted is None else wanted):
            yield images

    def images(self, rows: Sequence[int]) -> list[bytes | None]:
        """Encoded images of some rows, in the order asked for.

        Raises:
            ImageNotHereError: only the other columns of a file were read.
        """
        wanted = np.zeros(len(self), dtype=np.bool_)
        wanted[list(rows)] = True
        found = {
            row: image for here, images in self._read_images(wanted) for row, image in zip(here, images, strict=True)
        }
        return [found[row] for row in rows]

    def vectors(self, modality: Modality) -> NDArray[np.floating[Any]] | None:
        """Precomputed feature vectors [N, dim] of one modality, memory-mapped; None where the data set has none."""
        name = f"vectors/{modality}.npy"
        if name not in self.artifact.files:
            return None
        file = self.artifact.file(name)
        with opening(file, self.artifact.remedy):
            vectors: NDArray[np.floating[Any]] = np.load(file, mmap_mode="r", allow_pickle=False)
        return vectors

    def _read_images(self, wanted: NDArray[np.bool_]) -> Iterator[tuple[list[int], list[bytes | None]]]:
        """The wanted rows of each row group that has any, and their images."""
        for data in self.files:
            start = data.rows.start
            here = start + np.flatnonzero(wanted[start : data.rows.stop])
            if not len(here):
                continue
            if not data.is_here:
                raise ImageNotHereError(
                    f"{data.path} was read without its images, but that of item {self.ids[here[0]]!r} is asked for",
                    "fetch the whole data set",
                )
            with self._open(data.path) as file:
                for group in range(file.num_row_groups):
                    stop = start + file.metadata.row_group(group).num_rows
                    rows = here[(here >= start) & (here < stop)]
                    if len(rows):
                        images = self._encoded(file, data.path, group).take(pa.array(rows - start))
                        yield rows.tolist(), images.to_pylist()
                    start = stop

    def _open(self, shard: Path) -> pq.ParquetFile:
        with opening(shard, self.artifact.remedy):
            return pq.ParquetFile(shard)

    def _encoded(self, file: pq.ParquetFile, shard: Path, group: int) -> Any:
        """Encoded images of a row group, as a column."""
        with opening(shard, self.artifact.remedy):
            return file.read_row_group(group, columns=["image.bytes"])["image"].combine_chunks().field("bytes")


def with_columns(schema: pa.Schema, columns: Iterable[str]) -> pa.Schema:
    """The columns of a Parquet file of ours, then columns of the source by their names."""
    return pa.schema([*schema, *(pa.field(COLUMN_PREFIX + name, pa.string()) for name in columns)])


def shards(artifact: Artifact) -> list[Path]:
    """The Parquet files of the items, in order."""
    return [artifact.file(name) for name in sorted(artifact.files) if name.startswith("data-")]


def read_table(artifact: Artifact, name: str, file: RawIOBase | None = None) -> pa.Table:
    """Read all columns of a data file but the images.

    Args:
        artifact: the data set.
        name: of the data file.
        file: what it holds, where it is not here.

    Raises:
        ArtifactError: it is damaged, or has other columns than the manifest says.
    """
    schema = with_columns(SCHEMA, artifact.content.get("columns", ()))
    return read_columns(artifact.file(name), schema, None, without=["image"], remedy=artifact.remedy, file=file)


def check_splits(splits: NDArray[np.str_], counts: Mapping[str, int], artifact: Artifact) -> None:
    """Check that the items of each split are as many as a manifest says.

    Raises:
        ArtifactError: they are not, or one is in another split.
    """
    found = {split: int((splits == split).sum()) for split in SPLITS}
    if found != counts or sum(found.values()) != len(splits):
        raise ArtifactError(
            f"{artifact.path}: of {len(splits)} items {found} are in the splits, but the manifest says {counts}",
            artifact.remedy,
        )


def read_unseen_labels(artifact: Artifact, splits: NDArray[np.str_]) -> NDArray[np.uint8]:
    """The matrix of the labels that training must not see, [N, U]; of most artifacts U is 0.

    Args:
        artifact: a data set, or its features.
        splits: split of each item, [N].

    Raises:
        ArtifactError: the file is damaged, or an item of another split than test has one.
    """
    names = artifact.content.get("unseen_label_names", ())
    if not names:
        return np.zeros((len(splits), 0), np.uint8)
    file = artifact.file(UNSEEN_LABELS)
    labels: NDArray[np.uint8] = read_array(file, np.uint8, (len(splits), len(names)), remedy=artifact.remedy)
    if labels.max(initial=0) > 1 or labels[splits != "test"].any():
        raise ArtifactError(f"{file} has something else than the unseen labels of test items", artifact.remedy)
    return labels


def _label_matrix(labels: Iterable[Iterable[str]], names: Sequence[str], artifact: Artifact) -> NDArray[np.uint8]:
    column = {name: index for index, name in enumerate(names)}
    try:
        rows = [[column[label] for label in entry] for entry in labels]
    except KeyError as error:
        raise ArtifactError(
            f"{artifact.path}: the manifest does not name the label {error}", artifact.remedy
        ) from error
    matrix = np.zeros((len(rows), len(names)), dtype=np.uint8)
    for row, columns in enumerate(rows):
        matrix[row, columns] = 1
    return matrix

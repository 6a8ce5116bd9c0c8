"""What an index is built from: a data set artifact, a folder of images, or a table beside its images."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dagnn_core.data.dataset import Dataset
from dagnn_core.data.formats.archives import ImageError, open_images
from dagnn_core.data.formats.cells import Cell
from dagnn_core.data.formats.links import LinkOutsideError
from dagnn_core.data.formats.table import column_names, read_table
from dagnn_core.data.images import image_names
from dagnn_core.errors import InputError
from dagnn_core.text import quote


class SourceItem(NamedTuple):
    """One item to be indexed, or the reason why it cannot be."""

    row: int
    """Row of the source, from 1."""
    id: str
    text: str = ""
    """Empty where it has none."""
    labels: tuple[str, ...] = ()
    image: bytes | None = None
    """The encoded image; None where it has none."""
    columns: Mapping[str, str] = {}
    """What else can be filtered by."""
    image_vector: NDArray[np.floating[Any]] | None = None
    text_vector: NDArray[np.floating[Any]] | None = None
    """Precomputed features, for a model that takes nothing else."""
    fault: str = ""
    """Why it cannot be indexed; empty where it can."""


class Source(Protocol):
    """Items by number, with unique ids unless they have a fault; an iteration can begin anywhere."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def state(self) -> Sequence[object]:
        """What has another `repr` when an item has changed, without reading images."""

    def __len__(self) -> int:
        """Number of items, those that cannot be indexed included."""

    def items(self, start: int, stop: int) -> Iterator[SourceItem]:
        """The items from one number to another, reading their images."""


class DatasetSource:
    """All items of a data set artifact; the split is a column, as are those that it keeps of its source.

    Args:
        dataset: the data set.
        splits: those whose items are taken; empty: all.
    """

    def __init__(self, dataset: Dataset, splits: Sequence[str] = ()) -> None:
        self._dataset = dataset
        unknown = sorted(set(splits) - set(dataset.splits.tolist()))
        if unknown:
            known = ", ".join(sorted(set(dataset.splits.tolist())))
            raise InputError(
                f"{dataset.artifact.path} has no items of the split {quote(unknown[0])}", f"it has {known}"
            )
        taken = np.isin(dataset.splits, splits) if splits else np.ones(len(dataset), dtype=np.bool_)
        self._rows = np.flatnonzero(taken)
        self._vectors = {modality: dataset.vectors(modality) for modality in ("image", "text")}

    @property
    def name(self) -> str:
        """Its folder."""
        return str(self._dataset.artifact.path)

    @property
    def state(self) -> Sequence[object]:
        """Its content digest, and the rows."""
        return self._dataset.artifact.content_digest, self._rows.tolist()

    def __len__(self) -> int:
        return len(self._rows)

    def items(self, start: int, stop: int) -> Iterator[SourceItem]:
        """The items from one number to another."""
        dataset, rows = self._dataset, self._rows[start:stop]
        wanted = np.zeros(len(dataset), dtype=np.bool_)
        wanted[rows] = True
        images = (image for group in dataset.iterate_images(wanted) for image in group)
        names = np.array(dataset.label_names)
        for row, image in zip(rows.tolist(), images, strict=True):
            yield SourceItem(
                row=row + 1,
                id=dataset.ids[row],
                text=dataset.texts[row],
                labels=tuple(names[dataset.labels[row] > 0].tolist()),
                image=image,
                columns={"split": str(dataset.splits[row])}
                | {name: cells[row] for name, cells in dataset.columns.items()},
                image_vector=_vector(self._vectors["image"], row, present=bool(dataset.has_image[row])),
                text_vector=_vector(self._vectors["text"], row, present=bool(dataset.has_text[row])),
            )


class FolderSource:
    """The images of a folder and the folders below it; ids are their paths in it.

    Args:
        folder: the folder.

    Raises:
        InputError: it has no images.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = image_names(folder)
        self._images = open_images(folder)

    @property
    def name(self) -> str:
        """The folder."""
        return str(self._folder)

    @property
    def state(self) -> Sequence[object]:
        """Paths, and the states of the files."""
        return [(name, self._images.state(name)) for name in self._names]

    def __len__(self) -> int:
        return len(self._names)

    def items(self, start: int, stop: int) -> Iterator[SourceItem]:
        """The items from one number to another."""
        for row, name in enumerate(self._names[start:stop], start=start + 1):
            folder, _, _ = name.rpartition("/")
            image, fault = _read(self._images, name)
            yield SourceItem(row=row, id=name, image=image, columns={"folder": folder}, fault=fault)


class TableSource:
    """The rows of a table (CSV, Parquet, JSON Lines), with the images that one of its columns names.

    The columns `id`, `text`, `labels` and `image` mean what they say, and may be missing but for `id`; `labels` is a
    list, or a text with `|` between labels; `image` is a path below `images`. All others are there to filter by.

    Args:
        table: the table.
        images: folder, tar or zip with the images.

    Raises:
        InputError: it cannot be read, or has neither texts nor images.
    """

    def __init__(self, table: Path, images: Path) -> None:
        names = column_names(table, ["id"])
        self._table = read_table(table, {name: name for name in names})
        columns = self._table.columns
        if "id" not in columns or not {"text", "image"} & set(names):
            raise InputError(
                f"{table} has the columns {', '.join(names)}, expected id, and text or image (and labels)",
                "rename them",
            )
        self._images = open_images(images) if "image" in columns else None
        self._ids = self._table.texts("id")
        self._texts = self._table.texts("text") if "text" in columns else [""] * len(self._ids)
        self._paths = self._table.texts("image") if "image" in columns else [""] * len(self._ids)
        self._labels = [_labels(cell) for cell in columns.get("labels", [""] * len(self._ids))]
        self._others = sorted(set(names) - {"id", "text", "image", "labels"})
        self._first: dict[str, int] = {}
        for index, item_id in enumerate(self._ids):
            self._first.setdefault(item_id, index)

    @property
    def name(self) -> str:
        """The file."""
        return str(self._table.path)

    @property
    def state(self) -> Sequence[object]:
        """All cells, and the states of the images."""
        images = self._images
        states = [images.state(path) if images and path else None for path in self._paths]
        return [self._table.columns, states]

    def __len__(self) -> int:
        return len(self._ids)

    def items(self, start: int, stop: int) -> Iterator[SourceItem]:
        """The items from one number to another."""
        for index in range(start, min(stop, len(self))):
            image, fault = None, self._fault_of_id(index)
            if self._images is not None and self._paths[index]:
                image, unreadable = _read(self._images, self._paths[index])
                fault = fault or unreadable
            others = {name: _text(self._table.columns[name][index]) for name in self._others}
            yield SourceItem(
                index + 1, self._ids[index], self._texts[index], self._labels[index], image, others, fault=fault
            )

    def _fault_of_id(self, index: int) -> str:
        if not self._ids[index]:
            return "no id"
        first = self._first[self._ids[index]]
        return "" if first == index else f"row {first + 1} has the same id"


def open_source(path: Path, *, images: Path | None = None, splits: Sequence[str] = ()) -> Source:
    """Open what a path holds: a data set artifact, a folder of images, or a table.

    Args:
        path: folder or file.
        images: folder, tar or zip of the images that a table names; None: paths are relative to the table.
        splits: the splits of a data set to take; empty: all.

    Raises:
        InputError: it is none of these.
        ArtifactError: the data set is damaged.
    """
    is_dataset = (path / "manifest.json").is_file()
    if images is not None and not path.is_file():
        raise InputError(f"--images belongs to a table, but {path} is none", "leave it out")
    if splits and not is_dataset:
        raise InputError(f"{path} is no data set artifact, so it has no splits", "leave them out")
    if is_dataset:
        return DatasetSource(Dataset.read(path, verify=True), splits)
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        return TableSource(path, images or path.parent)
    raise InputError(f"{path} does not exist, expected a data set artifact, a folder of images, or a table")


def _read(images: Any, name: str) -> tuple[bytes | None, str]:
    try:
        image = images.read(name)
    except (ImageError, LinkOutsideError) as error:
        return None, str(error)
    return image, "" if image is not None else f"there is no image {name}"


def _vector(vectors: NDArray[np.floating[Any]] | None, row: int, *, present: bool) -> NDArray[np.floating[Any]] | None:
    return vectors[row] if vectors is not None and present else None


def _labels(cell: Cell) -> tuple[str, ...]:
    labels = cell.split("|") if isinstance(cell, str) else cell
    return tuple(sorted({label.strip() for label in labels if label.strip()}))


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)

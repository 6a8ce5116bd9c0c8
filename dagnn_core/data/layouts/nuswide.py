"""Layout `nuswide`: NUS-WIDE as its authors distribute it: image lists, ground truth, tags, and images or features.

Most files have one line for each image: in the order of the image list, or in two files for its parts train and test.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dagnn_core.config.dataset import NuswideConfig
from dagnn_core.data.dataset import Modality
from dagnn_core.data.formats.archives import open_images
from dagnn_core.data.ingest.quarantine import quarantine
from dagnn_core.data.raw import RawData, RawItem
from dagnn_core.data.vectors import PrecomputedVectors, precomputed_vectors
from dagnn_core.errors import InputError
from dagnn_core.progress import track

log = logging.getLogger(__name__)

BLOCK_LINES = 4096  # lines of numbers in memory at a time

_FEATURE_FOLDERS = ("Low_Level_Features", "NUS_WID_Low_Level_Features/Low_Level_Features")


@dataclass(frozen=True, slots=True)
class _ImageList:
    """The images, and where those of the official parts are among them."""

    paths: Sequence[str]
    parts: dict[str, NDArray[np.int64]]
    """Train and test -> place in `paths` of each line of the part's files."""

    def files(self, whole: Path, parts: dict[str, Path]) -> dict[Path, NDArray[np.int64]]:
        """Files that together have a line for each image -> place of the image of each line."""
        if not whole.is_file() and all(path.is_file() for path in parts.values()):
            return {path: self.parts[part] for part, path in parts.items()}
        return {whole: np.arange(len(self.paths))}

    def lines(self, whole: Path, parts: dict[str, Path]) -> Iterator[tuple[int, str]]:
        """Place and line of every image.

        Raises:
            InputError: a file is missing, or has another number of lines.
        """
        for path, places in self.files(whole, parts).items():
            number = 0
            for number, line in enumerate(_read_lines(path), start=1):
                if number <= len(places):
                    yield int(places[number - 1]), line
            _check_count(path, number, places)


def open_nuswide(source: Path, config: NuswideConfig, *, keep_incomplete: bool = False) -> RawData:
    """Read lists, labels and tags, and low-level features where asked for; images are only indexed.

    Images without a tag or without one of the chosen concepts are outside the benchmark, so they are no rows at all.

    Args:
        source: the folder that all paths of `config` are relative to.
        config: concepts, tags, splits, images or features.
        keep_incomplete: whether an image without tags is an item that lacks its text; there may also be no images
            at all.

    Raises:
        InputError: a file is missing or damaged, or two do not match.
    """
    if not (config.images or config.image_features or keep_incomplete):
        raise InputError(
            "dataset.nuswide has neither images nor image_features, expected one of them",
            "name the folder of the images, or low-level features (dataset.incomplete: keep takes texts alone)",
        )
    listed = _read_image_list(source / "ImageList")
    concepts, labels = _read_concepts(source, listed, config)
    labelled: NDArray[np.bool_] = np.any(labels, axis=1)
    texts = _read_texts(source / "NUS_WID_Tags", listed, config, labelled)
    places = [place for place in np.flatnonzero(labelled).tolist() if texts[place] or keep_incomplete]
    log.info("%d of %d images have a tag and one of the %d concepts", len(places), len(listed.paths), len(concepts))
    split_of = {int(place): part for part, part_places in listed.parts.items() for place in part_places}
    splits = split_of if config.splits == "official" else {}
    ids = [Path(path).stem for path in listed.paths]
    ready = _read_features(source, listed, config.image_features, places, ids) if config.image_features else None
    images = open_images(source / config.images, source) if config.images and ready is None else None

    def rows() -> Iterator[RawItem]:
        for row, place in enumerate(places, start=1):
            own = tuple(concepts[column] for column in np.flatnonzero(labels[place]))
            path = listed.paths[place] if images else ""
            has_image = images is not None or ready is not None
            yield RawItem(
                *(row, ids[place], texts[place], own, path, splits.get(place, "")),
                has_image=has_image,
                has_text=bool(texts[place]),
            )

    vectors: dict[Modality, PrecomputedVectors] = {"image": ready} if ready else {}
    items, rejections = quarantine(
        rows(), keep_incomplete=keep_incomplete, vectors=vectors, needs_split=config.splits == "official"
    )
    return RawData(
        source=str(source),
        num_rows=len(places),
        items=items,
        rejections=rejections,
        image=(lambda item: images.read(item.image_path)) if images else None,
        image_state=(lambda item: images.state(item.image_path)) if images else None,
        label_order=concepts,
        draws_val=config.splits == "official",
        vectors=vectors,
    )


def _read_image_list(folder: Path) -> _ImageList:
    paths = _read_paths(folder / "Imagelist.txt")
    place = {path: number for number, path in enumerate(paths)}
    if len(place) < len(paths):
        twice = next(path for number, path in enumerate(paths) if place[path] != number)
        raise InputError(f"{folder / 'Imagelist.txt'}: {twice!r} is there twice, expected each image once")
    parts: dict[str, NDArray[np.int64]] = {}
    for part, name in (("train", "TrainImagelist.txt"), ("test", "TestImagelist.txt")):
        part_paths = _read_paths(folder / name)
        strangers = [path for path in part_paths if path not in place]
        if strangers:
            raise InputError(f"{folder / name}: {strangers[0]!r} is not in Imagelist.txt", "copy both again")
        parts[part] = np.array([place[path] for path in part_paths], dtype=np.int64)
    return _ImageList(paths, parts)


def _read_paths(path: Path) -> list[str]:
    return [line.strip().replace("\\", "/") for line in _read_lines(path)]


def _read_concepts(
    source: Path, listed: _ImageList, config: NuswideConfig
) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
    """The chosen concepts, most frequent first, and their matrix [N, C]."""
    folder = source / "Groundtruth" if (source / "Groundtruth").is_dir() else source
    whole, parts = folder / "AllLabels", folder / "TrainTestLabels"
    names = list(dict.fromkeys(config.concepts)) or _find_concepts(whole, parts)
    columns: dict[str, NDArray[np.uint8]] = {}
    for name in track(names, description="reading concepts", total=len(names)):
        column = columns[name] = np.zeros(len(listed.paths), dtype=np.uint8)
        file = f"Labels_{name}"
        part_files = {part: parts / f"{file}_{part.capitalize()}.txt" for part in ("train", "test")}
        for path, places in listed.files(whole / f"{file}.txt", part_files).items():
            cells = [line.strip() for line in _read_lines(path)]
            _check_count(path, len(cells), places)
            strangers = set(cells) - {"0", "1"}
            if strangers:
                raise InputError(f"{path}: {min(strangers)!r}, expected 0 or 1 on each line", "copy it again")
            column[places] = [cell == "1" for cell in cells]
    if not config.concepts:
        counts = Counter({name: int(column.sum()) for name, column in columns.items()})
        names = sorted(names, key=lambda name: (-counts[name], name))[: config.num_concepts]
    return tuple(names), np.stack([columns[name] for name in names], axis=1)


def _find_concepts(whole: Path, parts: Path) -> list[str]:
    found = {file.stem.removeprefix("Labels_") for file in whole.glob("Labels_*.txt")}
    found |= {file.stem.removeprefix("Labels_").removesuffix("_Train") for file in parts.glob("Labels_*_Train.txt")}
    if not found:
        raise InputError(
            f"{whole} has no Labels_CONCEPT.txt, nor {parts} any Labels_CONCEPT_Train.txt, expected NUS-WIDE's ground "
            "truth",
            "correct dataset.source",
        )
    return sorted(found)


def _read_texts(folder: Path, listed: _ImageList, config: NuswideConfig, wanted: NDArray[np.bool_]) -> list[str]:
    """The text of each image; empty for those that are not wanted."""
    texts = [""] * len(listed.paths)
    if config.tags == "all":
        place_of = {Path(path).stem.rpartition("_")[2]: place for place, path in enumerate(listed.paths)}
        for line in track(_read_lines(folder / "All_Tags.txt"), description="reading tags", total=len(texts)):
            number, *tags = line.split()
            if number in place_of and wanted[place_of[number]]:
                texts[place_of[number]] = " ".join(dict.fromkeys(tags))
        return texts
    names = [line.split()[0] for line in _read_lines(folder / "TagList1k.txt")]
    parts = {part: folder / f"{part.capitalize()}_Tags1k.dat" for part in ("train", "test")}
    lines = listed.lines(folder / "AllTags1k.txt", parts)
    for place, line in track(lines, description="reading tags", total=len(texts)):
        cells = line.split()
        if len(cells) != len(names) or not set(cells) <= {"0", "1"}:
            raise InputError(
                f"the tags of {listed.paths[place]} in {folder} are {len(cells)} numbers, expected {len(names)} zeros "
                "and ones, as TagList1k.txt has lines",
                "copy both again",
            )
        if wanted[place]:
            texts[place] = " ".join(name for name, cell in zip(names, cells, strict=True) if cell == "1")
    return texts


def _read_features(
    source: Path, listed: _ImageList, features: Sequence[str], places: Sequence[int], ids: Sequence[str]
) -> PrecomputedVectors:
    """Low-level features of some images, side by side."""
    folder = next(
        (found for name in _FEATURE_FOLDERS if (found := source / name).is_dir()), source / _FEATURE_FOLDERS[0]
    )
    row_of = {place: row for row, place in enumerate(places)}
    blocks = []
    for feature in features:
        file = f"Normalized_{feature}.dat"
        parts = {part: folder / f"{part.capitalize()}_{file}" for part in ("train", "test")}
        lines = track(listed.lines(folder / file, parts), description=f"reading {feature}", total=len(listed.paths))
        blocks.append(_read_numbers(folder / file, lines, row_of))
    return precomputed_vectors(folder, [ids[place] for place in places], np.concatenate(blocks, axis=1))


def _read_numbers(path: Path, lines: Iterator[tuple[int, str]], row_of: dict[int, int]) -> NDArray[np.float32]:
    matrix: NDArray[np.float32] | None = None
    while block := list(islice(lines, BLOCK_LINES)):
        wanted = [(row_of[place], line) for place, line in block if place in row_of]
        if not wanted:
            continue
        try:
            numbers = np.loadtxt([line for _, line in wanted], dtype=np.float32, ndmin=2)
            if matrix is None:
                matrix = np.full((len(row_of), numbers.shape[1]), np.nan, dtype=np.float32)
            matrix[[row for row, _ in wanted]] = numbers
        except ValueError as error:
            raise InputError(f"{path} (or its parts): {error}", "expected numbers, as many on each line") from error
    return matrix if matrix is not None else np.zeros((0, 1), dtype=np.float32)


def _check_count(path: Path, number: int, places: NDArray[np.int64]) -> None:
    if number != len(places):
        raise InputError(
            f"{path} has {number} lines, expected {len(places)}, one for each image of the image list",
            "copy it again",
        )


def _read_lines(path: Path) -> Iterator[str]:
    """Lines that are not blank.

    Raises:
        InputError: the file is missing, or not a text.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist, expected NUS-WIDE's file of this name", "correct dataset.source")
    try:
        with path.open(encoding="utf-8-sig") as stream:
            yield from (line for line in stream if line.strip())
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text ({error.reason})", "copy it again") from error

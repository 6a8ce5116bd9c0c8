"""Layout `coco`: MS-COCO's instances and captions, and a folder, tar or zip of images for each part.

The labels of an image are the categories of all its instances, crowds included: a crowd of people shows people.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dagnn_core.config.dataset import CocoConfig
from dagnn_core.data.formats.archives import FileState, open_images
from dagnn_core.data.formats.json_stream import read_members
from dagnn_core.data.ingest.quarantine import quarantine
from dagnn_core.data.raw import RawData, RawItem
from dagnn_core.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _AnnotatedPart:
    """What the two annotation files of one part say."""

    name: str
    files: dict[int, str] = field(default_factory=dict)
    """Image -> its file, in the order of the file."""
    categories: dict[int, str] = field(default_factory=dict)
    categories_of: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    captions: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))


def open_coco(source: Path, config: CocoConfig, *, keep_incomplete: bool = False) -> RawData:
    """Read the annotations; images are only indexed.

    Args:
        source: the folder that all paths of `config` are relative to.
        config: parts, captions, images.
        keep_incomplete: whether an image without caption is an item that lacks its text and no fault.

    Raises:
        InputError: a file is missing or damaged, or an annotation is of an unknown image or category.
    """
    folder = source / config.annotations
    names = config.parts or _find_parts(folder)
    strangers = [name for name in config.test_parts if name not in names]
    if strangers:
        raise InputError(
            f"dataset.coco.test_parts names {strangers[0]!r}, which is not among the parts {', '.join(names)}"
        )
    images = {name: open_images(source / config.images.replace("{part}", name), source) for name in names}
    parts = [_read_part(folder, name) for name in names]

    def read(item: RawItem) -> bytes | None:
        part, _, file = item.image_path.partition("/")
        return images[part].read(file)

    def state(item: RawItem) -> FileState | None:
        part, _, file = item.image_path.partition("/")
        return images[part].state(file)

    found = (item for part in parts for item in _items(part, config))
    rows = (item._replace(row=row) for row, item in enumerate(found, start=1))
    items, rejections = quarantine(rows, keep_incomplete=keep_incomplete)
    return RawData(
        source=str(folder),
        num_rows=len(items) + len(rejections),
        items=items,
        rejections=rejections,
        image=read,
        image_state=state,
        label_order=tuple(dict.fromkeys(name for part in parts for _, name in sorted(part.categories.items()))),
        draws_val=bool(config.test_parts),
    )


def _items(part: _AnnotatedPart, config: CocoConfig) -> Iterator[RawItem]:
    """The rows of a part, not numbered yet."""
    split = "test" if part.name in config.test_parts else "train" if config.test_parts else ""
    for image, file in part.files.items():
        labels = tuple(part.categories[category] for category in sorted(part.categories_of.get(image, ())))
        texts = part.captions.get(image, [])
        one = RawItem(0, str(image), " ".join(texts), labels, f"{part.name}/{file}", split, has_text=bool(texts))
        if config.captions == "joined" or not texts:
            yield one
            continue
        for number, text in enumerate(texts):
            yield one._replace(id=f"{image}-{number}", text=text, group=str(image))


def _find_parts(folder: Path) -> Sequence[str]:
    found = {
        kind: {file.name.removeprefix(f"{kind}_").split(".json")[0] for file in folder.glob(f"{kind}_*.json*")}
        for kind in ("instances", "captions")
    }
    names = sorted(found["instances"] & found["captions"])
    if not names:
        raise InputError(
            f"{folder} has no part with both instances_PART.json and captions_PART.json, expected COCO's annotations "
            "there",
            "correct dataset.source or dataset.coco.annotations",
        )
    return names


class _Record(NamedTuple):
    """One object of an annotation file."""

    path: Path
    array: str
    number: int
    """Its place in the array, from 1."""
    value: Any

    def whole(self, key: str) -> int:
        """A whole number in it."""
        found = self._get(key)
        if not isinstance(found, int) or isinstance(found, bool):
            raise self.fault(f"{key!r} is {found!r}, expected a whole number")
        return found

    def text(self, key: str) -> str:
        """A text in it."""
        found = self._get(key)
        if not isinstance(found, str):
            raise self.fault(f"{key!r} is {found!r}, expected a text")
        return found.encode(errors="replace").decode()  # JSON can spell half a character, which no file can hold

    def fault(self, what: str) -> InputError:
        """What is wrong with it, and where it is."""
        return InputError(f"{self.path}, {self.array}, record {self.number}: {what}", "correct or copy the file")

    def _get(self, key: str) -> object:
        if not isinstance(self.value, dict) or key not in self.value:
            raise self.fault(f"no {key!r}")
        return self.value[key]


def _read_part(folder: Path, name: str) -> _AnnotatedPart:
    part = _AnnotatedPart(name)
    instances, captions = (_json_file(folder, f"{kind}_{name}.json") for kind in ("instances", "captions"))
    for record in _records(instances, ("images", "categories", "annotations")):
        if record.array == "annotations":
            part.categories_of[record.whole("image_id")].add(record.whole("category_id"))
        elif record.array == "images":
            _put(part.files, record, "file_name")
        else:
            _put(part.categories, record, "name")
    _check_known(instances, "image", part.categories_of, part.files)
    _check_known(instances, "category", set().union(*part.categories_of.values()), part.categories)
    for record in _records(captions, ("annotations",)):
        caption = " ".join(record.text("caption").split())
        if caption:
            part.captions[record.whole("image_id")].append(caption)
    strangers = part.captions.keys() - part.files.keys()
    if strangers and len(strangers) == len(part.captions):
        raise InputError(f"none of the images in {captions} is in {instances}, expected both to be of the same part")
    if strangers:
        log.warning("%d images of %s are not in %s and are ignored", len(strangers), captions, instances)
    return part


def _json_file(folder: Path, name: str) -> Path:
    packed = folder / f"{name}.gz"
    return packed if packed.is_file() else folder / name


def _records(path: Path, arrays: Sequence[str]) -> Iterator[_Record]:
    numbers = dict.fromkeys(arrays, 0)
    for array, value in read_members(path):
        if array in numbers:
            numbers[array] += 1
            yield _Record(path, array, numbers[array], value)
    missing = [array for array, number in numbers.items() if not number]
    if missing:
        raise InputError(f"{path} has no {missing[0]}, expected an annotation file of COCO")


def _put(names: dict[int, str], record: _Record, key: str) -> None:
    number = record.whole("id")
    if number in names:
        raise record.fault(f"the id {number} is there twice")
    names[number] = record.text(key)


def _check_known(path: Path, what: str, used: Iterable[int], known: Mapping[int, str]) -> None:
    strangers = set(used) - known.keys()
    if strangers:
        raise InputError(
            f"{path}: an annotation is of the {what} {min(strangers)}, which is not among the {len(known)} of the file",
            "correct or copy the file",
        )

"""Layout `coco`: MS-COCO's instances and captions, and a folder, tar or zip of images for each part.

The labels of an image are the categories of all its instances, crowds included: a crowd of people shows people.
"""

import logging
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from dagnn_core.config.dataset import CocoConfig
from dagnn_core.data.formats.archives import FileState, open_images
from dagnn_core.data.formats.json_stream import read_members
from dagnn_core.data.ingest.quarantine import quarantine
from dagnn_core.data.raw import RawData, RawItem
from dagnn_core.errors import InputError

log = logging.getLogger(__name__)

MAX_DIGITS = 18  # of an id that counts as a number

V = TypeVar("V")
Key = int | str
"""What images and categories are found by: a number, be it written as 7, 7.0, "7" or "0007", or another text."""


class _Image(NamedTuple):
    """One image of a part."""

    id: str
    """As the file writes it."""
    file: str


@dataclass(frozen=True, slots=True)
class _AnnotatedPart:
    """What the two annotation files of one part say."""

    name: str
    images: dict[Key, _Image] = field(default_factory=dict)
    """In the order of the file."""
    categories: dict[Key, str] = field(default_factory=dict)
    categories_of: dict[Key, set[Key]] = field(default_factory=lambda: defaultdict(set))
    captions: dict[Key, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def label_names(self) -> Sequence[str]:
        """Names of the categories in the order of their ids; a name of two categories comes twice."""
        return [self.categories[key] for key in _in_order(self.categories)]


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
    paths = {name: source / config.images.replace("{part}", name) for name in names}
    images = {name: open_images(path, source) for name, path in paths.items()}
    parts = [_read_part(folder, name) for name in names]
    of_part = _ids_restart(parts, paths)

    def read(item: RawItem) -> bytes | None:
        part, _, file = item.image_path.partition("/")
        return images[part].read(file)

    def state(item: RawItem) -> FileState | None:
        part, _, file = item.image_path.partition("/")
        return images[part].state(file)

    found = (item for part in parts for item in _items(part, config, f"{part.name}-" if of_part else ""))
    rows = (item._replace(row=row) for row, item in enumerate(found, start=1))
    items, rejections = quarantine(rows, keep_incomplete=keep_incomplete)
    return RawData(
        source=str(folder),
        num_rows=len(items) + len(rejections),
        items=items,
        rejections=rejections,
        image=read,
        image_state=state,
        label_order=tuple(dict.fromkeys(name for part in parts for name in part.label_names)),
        draws_val=bool(config.test_parts),
    )


def _ids_restart(parts: Sequence[_AnnotatedPart], paths: Mapping[str, Path]) -> bool:
    """Whether one id is that of different images in two parts, as where every part counts from 1."""
    files: dict[Key, tuple[Path, str]] = {}
    for part in parts:
        for key, image in part.images.items():
            file = (paths[part.name], image.file)
            if files.setdefault(key, file) != file:
                log.info("the image id %s is in several parts, so the ids of the items are PART-ID", image.id)
                return True
    return False


def _items(part: _AnnotatedPart, config: CocoConfig, prefix: str) -> Iterator[RawItem]:
    """The rows of a part, not numbered yet, with a prefix to the ids of their images."""
    split = "test" if part.name in config.test_parts else "train" if config.test_parts else ""
    for key, image in part.images.items():
        names = (part.categories[category] for category in _in_order(part.categories_of.get(key, ())))
        labels, texts, image_id = tuple(dict.fromkeys(names)), part.captions.get(key, []), f"{prefix}{image.id}"
        path = f"{part.name}/{image.file}"
        one = RawItem(0, image_id, " ".join(texts), labels, path, split, has_text=bool(texts))
        if config.captions == "joined" or not texts:
            yield one
            continue
        for number, text in enumerate(texts):
            yield one._replace(id=f"{image_id}-{number}", text=text, group=image_id)


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

    def key(self, key: str) -> Key:
        """An id in it: a whole number, also as a float or as a text, or another text."""
        found = self._get(key)
        if isinstance(found, float) and found.is_integer():
            return int(found)
        if isinstance(found, int) and not isinstance(found, bool):
            return found
        if not isinstance(found, str) or not found.strip():
            raise self.fault(f"{key!r} is {found!r}, expected a whole number or a text")
        text = self.text(key).strip()
        return int(text) if text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS else text

    def written_id(self) -> str:
        """The id as the file writes it, but for a float."""
        return self.text("id").strip() if isinstance(self._get("id"), str) else str(self.key("id"))

    def file(self) -> str:
        """The file of an image; LVIS has only the address of each image, which ends in it."""
        if self.value.get("file_name") is not None or "coco_url" not in self.value:
            return self.text("file_name").replace("\\", "/")
        return PurePosixPath(unquote(urlsplit(self.text("coco_url")).path)).name

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
            part.categories_of[record.key("image_id")].add(record.key("category_id"))
        elif record.array == "images":
            _put(part.images, record, _Image(record.written_id(), record.file()))
        else:
            _put(part.categories, record, unicodedata.normalize("NFC", " ".join(record.text("name").split())))
    _check_known(instances, "image", part.categories_of, part.images)
    _check_known(instances, "category", set().union(*part.categories_of.values()), part.categories)
    _report_same_names(instances, part.categories)
    for record in _records(captions, ("annotations",)):
        caption = " ".join(record.text("caption").split())
        if caption:
            part.captions[record.key("image_id")].append(caption)
    strangers = part.captions.keys() - part.images.keys()
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


def _put(values: dict[Key, V], record: _Record, value: V) -> None:
    key = record.key("id")
    if key in values:
        raise record.fault(f"the id {key} is there twice")
    values[key] = value


def _report_same_names(path: Path, categories: Mapping[Key, str]) -> None:
    keys_of: dict[str, list[str]] = defaultdict(list)
    for key in _in_order(categories):
        keys_of[categories[key]].append(str(key))
    for name, keys in keys_of.items():
        if len(keys) > 1:
            log.warning("%s: the categories %s have one name, %r, and become one label", path, " and ".join(keys), name)


def _in_order(keys: Iterable[Key]) -> list[Key]:
    """Numbers first, then other texts."""
    return sorted(keys, key=lambda key: (isinstance(key, str), key))


def _check_known(path: Path, what: str, used: Iterable[Key], known: Mapping[Key, object]) -> None:
    strangers = set(used) - known.keys()
    if strangers:
        raise InputError(
            f"{path}: an annotation is of the {what} {_in_order(strangers)[0]}, which is not among the {len(known)} of "
            "the file",
            "correct or copy the file",
        )

"""Layout `mirflickr25k`: MIRFLICKR-25k as LIACS distributes it: images, tags of each, and one list for each label."""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dagnn_core.config.dataset import Mirflickr25kConfig
from dagnn_core.data.formats.archives import open_images
from dagnn_core.data.ingest.quarantine import quarantine
from dagnn_core.data.raw import RawData, RawItem
from dagnn_core.errors import InputError
from dagnn_core.progress import track

log = logging.getLogger(__name__)


def open_mirflickr25k(source: Path, config: Mirflickr25kConfig, *, keep_incomplete: bool = False) -> RawData:
    """Read tags and annotations; images are only indexed.

    Images without a frequent tag or without a label are outside the benchmark, so they are no rows at all.

    Args:
        source: the folder that all paths of `config` are relative to.
        config: which annotations, which tags, the test split.
        keep_incomplete: whether an image without a frequent tag is an item that lacks its text.

    Raises:
        InputError: a file is missing or damaged, or an annotation is of an unknown image.
    """
    tags_of = _read_tags(_official_or(source / config.tags, source / "meta" / "tags"))
    counts = Counter(tag for tags in tags_of.values() for tag in tags)
    labels_of = _read_annotations(source / config.annotations_folder, config.annotations, tags_of)
    images = open_images(_official_or(source / config.images, source), source)
    frequent = {tag for tag, count in counts.items() if count >= config.min_tag_count}
    texts = {number: " ".join(tag for tag in tags if tag in frequent) for number, tags in tags_of.items()}
    numbers = [number for number in sorted(texts) if number in labels_of and (texts[number] or keep_incomplete)]
    log.info(
        "%d of %d images have a label and one of the %d tags of at least %d images",
        *(len(numbers), len(texts), len(frequent), config.min_tag_count),
    )

    def rows() -> Iterator[RawItem]:
        for row, number in enumerate(numbers, start=1):
            split = "" if not config.num_test else "test" if row <= config.num_test else "train"
            text, file = texts[number], f"im{number}.jpg"
            yield RawItem(row, f"im{number}", text, tuple(labels_of[number]), file, split, has_text=bool(text))

    items, rejections = quarantine(rows(), keep_incomplete=keep_incomplete)
    return RawData(
        source=str(source),
        num_rows=len(numbers),
        items=items,
        rejections=rejections,
        image=lambda item: images.read(item.image_path),
        image_state=lambda item: images.state(item.image_path),
        draws_val=config.num_test > 0,
    )


def _official_or(official: Path, other: Path) -> Path:
    """The official place, unless only the other one is there: the archive's top folder may itself be the source."""
    exists = any(official.with_name(official.name + suffix).exists() for suffix in ("", ".tar", ".zip"))
    return other if other.exists() and not exists else official


def _read_tags(folder: Path) -> dict[int, list[str]]:
    numbered = ((re.fullmatch(r"tags(\d+)", file.stem), file) for file in folder.glob("tags*.txt"))
    files = {int(match[1]): file for match, file in numbered if match}
    if not files:
        raise InputError(
            f"{folder} has no tags1.txt, tags2.txt ..., expected MIRFLICKR's tags there",
            "correct dataset.source or dataset.mirflickr25k.tags",
        )
    tracked = track(sorted(files.items()), description="reading tags", total=len(files))
    return {number: list(dict.fromkeys(_read_lines(file))) for number, file in tracked}


def _read_annotations(folder: Path, which: str, images: Mapping[int, object]) -> dict[int, list[str]]:
    """Labels of each image that has any, in alphabetical order."""
    names: dict[str, Path] = {}
    for file in sorted(folder.glob("*.txt")):
        kind = "relevant" if file.stem.endswith("_r1") else "potential"
        if file.stem != "README" and which in (kind, "both"):
            names[file.stem if which == "both" else file.stem.removesuffix("_r1")] = file
    if not names:
        raise InputError(
            f"{folder} has no {'' if which == 'both' else which + ' '}annotations (LABEL.txt, LABEL_r1.txt), expected "
            "those of MIRFLICKR",
            "correct dataset.source or dataset.mirflickr25k.annotations_folder",
        )
    labels_of: dict[int, list[str]] = {}
    for name, file in sorted(names.items()):
        for number in _read_numbers(file, images):
            labels_of.setdefault(number, []).append(name)
    return labels_of


def _read_numbers(file: Path, images: Mapping[int, object]) -> Sequence[int]:
    numbers: dict[int, None] = {}
    for line, text in enumerate(_read_lines(file), start=1):
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise InputError(f"{file}, entry {line}: {text!r}, expected the number of an image", "correct the file")
        if int(text) not in images:
            raise InputError(f"{file}, entry {line}: there is no tags{text}.txt, expected tags of every image")
        numbers[int(text)] = None
    return list(numbers)


def _read_lines(file: Path) -> list[str]:
    """Lines that are not blank."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not valid UTF-8 ({error.reason})", "copy it again") from error
    return [line.strip() for line in text.splitlines() if line.strip()]

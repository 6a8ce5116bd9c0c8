"""Layout `webdataset`: tar shards with the files of a sample beside each other, as img2dataset writes them.

A sample is the members that have one name up to its first dot: `000000012.jpg`, `000000012.txt`, `000000012.json`. What
a member does not say may be in a Parquet file beside the shard (`00000.parquet` for `00000.tar`), by its column `key`.
Shards are read in place and never unpacked.
"""

import json
import logging
import math
import posixpath
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dagnn_core.config.dataset import WebDatasetConfig
from dagnn_core.data.formats.archives import ImageArchive, ImageError
from dagnn_core.data.formats.cells import Cell
from dagnn_core.data.formats.table import read_table
from dagnn_core.data.images import SUFFIXES
from dagnn_core.data.ingest.quarantine import quarantine
from dagnn_core.data.labels import read_label_names, split_labels
from dagnn_core.data.layouts.split_names import splits_by_name
from dagnn_core.data.raw import RawData, RawItem
from dagnn_core.errors import InputError
from dagnn_core.progress import track
from dagnn_core.text import name_first

log = logging.getLogger(__name__)

IMAGES = frozenset(suffix.removeprefix(".") for suffix in SUFFIXES)
"""Extensions of images; of several in one sample the first counts."""
TEXTS = ("txt", "caption", "text")
"""Where the text of a sample is, unless `text_field` says so."""
MAX_NOTE_BYTES = 10 << 20  # of a .txt or .json member

_DOWNLOADED = "success"  # status of a row in img2dataset's Parquet file
_UNKNOWN = frozenset({"-1", ""})  # what class numbers are where no class is known
_ZERO, _ONE = frozenset({"0", "0.0", "false"}), frozenset({"1", "1.0", "true"})


class _Sample(NamedTuple):
    """What a shard and the Parquet file beside it say of one sample."""

    key: str
    image: str
    """Member with the image; of a sample that has none, the one that is missing."""
    text: str
    labels: Cell


class _Shard(NamedTuple):
    """One tar file, read but for its images."""

    path: Path
    name: str
    """Relative to the source."""
    split: str
    """Empty where splits are drawn."""
    archive: ImageArchive
    samples: Sequence[_Sample]


def open_webdataset(source: Path, config: WebDatasetConfig, *, keep_incomplete: bool = False) -> RawData:
    """Read all members but the images, which are read in place when asked for.

    Args:
        source: the folder that `config.shards` is relative to.
        config: shards, and where texts and labels are.
        keep_incomplete: whether a sample without text is an item that lacks it and no fault.

    Raises:
        InputError: there is no shard, one is damaged or names no split though others do, or a label has no name.
    """
    names = read_label_names(source / config.label_names) if config.label_names else ()
    splits = _find_shards(source, config.shards)
    tracked = track(splits.items(), description="reading shards", total=len(splits))
    shards = [_read_shard(path, str(path.relative_to(source)), split, config) for path, split in tracked]
    starts = [0, *accumulate(len(shard.samples) for shard in shards)]
    has_prefix = _keys_restart(shards)
    labels_of = _label_reader([sample.labels for shard in shards for sample in shard.samples], config, names, source)

    def shard_of(row: int) -> _Shard:
        return shards[bisect_right(starts, row - 1) - 1]

    def place(row: int) -> str:
        return f"{shard_of(row).name}, sample {row - starts[bisect_right(starts, row - 1) - 1]}"

    def rows() -> Iterator[RawItem]:
        for shard, start in zip(shards, starts, strict=False):
            prefix = f"{shard.name.removesuffix('.tar').replace('/', '-')}-" if has_prefix else ""
            for row, sample in enumerate(shard.samples, start=start + 1):
                item_id, path = f"{prefix}{sample.key}", f"{shard.name}/{sample.image}"
                labels = labels_of(sample.labels)
                yield RawItem(row, item_id, sample.text, labels, path, shard.split, has_text=bool(sample.text))

    def read(item: RawItem) -> bytes | None:
        shard = shard_of(item.row)
        return shard.archive.read(item.image_path.removeprefix(f"{shard.name}/"))

    items, rejections = quarantine(rows(), keep_incomplete=keep_incomplete)
    return RawData(
        source=str(source),
        num_rows=starts[-1],
        items=items,
        rejections=rejections,
        image=read,
        image_state=lambda item: shard_of(item.row).archive.state(item.image_path),
        label_order=names,
        draws_val="test" in splits.values() and "val" not in splits.values(),
        place=place,
    )


def _find_shards(source: Path, pattern: str) -> dict[Path, str]:
    """Shard -> split, empty where splits are drawn."""
    if Path(pattern).is_absolute():
        raise InputError(f"dataset.webdataset.shards is {pattern!r}, expected a pattern relative to dataset.source")
    paths = [path for path in sorted(source.glob(pattern)) if path.is_file() and not path.name.startswith(".")]
    if not paths:
        raise InputError(
            f"{source} has no {pattern}, expected uncompressed tar files as img2dataset writes them (output_format "
            "webdataset)",
            "correct dataset.source or dataset.webdataset.shards; decompress a .tar.gz",
        )
    return splits_by_name(source, paths, may_differ=True)


def _read_shard(path: Path, name: str, split: str, config: WebDatasetConfig) -> _Shard:
    archive = ImageArchive(path)
    members_of: dict[str, dict[str, str]] = defaultdict(dict)
    for member in archive.names:
        folder, base = posixpath.split(member)
        stem, _, extension = base.partition(".")
        if stem and extension:
            members_of[posixpath.join(folder, stem)].setdefault(extension.lower(), member)
    texts = (config.text_field,) if config.text_field else TEXTS
    columns = _read_columns(path.with_suffix(".parquet"), (*texts, config.label_field, "status"))
    statuses = columns.pop("status", {})
    faults: list[str] = []
    missing = {key for column in (statuses, *columns.values()) for key in column} - members_of.keys()
    failed = Counter(str(statuses[key]) for key in missing if statuses.get(key, _DOWNLOADED) != _DOWNLOADED)
    lost = sorted(key for key in missing if statuses.get(key, _DOWNLOADED) == _DOWNLOADED)
    samples = []
    for key, members in chain(members_of.items(), ((key, {}) for key in lost)):
        fields = _Fields(archive, key, members, columns, faults)
        image = next((members[extension] for extension in members if extension in IMAGES), f"{key}.jpg")
        text = next(filter(None, map(fields.text, texts)), "")
        samples.append(_Sample(key, image, text, fields.cell(config.label_field)))
    if failed:
        listed = ", ".join(f"{count} {status}" for status, count in failed.most_common())
        log.info("%s: rows of the Parquet file that were not downloaded are left out: %s", path, listed)
    if faults:
        log.warning("%s: %d .txt or .json members cannot be read: %s", path, len(faults), name_first(faults))
    archive.keep([sample.image for sample in samples])
    return _Shard(path, name, split, archive, samples)


class _Fields:
    """What is known of one sample, by name: of a member with this extension, else in its .json, else in the Parquet."""

    def __init__(
        self,
        archive: ImageArchive,
        key: str,
        members: Mapping[str, str],
        columns: Mapping[str, Mapping[str, Cell]],
        faults: list[str],
    ) -> None:
        self._archive = archive
        self._key = key
        self._members = members
        self._columns = columns
        self._faults = faults
        self._note: dict[str, Any] | None = None

    def cell(self, name: str) -> Cell:
        """A text or list of texts; empty where nothing is known."""
        if name in self._members and name not in IMAGES:
            return self._read(self._members[name]).strip()
        known = _cell(self._json().get(name)) if "json" in self._members else ""
        return known or self._columns.get(name, {}).get(self._key, "")

    def text(self, name: str) -> str:
        """A text; a list is joined."""
        cell = self.cell(name)
        return " ".join((cell if isinstance(cell, str) else " ".join(cell)).split())

    def _json(self) -> dict[str, Any]:
        if self._note is None:
            member = self._members["json"]
            try:
                note = json.loads(self._read(member) or "{}")
            except (ValueError, RecursionError):
                self._faults.append(member)
                note = {}
            self._note = note if isinstance(note, dict) else {}
        return self._note

    def _read(self, member: str) -> str:
        try:
            content = self._archive.read(member) or b""
            if len(content) <= MAX_NOTE_BYTES:
                return content.decode("utf-8-sig")
        except (ImageError, UnicodeDecodeError):
            pass
        self._faults.append(member)
        return ""


def _cell(value: Any) -> Cell:
    if isinstance(value, list):
        return tuple(entry for entry in map(_cell, value) if isinstance(entry, str) and entry)
    if value is None or isinstance(value, dict) or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).encode(errors="replace").decode()  # JSON can spell half a character, which no file can hold


def _read_columns(path: Path, wanted: Sequence[str]) -> dict[str, dict[str, Cell]]:
    """Column -> key -> cell, of the columns wanted that a Parquet file has; nothing where there is no file."""
    if not path.is_file():
        return {}
    try:
        present = set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a valid Parquet file ({error})", "copy it again") from error
    if "key" not in present:
        log.warning("%s has no column 'key', so it is left out", path)
        return {}
    chosen = {name: name for name in dict.fromkeys(wanted) if name in present and name != "key"}
    table = read_table(path, {"key": "key"} | chosen)
    keys = table.texts("key")
    return {name: dict(zip(keys, table.columns[name], strict=True)) for name in chosen}


def _keys_restart(shards: Sequence[_Shard]) -> bool:
    """Whether a key is that of samples in two shards."""
    seen: set[str] = set()
    for shard in shards:
        keys = {sample.key for sample in shard.samples}
        again = seen & keys
        if again:
            log.info("the key %s is in several shards, so the ids of the items are SHARD-KEY", min(again))
            return True
        seen |= keys
    return False


def _label_reader(
    cells: Sequence[Cell], config: WebDatasetConfig, names: Sequence[str], source: Path
) -> Callable[[Cell], tuple[str, ...]]:
    """How a cell becomes labels: by names, by class numbers, or by a 0 or 1 for each label."""
    lists = [cell for cell in cells if isinstance(cell, tuple) and cell]
    are_bits = bool(lists) and all(entry.lower() in _ZERO | _ONE for cell in lists for entry in cell)
    if are_bits and any(len(set(cell)) < len(cell) for cell in lists):
        sizes = {len(cell) for cell in lists}
        if sizes != {len(names)}:
            raise InputError(
                f"{source}: {config.label_field!r} holds lists of {min(sizes)} to {max(sizes)} zeros and ones, "
                f"expected one for each of the {len(names)} label names",
                "name the labels in their order in dataset.webdataset.label_names",
            )
        return lambda cell: tuple(name for name, bit in zip(names, cell, strict=False) if bit.lower() in _ONE)

    def texts(cell: Cell) -> tuple[str, ...]:
        return split_labels([cell], config.label_separator, frozenset())

    found = {label for cell in cells for label in texts(cell)} - _UNKNOWN
    if not names or found & set(names) or not all(label.isdecimal() for label in found):
        return lambda cell: split_labels([cell], config.label_separator, frozenset(names))
    wrong = next((label for label in sorted(found) if int(label) >= len(names)), "")
    if wrong:
        raise InputError(
            f"{source}: the label {wrong} in {config.label_field!r}, expected a number below {len(names)}, since there "
            "are so many names"
        )
    return lambda cell: tuple(names[int(label)] for label in texts(cell) if label not in _UNKNOWN)

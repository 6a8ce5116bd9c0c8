"""Files of a Hugging Face data set, and their splits by name, as the library `datasets` knows them.

`datasets` looks for a keyword between separators, in the names of folders first and then in those of files; case
matters to it and not to us. Its own splits of other names (`unsupervised`) have no place here: they are refused.
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

from dagnn_core.data.formats.column_file import PARQUET
from dagnn_core.errors import InputError

log = logging.getLogger(__name__)

WRITE_PARQUET = "write each split by the library datasets: split.to_parquet('train.parquet')"

_KEYWORDS = {
    "train": ("train", "training"),
    "val": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {keyword: split for split, keywords in _KEYWORDS.items() for keyword in keywords}
_SEPARATORS = r"\-._ 0-9"
_KEYWORD = re.compile(rf"(?<![^{_SEPARATORS}])(?:{'|'.join(_SPLIT_OF)})(?![^{_SEPARATORS}])", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# what tells the parts of one split from each other: numbers, digests, and what Spark and Hive add
_PART = re.compile(r"[0-9]*|of|[0-9a-f]{7,}|c[0-9]+|snappy|zstd|gz", re.IGNORECASE)
_KNOWN = "train, validation or test (or training, valid, val, dev, testing, eval, evaluation)"


def find_files(source: Path) -> dict[Path, str]:
    """Parquet files below a folder, or else the Arrow files of `save_to_disk`, with the split of each.

    Returns:
        File -> train, val or test; empty everywhere where splits are to be drawn, which is said.

    Raises:
        InputError: there is no file, one names no split or an unknown one though others name another, or one that lacks
            is listed.
    """
    found = [path for path in sorted(source.rglob("*")) if path.is_file() and not _is_hidden(path.relative_to(source))]
    files = [path for path in found if path.suffix.lower() in PARQUET] or list(_arrow_files(source, found))
    if not files:
        raise InputError(
            f"{source} has no .parquet file, expected the folder of a Hugging Face data set (Parquet, or Arrow as "
            "save_to_disk writes it)",
            f"{WRITE_PARQUET}; for CSV or JSON Lines beside images use the layout folder",
        )
    # what all have in common tells no split from another
    common = Path(os.path.commonpath([path.parent for path in files]))
    splits = {path: _split_of(path, path.relative_to(common)) for path in files}
    names = set(splits.values())
    if len(names) == 1:
        unknown = {_unknown_name(path.relative_to(common)): path for path in reversed(files)} if names == {""} else {}
        if len(unknown) > 1:
            listed = ", ".join(str(path.relative_to(source)) for path in sorted(unknown.values())[:3])
            raise InputError(
                f"{source}: the files {listed} have different names, but none names a split that is known",
                f"rename them or their folders to {_KNOWN}; for one split give them one name with numbers",
            )
        what = f"all files are of one split ({names.pop()})" if "" not in names else "no file names a split"
        log.info("%s: %s, so train, val and test are drawn by val_fraction and test_fraction", source, what)
        return dict.fromkeys(files, "")
    if "" in names:
        unnamed = next(path for path, split in splits.items() if not split)
        raise InputError(
            f"{unnamed} names no split that is known, though other files do",
            f"rename it or its folder to {_KNOWN}, or move it out of the data set",
        )
    lacking = next((split for split in ("train", "test") if split not in names), "")
    if lacking:
        raise InputError(
            f"{source} has {' and '.join(sorted(names))} but no {lacking}, expected files of train and test, and "
            "perhaps of validation",
            f"rename the files of another split to {lacking}; validation is drawn from train where it is missing",
        )
    return splits


def schema_names(feature: Any) -> tuple[str, ...]:
    """Names of numbered labels in what `datasets` notes of a column; empty where there are none."""
    try:
        while isinstance(feature, dict | list) and "names" not in feature:
            feature = feature["feature"] if isinstance(feature, dict) else feature[0]
        names = feature["names"]
        return tuple(map(str, names)) if isinstance(names, list) else ()
    except (TypeError, KeyError, IndexError):
        return ()


def read_note(path: Path) -> Any:
    """A JSON file that `save_to_disk` leaves beside the data; None where there is none.

    Raises:
        InputError: it is damaged.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON", f"copy it again, or {WRITE_PARQUET}") from error


def _is_hidden(path: PurePath) -> bool:
    return any(part.startswith((".", "__")) for part in path.parts)


def _arrow_files(source: Path, found: Sequence[Path]) -> Iterator[Path]:
    """The Arrow files that `save_to_disk` lists, or else all but cached results."""
    listed = read_note(source / "dataset_dict.json")
    for split in _entries(listed, "splits"):
        if not (source / str(split)).is_dir():
            raise InputError(
                f"{source} has no folder {str(split)!r}, though dataset_dict.json lists it", "copy the data set again"
            )
    folders = dict.fromkeys(path.parent for path in found if path.suffix.lower() == ".arrow")
    for folder in folders:
        state = read_note(folder / "state.json")
        if _entries(state, "_indices_files") or _entries(state, "_indices_data_files"):
            raise InputError(f"{folder}: its rows are chosen by indices, which are not read", WRITE_PARQUET)
        names = [entry.get("filename") for entry in _entries(state, "_data_files") if isinstance(entry, dict)]
        chosen = [folder / str(name) for name in names] or [
            path for path in found if path.parent == folder and _is_result(path)
        ]
        for path in chosen:
            if not path.is_file() or path.parent != folder:
                raise InputError(f"{path} does not exist, though state.json lists it", "copy the data set again")
        yield from chosen


def _is_result(path: Path) -> bool:
    """Whether a file holds data and not what the library `datasets` keeps of a computation."""
    return path.suffix.lower() == ".arrow" and not path.name.startswith("cache-")


def _entries(note: Any, key: str) -> list[Any]:
    value = note.get(key) if isinstance(note, dict) else None
    return value if isinstance(value, list) else []


def _split_of(path: Path, relative: PurePath) -> str:
    """train, val or test; empty where no name says it."""
    named = {split: name for name in relative.parts for split in _splits_in(name)}
    if len(named) > 1:
        (one, of_one), (other, of_other) = sorted(named.items())[:2]
        raise InputError(
            f"{path} names several splits: {one} ({of_one}) and {other} ({of_other})", "rename the file or its folder"
        )
    return next(iter(named), "")


def _splits_in(name: str) -> set[str]:
    return {_SPLIT_OF[keyword.lower()] for keyword in _KEYWORD.findall(name)}


def _unknown_name(relative: PurePath) -> str:
    """A name without what tells the parts of one split from each other."""
    words = re.split(r"[-._ =]+", _UUID.sub("", str(relative.with_suffix("")).replace("/", " ")))
    names = (word.rstrip("0123456789") for word in words if not _PART.fullmatch(word))
    return " ".join(name for name in names if not _PART.fullmatch(name))

"""Files of a Hugging Face data set: Parquet, or Arrow as `save_to_disk` writes it."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

from dagnn_core.data.formats.column_file import PARQUET
from dagnn_core.data.layouts.split_names import splits_by_name
from dagnn_core.errors import InputError

log = logging.getLogger(__name__)

WRITE_PARQUET = "write each split by the library datasets: split.to_parquet('train.parquet')"


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
    return splits_by_name(source, files)


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

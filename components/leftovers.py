"""What interrupted commands have left in a project: found, and removed unless a process is at work on it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from components.locations import ADDING, ARTIFACTS, CACHE, FETCHED, RETRAINING, RUNS, WORK
from dagnn_core.disk import folder_bytes
from dagnn_core.drafts import find_drafts, remove_draft
from dagnn_core.errors import BackendError
from dagnn_core.locks import hold_lock, try_lock_folder
from dagnn_core.work import lock_of

DRAFT = "draft of an artifact"
UNFINISHED = "unfinished work, from which the same command resumes"
CACHED = "cache, which the next run fills again"
# in a folder of ADDING: the data that was there, perhaps its only copy, and the change that `dagnn data add` undoes
_NEEDED = ("old", "change.json")


class Leftover(NamedTuple):
    """A folder that may be removed."""

    path: Path
    what: str
    """DRAFT, UNFINISHED or CACHED."""
    size: int
    """Bytes."""


def find_leftovers(root: Path, *, cache: bool = False) -> list[Leftover]:
    """What may be removed in a project, whether or not a process is at work on it.

    Args:
        root: the project.
        cache: the caches too.
    """
    return [Leftover(path, what, folder_bytes(path)) for path, what in _find(root, cache=cache)]


def remove(leftover: Leftover) -> bool:
    """Remove a leftover.

    Returns:
        False where a process is at work on it, or its file system has no locks and cannot say so.
    """
    if leftover.what == DRAFT:
        return remove_draft(leftover.path)
    if leftover.what == CACHED:
        return _remove_unused(leftover.path)
    lock = lock_of(leftover.path)
    try:
        with hold_lock(lock, busy="", remedy="", elsewhere=""):
            shutil.rmtree(leftover.path, ignore_errors=True)
            lock.unlink()
    except BackendError:
        return False
    return True


def _remove_unused(cache: Path) -> bool:
    try:
        descriptor = os.open(cache, os.O_RDONLY)
    except FileNotFoundError:  # another process has removed it
        return True
    try:
        unused = try_lock_folder(descriptor)
        if unused:
            shutil.rmtree(cache)
    finally:
        os.close(descriptor)
    return unused


def _find(root: Path, *, cache: bool) -> Iterator[tuple[Path, str]]:
    for folder in (root / ARTIFACTS, *sorted(path for path in (root / RUNS).rglob("*") if path.is_dir())):
        yield from ((draft, DRAFT) for draft in find_drafts(folder))
    for folder in (root / WORK, root / ADDING, root / RETRAINING):
        names = {path.with_suffix("") if path.suffix == ".lock" else path for path in folder.glob("*")}
        yield from ((path, UNFINISHED) for path in sorted(names) if not any((path / name).exists() for name in _NEEDED))
    if cache:
        yield from ((folder, CACHED) for folder in (root / CACHE, root / FETCHED) if folder.exists())

"""Folders that appear whole: written under a hidden name beside their place, then moved there in one call.

A draft is `.<name>.<random>.tmp` under `flock`, which the kernel frees when its writer ends, even killed. So one that
nobody holds is a leftover, and the next writer of the same folder sweeps it away.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagnn_core.disk import DiskError, disk_failure, exchange
from dagnn_core.locks import try_lock_folder


@contextmanager
def draft_of(out: Path) -> Iterator[Path]:
    """Yield a new folder that takes the place of `out` when the body ends; when it raises, `out` stays as it is.

    Leftovers of writers of `out` that were killed are removed first.

    Args:
        out: the folder, which need not exist; the one that it lies in does.

    Raises:
        DiskError: the disk refuses a file, which is named by where it would have gone.
    """
    try:
        with _open_draft(out) as draft:
            yield draft
            _move_into_place(draft, out)
    except Exception as error:
        failure = error if isinstance(error, DiskError) else disk_failure(error, out)
        if not isinstance(failure, DiskError):
            raise
        raise DiskError(_final_path(failure.path, out), failure.number, need=failure.need) from error


def find_drafts(folder: Path, name: str = "") -> list[Path]:
    """Drafts in a folder, of one name or of all, whether or not somebody still writes them."""
    form = _form(re.escape(name) if name else ".+")
    return sorted(path for path in folder.glob(".*") if form.fullmatch(path.name) and path.is_dir())


def remove_draft(draft: Path) -> bool:
    """Remove a draft, or put back what a killed writer had set aside in it.

    Returns:
        False where its writer is at work, or the file system has no locks and cannot say so.
    """
    try:
        descriptor = os.open(draft, os.O_RDONLY)
    except FileNotFoundError:  # its writer has just ended
        return True
    try:
        if not try_lock_folder(descriptor):
            return False
        if draft.suffix == ".old":
            _put_back(draft)
        shutil.rmtree(draft, ignore_errors=True)
    finally:
        os.close(descriptor)
    return True


@contextmanager
def _open_draft(out: Path) -> Iterator[Path]:
    for leftover in find_drafts(out.parent, out.name):
        remove_draft(leftover)
    draft, descriptor = _make_draft(out)
    try:
        draft.chmod(0o755)
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # nothing, or what stood at `out` before
        os.close(descriptor)


def _make_draft(out: Path) -> tuple[Path, int]:
    """Make an empty draft; returns it, and the descriptor that holds its lock."""
    while True:
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
        descriptor = os.open(draft, os.O_RDONLY)
        try_lock_folder(descriptor)
        try:
            if os.path.samestat(draft.stat(), os.fstat(descriptor)):
                return draft, descriptor
        except FileNotFoundError:  # swept away before it was locked
            pass
        os.close(descriptor)


def _move_into_place(draft: Path, out: Path) -> None:
    if not out.exists():
        draft.rename(out)
        return
    if exchange(draft, out):
        return
    # without such a call of the system `out` is absent for a moment: set it aside, and back if the second rename fails
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".old", dir=out.parent))
    aside = folder / out.name
    try:
        out.rename(aside)
        draft.rename(out)
    except BaseException:
        _put_back(folder)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _final_path(path: Path, out: Path) -> Path:
    """Where a file of a draft of `out` would have gone; any other file is where it is."""
    if not path.is_relative_to(out.parent):
        return path
    first, *rest = path.relative_to(out.parent).parts
    return out.joinpath(*rest) if _form(re.escape(out.name)).fullmatch(first) else path


def _form(name: str) -> re.Pattern[str]:
    """What the drafts of a name (a pattern) are called."""
    return re.compile(rf"\.{name}\.[a-z0-9_]+\.(tmp|old)")


def _put_back(folder: Path) -> None:
    """Move what lies aside in a folder to its place, unless something is there by now."""
    for aside in folder.iterdir():
        if not (folder.parent / aside.name).exists():
            aside.rename(folder.parent / aside.name)

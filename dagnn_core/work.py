"""Folders of unfinished work: what an interrupted step leaves there, the next one resumes from."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dagnn_core.errors import InputError
from dagnn_core.locks import hold_lock

_ELSEWHERE = "name another folder with --work"


@contextmanager
def work_folder(folder: Path, *, busy: str) -> Iterator[Path]:
    """Make a folder of unfinished work and hold it for this process alone; it goes when the body ends without error.

    Args:
        folder: the folder.
        busy: what another process does while it holds the folder, for the message.

    Raises:
        InputError: it cannot be a folder.
        BackendError: another process holds it, or its file system has no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder} cannot be a folder: it or what it lies in is a file", _ELSEWHERE) from error
    with _locked(lock_of(folder), busy):  # beside the folder, so that no file in it is open when it is removed
        folder.mkdir(exist_ok=True)  # its last holder may just have removed it
        try:
            yield folder
            shutil.rmtree(folder)
        finally:
            with suppress(OSError):
                folder.rmdir()  # where nothing was done yet


def lock_of(folder: Path) -> Path:
    """The lock file of a folder of unfinished work."""
    return folder.with_name(f"{folder.name}.lock")


@contextmanager
def _locked(path: Path, busy: str) -> Iterator[None]:
    with hold_lock(path, busy=busy, remedy=f"wait for it, or {_ELSEWHERE}", elsewhere=_ELSEWHERE):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

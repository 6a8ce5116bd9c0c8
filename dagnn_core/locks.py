"""Locks between processes: files under `flock`, which the kernel frees when their holder ends, even killed.

Nobody waits for a lock file whose holder may work for hours. `filelock` would fall back to a file that outlives a
killed holder where a file system has no locks; here that is an error.
"""

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout, lock_descriptor

from dagnn_core.disk import writing
from dagnn_core.errors import BackendError

ENDING_SECONDS = 0.2  # a holder that is just removing its lock file is no conflict


class BusyError(BackendError):
    """Another process holds a lock. Exit status 3."""


@contextmanager
def hold_lock(path: Path, *, busy: str, remedy: str, elsewhere: str, seconds: float | None = None) -> Iterator[None]:
    """Hold a lock file, which names its holder, for this process alone; the file stays.

    A holder may remove the file while it holds the lock: who opened it before then locks a new one.

    Args:
        path: the lock file; its folder exists.
        busy: what another process does while it holds the lock, for the message.
        remedy: what the user can do while another process holds it.
        elsewhere: what the user can do where the file system has no locks.
        seconds: to wait for a holder whose work is short; None: only for one that is just ending.

    Raises:
        BusyError: another process holds it.
        BackendError: the file system has no locks.
    """
    timeout = ENDING_SECONDS if seconds is None else seconds
    try:
        held = FileLock(path, timeout=timeout, fallback_to_soft=False).acquire()
    except Timeout as error:
        raise BusyError(f"{path}: {busy} ({_holder(path)}), expected one at a time", remedy) from error
    except OSError as error:
        if error.filename is not None:  # the file cannot be opened, and the error says so
            raise
        raise _unlockable(path, error, elsewhere) from error
    with held:
        path.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        yield


def try_lock(stream: BinaryIO, path: Path, *, elsewhere: str) -> bool:
    """Take an open file for this process alone until it is closed.

    By hand stays the check that `path` still names the file: data that is moved away while it is locked is no longer
    what was opened.

    Args:
        stream: the open file.
        path: where it was opened.
        elsewhere: what the user can do where the file system has no locks.

    Returns:
        False where another process has it, or has just moved it away.

    Raises:
        BackendError: the file system has no locks.
    """
    try:
        if not lock_descriptor(stream.fileno(), blocking=False):
            return False
    except OSError as error:
        raise _unlockable(path, error, elsewhere) from error
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def lock_folder(descriptor: int) -> None:
    """Wait for an open folder, and take it until it is closed, where its file system has locks for folders."""
    with suppress(OSError):
        lock_descriptor(descriptor, blocking=True)


def try_lock_folder(descriptor: int) -> bool:
    """Take an open folder for this process alone until it is closed.

    Returns:
        False where another process has it, or the file system has no locks for folders, as NFS.
    """
    try:
        return bool(lock_descriptor(descriptor, blocking=False))
    except OSError:
        return False


@contextmanager
def folder_in_use(folder: Path) -> Iterator[None]:
    """Make a folder where it is missing, and keep `try_lock_folder` from taking it until the body ends.

    Any number of processes may use it at once. A process that removes it first is waited for. It goes where the last
    user leaves it empty.

    Raises:
        DiskError: the disk refuses the folder.
    """
    descriptor = _open_shared(folder)
    try:
        yield
    finally:
        with suppress(OSError):  # it is not empty, or has gone
            if try_lock_folder(descriptor):
                folder.rmdir()
        os.close(descriptor)


def _open_shared(folder: Path) -> int:
    while True:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # removed since
            continue
        with suppress(OSError):  # its file system has no locks for folders
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.path.samestat(folder.stat(), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") or "which has just begun"
    except FileNotFoundError:
        return "which has just ended"


def _unlockable(path: Path, error: OSError, elsewhere: str) -> BackendError:
    return BackendError(f"{path} cannot be locked ({error.strerror})", elsewhere)

"""The disk: which file it refuses and why, whether what is to come fits, and two folders that change places at once."""

import ctypes
import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dagnn_core.errors import BackendError, DagnnError

_REFUSALS = {
    errno.ENOSPC: ("no space is left", "free some and run again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run again"),
    errno.EFBIG: ("the file would be larger than the system allows (ulimit -f)", "raise the limit and run again"),
    errno.EIO: ("the disk failed (input/output error)", "check the disk and the system's log, and run again"),
    errno.EACCES: ("permission denied", "choose another folder or change its permissions"),
    errno.EPERM: ("not permitted", "choose another folder or change its permissions"),
    errno.EROFS: ("the file system is read-only", "choose another folder"),
    errno.EMFILE: ("too many files are open in this process (ulimit -n)", "raise the limit and run again"),
    errno.ENFILE: ("too many files are open in the whole system", "end other programs and run again"),
}
_NUMBER = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")  # how safetensors and shutil.copytree give the reason
_NO_TEMPORARY_FOLDER = "No usable temporary directory found"  # tempfile's words
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
_CURRENT_FOLDER = -100  # AT_FDCWD


class DiskError(BackendError):
    """The disk refuses a file.

    Args:
        path: the file, or the folder that it belongs to.
        number: why, a key of the refusals (`errno`).
        need: bytes that were to be written, where they are known.
    """

    def __init__(self, path: Path | str, number: int, *, need: int = 0) -> None:
        reason, remedy = _REFUSALS[number]
        if need and number == errno.ENOSPC:
            reason += f" on its disk: {megabytes(need)} are needed, {megabytes(free_bytes(Path(path)))} are free"
        super().__init__(f"{path}: {reason}", remedy)
        self.path = Path(path)
        self.number = number
        self.need = need


def disk_failure(error: BaseException, path: Path | None = None, *, need: int = 0) -> DiskError | BackendError | None:
    """What a refusal of the disk means to the user; None where an error is something else.

    Args:
        error: what a write raised; some libraries say why in words alone.
        path: what was written, where `error` does not say it.
        need: bytes that were to be written, where they are known.
    """
    if isinstance(error, DagnnError):
        return None
    if isinstance(error, OSError) and _NO_TEMPORARY_FOLDER in str(error):
        return BackendError(
            "no folder for temporary files can be written", "set TMPDIR to a folder on a disk that has space"
        )
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := _NUMBER.search(str(error))):
        number = int(found[1] or found[2])
    if number not in _REFUSALS:
        return None
    # of a copy, the second name is the one that was written
    named = (error.filename2 or error.filename) if isinstance(error, OSError) else None
    if isinstance(named, str | bytes | os.PathLike):
        met = Path(os.fsdecode(named))
        beside = path is not None and met.parent == path.parent  # what `path` is written as at first
        return DiskError(path if path and beside else met, number, need=need)
    return DiskError(path or "a file of this command", number, need=need)


@contextmanager
def writing(path: Path, *, need: int = 0) -> Iterator[None]:
    """Make a refusal of the disk in the body one line that names the file, which the error itself may not do.

    Args:
        path: what the body writes.
        need: its bytes, where they are known.

    Raises:
        DiskError: the disk refuses it.
    """
    try:
        yield
    except Exception as error:
        failure = disk_failure(error, path, need=need)
        if failure is None:
            raise
        raise failure from error


def require_space(needs: Mapping[Path, int]) -> None:
    """Check that files which are still to be written fit, those on one disk together.

    Args:
        needs: file or folder -> bytes.

    Raises:
        BackendError: they do not.
    """
    disks: dict[int, dict[Path, int]] = {}
    for path, need in needs.items():
        disks.setdefault(_existing(path).stat().st_dev, {})[path] = need
    for files in disks.values():
        first, need = next(iter(files)), sum(files.values())
        if need > (free := free_bytes(first)):
            listed = " and ".join(f"{path} ({megabytes(size)})" for path, size in files.items())
            raise BackendError(
                f"{listed}: {megabytes(need)} are needed on this disk, {megabytes(free)} are free",
                "free some space, or choose folders on another disk",
            )


def free_bytes(path: Path) -> int:
    """Bytes that the disk of a file or folder, which need not exist, has for this user."""
    return shutil.disk_usage(_existing(path)).free


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def megabytes(size: int) -> str:
    """A size in bytes, for people."""
    return f"{size / 1e6:.1f} MB"


def exchange(one: Path, other: Path) -> bool:
    """Let two folders or files change places in one call of the system, so that both names are there at any moment.

    Returns:
        False where the system or the file system cannot do that; then nothing has changed.

    Raises:
        OSError: one of them is missing or may not be moved.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # in glibc from 2.28 on, and in musl
    if call is None:
        return False
    if call(_CURRENT_FOLDER, os.fsencode(one), _CURRENT_FOLDER, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())

"""Pictures of raw data: a folder or an uncompressed tar, read by path without ever unpacking to disk."""

import errno
import io
import posixpath
import tarfile
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from PIL import Image, UnidentifiedImageError

from dagnn_core.errors import InputError

# formats that need no outside program (EPS starts Ghostscript) and that every image encoder reads
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
READ_AHEAD = 32  # pictures in flight: enough to keep the threads busy, few enough to stay small in memory

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}

T = TypeVar("T")
R = TypeVar("R")


class FileState(NamedTuple):
    """What changes when a file does; the last time is of the inode, which no tool can set back."""

    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> "FileState":
        """The state of a file."""
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Pictures(Protocol):
    """Encoded pictures by path; safe to use from several threads."""

    def read(self, path: str) -> bytes | None:
        """The encoded picture, or None where there is none."""

    def state(self, path: str) -> FileState | None:
        """What changes when the picture does: the state of its file, or of the archive that it is in."""


class PictureFolder:
    """Pictures in a folder and the folders below it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes | None:
        """The encoded picture, or None where there is none."""
        try:
            return (self._root / path).read_bytes()
        except ValueError:  # a null character
            return None
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise

    def state(self, path: str) -> FileState | None:
        """The state of the picture's file; None where there is none."""
        try:
            return FileState.of(self._root / path)
        except (ValueError, OSError):  # read() says what is wrong
            return None


class _Extent(NamedTuple):
    """Where a member's bytes are in the tar file."""

    offset: int
    size: int


class PictureTar:
    """Pictures in an uncompressed tar file, read in place; only regular files count, links are left alone.

    Raises:
        InputError: not an uncompressed tar file, or a truncated one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = FileState.of(path)
        self._extents: dict[str, _Extent] = {}
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    # it would keep them all, in more memory than the names and extents take
                    tar.members.clear()  # type: ignore[attr-defined]
                    if member.isreg() and not member.issparse():
                        self._extents[posixpath.normpath(member.name)] = _Extent(member.offset_data, member.size)
        except tarfile.TarError as error:
            raise InputError(
                f"{path} is not a whole, uncompressed tar file ({error}); expected a folder or a tar of pictures, "
                "decompress it or copy it again"
            ) from error

    def read(self, path: str) -> bytes | None:
        """The encoded picture, or None where there is none."""
        extent = self._extents.get(posixpath.normpath(path))
        if extent is None:
            return None
        with self._path.open("rb") as stream:
            stream.seek(extent.offset)
            return stream.read(extent.size)

    def state(self, path: str) -> FileState:
        """The state of the tar file when it was opened."""
        return self._state


def open_pictures(path: Path) -> Pictures:
    """Open a folder or a tar of pictures.

    Raises:
        InputError: there is neither.
    """
    if path.is_dir():
        return PictureFolder(path)
    if path.is_file():
        return PictureTar(path)
    raise InputError(f"{path} does not exist, expected a folder or an uncompressed tar with the pictures")


def leaves_folder(path: str) -> bool:
    """Whether a relative path points out of its folder (`../x`, `/x`)."""
    normal = posixpath.normpath(path)
    return posixpath.isabs(normal) or normal == ".." or normal.startswith("../")


def decoding_fault(encoded: bytes) -> str:
    """Why a picture cannot be decoded; empty where it can. The whole picture is decoded."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            image.load()
    except UnidentifiedImageError:
        return f"not a picture in one of the formats {', '.join(FORMATS)}"
    except Exception as error:  # a damaged file makes the decoders raise nearly anything
        return f"{type(error).__name__}: {error}"
    return ""


@contextmanager
def refuse_huge_pictures() -> Iterator[None]:
    """Make every picture above Pillow's limit of pixels a decoding fault, where Pillow only warns up to twice it.

    Enter it once around the threads that decode: filters of warnings belong to the whole process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def map_in_order(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`map` on threads: results in the order of the items, at most READ_AHEAD of them in memory."""
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor() as threads:
        for item in items:
            pending.append(threads.submit(function, item))
            if len(pending) == READ_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

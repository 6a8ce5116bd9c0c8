"""Images of raw data: a folder, an uncompressed tar or a zip, read by path without ever unpacking to disk."""

import errno
import os
import posixpath
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from dagnn_core.data.formats.links import follow
from dagnn_core.data.formats.spellings import AnySpelling
from dagnn_core.errors import InputError

MAX_IMAGE_BYTES = 256 << 20  # larger ones are faults, not allocations
MAX_ZIP_RATIO = 200  # a zip bomb packs a thousandfold, an image hardly at all

MACOS_FOLDER = "__MACOSX/"  # of a zip: what macOS knows of the files beside their content

_UTF8_NAME = 0x800  # flag of a zip's member
_ZIP_MAGIC = (b"PK\3\4", b"PK\5\6")  # a member's header first, or the end of an empty zip
_ZIP_HEADER = struct.Struct("<4s22xHH")  # magic, what the directory says as well, size of the name, size of extras
_DRIVE = re.compile(r"[A-Za-z]:")  # of Windows
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}


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


class Images(Protocol):
    """Encoded images by path; safe to use from several threads."""

    def read(self, path: str) -> bytes | None:
        """The encoded image, or None where there is none.

        Raises:
            ImageError: it is too large, or damaged.
        """

    def state(self, path: str) -> FileState | None:
        """What changes when the image does: the state of its file, or of the archive that it is in."""


class ImageError(InputError):
    """An image is there, but must not or cannot be read; the message says why."""


class ImageFolder:
    """Images in a folder and the folders below it.

    Args:
        root: the folder.
        source: the raw data, in which links may lead anywhere; None: `root` alone.
    """

    def __init__(self, root: Path, source: Path | None = None) -> None:
        self._root = root
        self._roots = [folder.resolve() for folder in (root, source) if folder]

    def read(self, path: str) -> bytes | None:
        """The encoded image, or None where there is none.

        Raises:
            ImageError: it is too large.
            LinkOutsideError: it is a link that leads out of the raw data.
        """
        if leaves_folder(path) or "\0" in path:
            return None
        try:
            file = follow(self._root / path, self._roots)
        except RuntimeError:  # a loop of links
            return None
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise
        if not file.is_file():
            return None
        _check_size(file.stat().st_size)
        return file.read_bytes()

    def state(self, path: str) -> FileState | None:
        """The state of the image's file, wherever links lead; None where there is none."""
        try:
            return FileState.of(self._root / path)
        except (OSError, ValueError):  # read() says what is wrong
            return None


class _Extent(NamedTuple):
    """Where a member's bytes are in the archive file."""

    offset: int
    """Of the bytes in a tar, of the local header before them in a zip."""
    stored_size: int
    size: int
    is_deflated: bool = False
    crc: int = 0
    """Of a zip's member."""


class ImageArchive:
    """Images in an uncompressed tar or in a zip, read in place; only regular files count, links are left alone.

    Every read opens the file again, so threads do not meet. The images may lie below a folder with the archive's own
    name, as `zip -r train2017.zip train2017` packs them. A path that no member has exactly is that of one whose name
    has backslashes for slashes, or is composed otherwise (Unicode's NFC and NFD).

    Raises:
        InputError: neither of the two, or a truncated one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = FileState.of(path)
        with path.open("rb") as stream:
            self._is_zip = stream.read(4) in _ZIP_MAGIC
        try:
            members = _zip_members(path) if self._is_zip else _tar_members(path)
            self._extents = {posixpath.normpath(name): extent for name, extent in members}
            plain = {_plain(name): name for name in self._extents}
            self._name_of = {key: name for key, name in plain.items() if key != name}
        except (tarfile.TarError, zipfile.BadZipFile, NotImplementedError) as error:
            raise InputError(
                f"{path} is not a whole zip or uncompressed tar file ({error})",
                "expected a folder, a tar or a zip of images, decompress it or copy it again",
            ) from error

    def read(self, path: str) -> bytes | None:
        """The encoded image, or None where there is none.

        Raises:
            ImageError: it is too large, or damaged.
        """
        extent = self._find(path)
        if extent is None:
            return None
        for size in (extent.size, extent.stored_size):
            _check_size(size)
        with self._path.open("rb") as stream:
            stream.seek(extent.offset)
            return _read_zip_member(stream, extent) if self._is_zip else stream.read(extent.size)

    @property
    def names(self) -> Sequence[str]:
        """The names of its members, in the order of the file."""
        return tuple(self._extents)

    def keep(self, names: Iterable[str]) -> None:
        """Forget all other members, which takes memory for each."""
        self._extents = {name: self._extents[name] for name in names if name in self._extents}
        self._name_of = {key: name for key, name in self._name_of.items() if name in self._extents}

    def state(self, path: str) -> FileState:
        """The state of the archive when it was opened."""
        return self._state

    def _find(self, path: str) -> _Extent | None:
        normal, stem = posixpath.normpath(path), self._path.stem
        plain = _plain(normal)
        for name in (normal, f"{stem}/{normal}", plain, f"{_plain(stem)}/{plain}"):
            extent = self._extents.get(name) or self._extents.get(self._name_of.get(name, ""))
            if extent is not None:
                return extent
        return None


def open_images(path: Path, source: Path | None = None) -> Images:
    """Open a folder, a tar or a zip of images; where `path` does not exist, `path.tar` or `path.zip` takes its place.

    Args:
        path: where the images are.
        source: the raw data, in which links of single images may lead anywhere; None: `path` alone.

    Raises:
        InputError: there is none of them.
    """
    if path.is_dir():
        return AnySpelling(ImageFolder(path, source))
    for archive in (path, path.with_name(f"{path.name}.tar"), path.with_name(f"{path.name}.zip")):
        if archive.is_file():
            return ImageArchive(archive)
    raise InputError(f"{path} does not exist, expected a folder, an uncompressed tar or a zip with the images")


def _tar_members(path: Path) -> Iterator[tuple[str, _Extent]]:
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all, in more memory than the extents
            if member.isreg() and not member.issparse():
                yield member.name, _Extent(member.offset_data, member.size, member.size)
    with path.open("rb") as stream:
        stream.seek(tar.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes any end between two members
            raise tarfile.ReadError("it is cut off")


def _zip_members(path: Path) -> Iterator[tuple[str, _Extent]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.is_dir() or stat.S_ISLNK(member.external_attr >> 16) or member.filename.startswith(MACOS_FOLDER):
                continue
            if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InputError(
                    f"{path}: {member.filename!r} is encrypted or packed by another method than `deflate`, which is "
                    "not read",
                    "pack the images again, as plain zip or uncompressed tar",
                )
            is_deflated = member.compress_type == zipfile.ZIP_DEFLATED
            sizes = (member.compress_size, member.file_size)
            yield zip_name(member), _Extent(member.header_offset, *sizes, is_deflated, member.CRC)


def zip_name(member: zipfile.ZipInfo) -> str:
    """The name of a zip's member; macOS writes UTF-8 without saying so, which reads as letters of the first PCs."""
    name = member.filename
    if not name.isascii() and not member.flag_bits & _UTF8_NAME:
        with suppress(UnicodeError):
            return name.encode("cp437").decode()
    return name


def _plain(name: str) -> str:
    """A member's name without space around it, with slashes and in composed form, by which it is found as well."""
    stripped = name.strip()
    if stripped.isascii() and "\\" not in stripped:
        return stripped
    return posixpath.normpath(unicodedata.normalize("NFC", stripped.replace("\\", "/")))


def _read_zip_member(stream: BinaryIO, extent: _Extent) -> bytes:
    if extent.size > max(MAX_ZIP_RATIO * extent.stored_size, 1 << 20):
        raise ImageError(
            f"{extent.size} bytes packed into {extent.stored_size}, expected at most {MAX_ZIP_RATIO} times as many"
        )
    header = stream.read(_ZIP_HEADER.size)
    if len(header) < _ZIP_HEADER.size or header[:4] != _ZIP_MAGIC[0]:
        raise ImageError("the zip file is damaged here")
    name_size, extra_size = _ZIP_HEADER.unpack(header)[-2:]
    stream.seek(name_size + extra_size, os.SEEK_CUR)
    content = stream.read(extent.stored_size)
    if extent.is_deflated:
        try:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, extent.size + 1)
        except zlib.error as error:
            raise ImageError(f"the zip file is damaged here ({error})") from error
    if len(content) != extent.size or zlib.crc32(content) != extent.crc:
        raise ImageError("the zip file is damaged here (size or checksum)")
    return content


def _check_size(size: int) -> None:
    if not 0 <= size <= MAX_IMAGE_BYTES:
        raise ImageError(f"{size} bytes, expected at most {MAX_IMAGE_BYTES}")


def leaves_folder(path: str) -> bool:
    """Whether a relative path points out of its folder (`../x`, `/x`, `C:/x`)."""
    normal = posixpath.normpath(path.replace("\\", "/"))
    return posixpath.isabs(normal) or _DRIVE.match(normal) is not None or normal == ".." or normal.startswith("../")

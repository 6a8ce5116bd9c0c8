"""Files of raw data: listed, unpacked from archives safely, and packed so that DVC has few of them to keep.

Whatever is not a regular file, or leads out of its folder, is refused; of links, those in folders are followed that an
import follows. The checks are by hand, for tar and zip alike: `filter="data"` of `tarfile` refuses a name that leads
out and a device, but takes `/name` as `name`, links within the folder, a name twice and control characters, and has no
limit for bombs.
"""

import logging
import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from dagnn_core.data.formats.archives import MACOS_FOLDER, zip_name
from dagnn_core.data.formats.links import follow
from dagnn_core.data.images import SUFFIXES
from dagnn_core.errors import BackendError, InputError
from dagnn_core.progress import track

log = logging.getLogger(__name__)

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
LEFTOVERS = (".ds_store", "thumbs.db")  # what file managers put beside images
MANY = 100  # a folder with more images becomes one tar
MAX_FILES = 10_000_000
MAX_RATIO = 200  # unpacked to packed size: deflate makes 20 of text, and 1,000 of a bomb
NEVER_A_BOMB = 100_000_000  # bytes
CHUNK = 1 << 20


class RawFile(NamedTuple):
    """A regular file in a folder."""

    name: str
    """Relative to the folder, with slashes."""
    size: int


class _Member(NamedTuple):
    """A file in an archive."""

    name: str
    fault: str
    """Why it cannot be taken; empty where it can."""
    open: Callable[[], IO[bytes] | None]


def list_files(folder: Path) -> list[RawFile]:
    """All files in a folder and below, sorted by name.

    Links are followed as an import follows them: see `dagnn_core.data.formats.links`.

    Raises:
        InputError: it does not exist, or holds a device, a link that leads out or nowhere, or a name that is not text.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder, expected one with raw data", "check its path")
    root = folder.resolve()
    found = []
    pending: list[tuple[Path, str, tuple[Path, ...]]] = [(root, "", (root,))]
    while pending:
        current, prefix, parents = pending.pop()
        with os.scandir(current) as entries:
            for entry in entries:
                name = prefix + entry.name
                path = _target(folder / name, root) if entry.is_symlink() else Path(entry.path)
                fault = _name_fault(name)
                if path.is_dir():
                    if path not in parents:
                        pending.append((path, f"{name}/", (*parents, path)))
                        continue
                    fault = "is a link to a folder that it lies in, expected files and folders; remove it"
                elif not path.is_file():
                    fault = "is a device, expected regular files only; remove it"
                if fault:
                    raise InputError(f"{str(folder / name)!r} {fault}")
                found.append(RawFile(name, path.stat().st_size))
    return sorted(found)


def _target(link: Path, root: Path) -> Path:
    """What a link leads to."""
    try:
        return follow(link, [root])
    except (OSError, RuntimeError) as error:  # it leads to nothing, or to itself
        raise InputError(
            f"{str(link)!r} is a link to {str(link.readlink())!r}, which is not there", "bring the file, or remove it"
        ) from error


def _name_fault(name: str) -> str:
    """Why a relative path cannot be taken; empty where it can."""
    normal = posixpath.normpath(name)
    if name.startswith("/") or normal in ("", ".", "..") or normal.startswith("../") or "\0" in name:
        return "leads out of the folder, expected a relative path below it"
    # file names that are no UTF-8 come with surrogates, which no listing can hold
    if any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in name):
        return "has control characters in its name, or is no UTF-8; rename it"
    return ""


def check_name(name: str, origin: str) -> None:
    """Refuse a relative path that leads out of its folder.

    Raises:
        InputError: it does, or is not text.
    """
    fault = _name_fault(name)
    if fault:
        raise InputError(f"{origin}: {name!r} {fault}")


def check_space(folder: Path, size: int) -> None:
    """See that a disk has room, before long work rather than in the middle of it.

    Raises:
        BackendError: it has less than `size` bytes.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise BackendError(
            f"{folder}: {free / 1e9:.1f} GB are free on its disk, expected {size / 1e9:.1f} GB",
            "free some and run again",
        )


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive that `unpack` reads."""
    return path.name.lower().endswith(ARCHIVES)


def unpack(archive: Path, out: Path) -> Path:
    """Unpack a tar or zip; gives the folder with the content, within `out`: a lone folder at the top is gone into.

    Raises:
        InputError: not an archive, damaged, encrypted, holds links, devices, a name twice or one that leads out of the
            folder, or grows beyond all measure (a bomb).
        BackendError: the disk has no room.
    """
    log.info("unpacking %s", archive)
    packed = archive.stat().st_size
    size = 0
    out.mkdir(parents=True)
    try:
        members = _zip_members(archive) if archive.name.lower().endswith(".zip") else _tar_members(archive)
        for number, member in enumerate(members):
            fault = member.fault or _name_fault(member.name)
            if fault:
                raise InputError(f"{archive}: {member.name!r} {fault}")
            if number >= MAX_FILES:
                raise InputError(f"{archive} has more than {MAX_FILES} files, expected fewer", "unpack it yourself")
            for chunk in _content(member, out):
                size += chunk
                if size > max(NEVER_A_BOMB, MAX_RATIO * packed):
                    raise InputError(
                        f"{archive} unpacks to more than {MAX_RATIO} times its size, which is no data",
                        "unpack it yourself if it is",
                    )
                if size % (100 * CHUNK) < chunk:
                    check_space(out, CHUNK)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(f"{archive} has the same name twice: {error.filename}", "pack it again") from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError, NotImplementedError) as error:
        raise _not_whole(archive, error) from error
    except OSError as error:
        if error.errno is not None:  # the disk's; gzip and bz2 have no number
            raise
        raise _not_whole(archive, error) from error
    return _content_folder(out)


def _not_whole(archive: Path, error: Exception) -> InputError:
    reason = str(error).partition("\n")[0].rstrip(":")  # tarfile lists all that it tried
    return InputError(f"{archive} is not a whole archive ({reason})", "copy it again")


def _content(member: _Member, out: Path) -> Iterator[int]:
    """Write a member's file; yields the sizes of the pieces."""
    path = out / member.name
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = member.open()
    assert stream is not None
    with stream, path.open("xb") as target:
        while chunk := stream.read(CHUNK):
            target.write(chunk)
            yield len(chunk)


def _tar_members(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            if not member.isdir():
                regular = member.isreg() and not member.issparse()
                fault = "" if regular else "is a link or a device, expected regular files only"
                yield _Member(member.name, fault, lambda member=member: tar.extractfile(member))  # type: ignore[misc]
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all in memory


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            name = zip_name(member).replace("\\", "/")  # old programs of Windows write backslashes
            if not name.endswith("/") and not name.startswith(MACOS_FOLDER):
                mode = stat.S_IFMT(member.external_attr >> 16)
                fault = "" if mode in (0, stat.S_IFREG) else "is a link or a device, expected regular files only"
                if member.flag_bits & 1:
                    fault = "is encrypted; unpack the archive yourself"
                yield _Member(name, fault, lambda member=member: file.open(member))  # type: ignore[misc]


def _content_folder(folder: Path) -> Path:
    """Go into folders that are alone, as archives have them; not into one of images, which has a name of its own."""
    files = list_files(folder)
    packed = image_folders(files)
    while len(entries := list(folder.iterdir())) == 1 and entries[0].is_dir():
        if packed and entries[0].relative_to(folder).as_posix() in packed:
            break
        folder = entries[0]
        packed = image_folders(list_files(folder))
    return folder


def image_folders(files: Sequence[RawFile]) -> set[str]:
    """The topmost folders, below the root, of more than MANY files that are all images."""
    sizes: Counter[str] = Counter()
    images: Counter[str] = Counter()
    for file in files:
        is_image = file.name.lower().endswith(SUFFIXES) or posixpath.basename(file.name).lower() in LEFTOVERS
        for parent in _folders_of(file.name):
            sizes[parent] += 1
            images[parent] += is_image
    packed = {folder for folder, size in sizes.items() if size > MANY and size == images[folder]}
    return {folder for folder in packed if packed.isdisjoint(_folders_of(folder))}


def packed_names(files: Sequence[RawFile]) -> list[str]:
    """The files that `copy_packed` makes of these."""
    packed = image_folders(files)
    loose = [file.name for file in files if packed.isdisjoint(_folders_of(file.name))]
    return [*(f"{folder}.tar" for folder in sorted(packed)), *loose]


def _folders_of(name: str) -> list[str]:
    return [str(parent) for parent in PurePosixPath(name).parents][:-1]


def copy_packed(source: Path, files: Sequence[RawFile], out: Path) -> None:
    """Copy a folder; each folder of many images becomes one uncompressed tar of its content, beside where it was.

    Equal content makes equal files: the tar has sorted names, and neither times nor owners.

    Raises:
        InputError: a folder and the tar that it would become are both there, or a file changes meanwhile.
    """
    packed = image_folders(files)
    names = {file.name for file in files}
    for folder in packed:
        if f"{folder}.tar" in names:
            raise InputError(
                f"{source} has both {folder}/ and {folder}.tar, expected one of them: "
                f"the images in {folder}/ are to become {folder}.tar",
                "remove one",
            )
    out.mkdir(parents=True)
    progress = track(files, description="copying", total=len(files))
    for folder, group in groupby(
        progress, key=lambda file: next(iter(packed.intersection(_folders_of(file.name))), "")
    ):
        if folder:
            (out / folder).parent.mkdir(parents=True, exist_ok=True)
            with tarfile.open(out / f"{folder}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
                for file in group:
                    _add_to_tar(tar, source / file.name, posixpath.relpath(file.name, folder), file.size)
        else:
            for file in group:
                (out / file.name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / file.name, out / file.name)


def _add_to_tar(tar: tarfile.TarFile, path: Path, name: str, size: int) -> None:
    member = tarfile.TarInfo(name)  # mode 644; time and owner 0
    member.size = size
    with path.open("rb") as stream:
        try:
            tar.addfile(member, stream)
        except OSError as error:
            if error.errno is not None:  # the disk's
                raise
            raise InputError(f"{path} became shorter while it was read", "run again") from error

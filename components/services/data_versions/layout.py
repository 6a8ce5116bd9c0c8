"""How DVC lays out what it keeps, in its cache and in remotes: objects named by their md5, and lists of files."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

MAX_LISTING = 1 << 30
"""Bytes of a list of files."""
FOLDER_MARK = ".dir"
"""What the digest of a folder ends in: the object is the list of its files."""
_MD5 = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(rf"[0-9a-f]{{32}}({re.escape(FOLDER_MARK)})?")


class ListedFile(NamedTuple):
    """A file of a version: its path, relative to the folder, and its md5."""

    path: str
    md5: str


def is_digest(text: str) -> bool:
    """Whether a text is a digest of DVC: 32 hexadecimal digits, with `.dir` for a folder."""
    return _DIGEST.fullmatch(text) is not None


def is_folder(digest: str) -> bool:
    """Whether a digest is that of a folder."""
    return digest.endswith(FOLDER_MARK)


def md5_of_object(digest: str) -> str:
    """The md5 of the object with this digest, which is a file or a list of files."""
    return digest.removesuffix(FOLDER_MARK)


def bases(remote: str) -> tuple[str, str]:
    """Where the objects of a remote lie: as DVC 3 lays them out, and as DVC 2 did."""
    remote = remote.rstrip("/")
    return f"{remote}/files/md5", remote


def object_uri(base: str, digest: str) -> str:
    """Where an object lies below one of the `bases`."""
    return f"{base}/{digest[:2]}/{digest[2:]}"


def read_listing(content: bytes) -> list[ListedFile]:
    """The files that the object of a folder lists.

    Raises:
        ValueError: it is no such list.
    """
    try:
        files = [ListedFile(str(entry["relpath"]), str(entry["md5"])) for entry in json.loads(content)]
    except (KeyError, TypeError) as error:
        raise ValueError(repr(error)) from error
    if wrong := next((file for file in files if not _MD5.fullmatch(file.md5)), None):
        raise ValueError(f"unexpected entry {wrong.path!r}")
    return files


def write_listing(files: Iterable[ListedFile]) -> bytes:
    """The object of a folder with these files."""
    entries = [{"md5": file.md5, "relpath": file.path} for file in sorted(files)]
    return json.dumps(entries, sort_keys=True).encode()


def list_folder(folder: Path) -> list[ListedFile]:
    """The files of a folder, with their md5, sorted."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(ListedFile(path.relative_to(folder).as_posix(), _md5(path)) for path in files)


def folder_digest(folder: Path) -> str:
    """DVC's digest of a folder: `<md5>.dir`, the md5 of the list of its files with theirs."""
    return hashlib.md5(write_listing(list_folder(folder)), usedforsecurity=False).hexdigest() + FOLDER_MARK


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

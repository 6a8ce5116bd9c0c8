"""A DVC remote in S3, read by digest: without DVC, without a repository and its credentials."""

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from components.services.data_versions.archives import check_name, check_space
from components.services.data_versions.layout import (
    MAX_LISTING,
    ListedFile,
    bases,
    is_digest,
    is_folder,
    md5_of_object,
    object_uri,
    read_listing,
)
from components.services.data_versions.raw_version import LINEAGE, RawLineage
from components.services.storage.s3 import Digest, Download, Storage, StoredObject, parse_uri
from dagnn_core.errors import BackendError, InputError

log = logging.getLogger(__name__)

_CHUNK = 1 << 20


class _Found(NamedTuple):
    """A version in a remote: the folder that has it, and each of its files with its object."""

    base: str
    entries: list[ListedFile]
    objects: list[StoredObject]


def fetch_by_digest(storage: Storage, lineage: RawLineage, folder: Path) -> RawLineage:
    """Bring a version of raw data into a folder; files that are there with the right digest stay, others go.

    Args:
        storage: the store.
        lineage: the version: its md5 and remote, `s3://bucket/prefix`; a single file is named after its path.
        folder: where the files go; each appears when all of it is there and its md5 is right.

    Returns:
        The version with size and number of files.

    Raises:
        InputError: the remote does not have this version, or lists a path that leads out of the folder.
        BackendError: the store cannot be reached or refuses, an object is damaged, the disk has no room.
    """
    remote = lineage.remote.rstrip("/")
    base, entries, objects = _find(storage, lineage)
    remove_strangers(folder, entries)
    size = sum(stored.size for stored in objects)
    check_space(folder, size - sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    is_old = base == remote
    storage.download_all(
        [
            Download(stored, folder / entry.path, None if is_old else Digest("md5", entry.md5))
            for entry, stored in zip(entries, objects, strict=True)
        ],
        description="fetching",
    )
    if is_old:
        check_digests(folder, entries, remote)
    return replace(lineage, size=size, num_files=len(entries))


def check_pushed(storage: Storage, lineage: RawLineage) -> RawLineage:
    """See that a remote has every file of a version of raw data, without fetching any.

    Returns:
        The version with size and number of files.

    Raises:
        InputError: the remote does not have this version, or not all of its files.
        BackendError: the store cannot be reached or refuses.
    """
    found = _find(storage, lineage)
    return replace(lineage, size=sum(stored.size for stored in found.objects), num_files=len(found.entries))


def remove_strangers(folder: Path, entries: Sequence[ListedFile]) -> None:
    """Remove what an unfinished fetch of another version has left in a folder; what is resumed is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {entry.path for entry in entries}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        kept = re.sub(r"(^|/)\.([^/]+)\.part(\.etag)?$", r"\1\2", name)
        if path.is_file() and name not in wanted and kept not in wanted:
            path.unlink()
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def check_digests(folder: Path, entries: Sequence[ListedFile], origin: str) -> None:
    """Compare files with their md5, as DVC 3 makes it, or as DVC 2 did of text.

    Raises:
        BackendError: a file is another one; it is removed.
    """
    for entry in entries:
        path = folder / entry.path
        if not has_md5(path, entry.md5):
            path.unlink()
            raise BackendError(
                f"{origin}: {entry.path!r} is damaged, it does not have the md5 {entry.md5}",
                "send it again from where it is whole",
            )


def has_md5(path: Path, md5: str) -> bool:
    """Whether a file has this md5, with its line ends as they are, or as DVC 2 took them (LF for CR LF)."""
    plain, unix = hashlib.md5(usedforsecurity=False), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            plain.update(chunk)
            unix.update(chunk.replace(b"\r\n", b"\n"))  # by chunks, as DVC 2 did
    return md5 in (plain.hexdigest(), unix.hexdigest())


def _find(storage: Storage, lineage: RawLineage) -> _Found:
    """Look for a version and all of its files in its remote."""
    md5 = lineage.md5
    if not is_digest(md5):
        raise InputError(f"{md5!r} is not a digest of DVC, expected 32 hexadecimal digits, with .dir for a folder")
    remote = lineage.remote.rstrip("/")
    base, top = _locate(storage, remote, md5)
    entries = _listing(storage, top, md5) if is_folder(md5) else [ListedFile(Path(lineage.path).name or md5, md5)]
    uris = [object_uri(base, entry.md5) for entry in entries]
    found = storage.stat_all(uris, description="looking for files")
    missing = [entry.path for entry, stored in zip(entries, found, strict=True) if stored is None]
    if missing:
        raise InputError(
            f"{remote} lacks {len(missing)} of {len(entries)} files of {md5} (first: {missing[0]!r})",
            "run `dvc push` where they are",
        )
    return _Found(base, entries, [stored for stored in found if stored is not None])


def _locate(storage: Storage, remote: str, md5: str) -> tuple[str, StoredObject]:
    """The folder of the remote that has the object, as DVC 3 lays it out or as DVC 2 did, and the object."""
    parse_uri(remote)
    for base in bases(remote):
        top = storage.find(object_uri(base, md5))
        if top is not None:
            return base, top
    raise InputError(
        f"{remote} does not have {md5}: it was never pushed, or to another remote",
        "run `dvc push` where the data is, or correct the remote",
    )


def _listing(storage: Storage, top: StoredObject, md5: str) -> list[ListedFile]:
    """The files that a `.dir` object lists."""
    content = storage.read(top.uri, Digest("md5", md5_of_object(md5)), max_bytes=MAX_LISTING)
    try:
        entries = read_listing(content)
        if any(entry.path == LINEAGE for entry in entries):
            raise ValueError(f"unexpected entry {LINEAGE!r}")
    except ValueError as error:
        raise InputError(f"{top.uri} is not a list of files as DVC makes it ({error})") from error
    for entry in entries:
        check_name(entry.path, top.uri)
    names = {entry.path for entry in entries}
    if len(names) != len(entries):
        raise InputError(f"{top.uri} lists a file twice, expected every path once")
    return entries

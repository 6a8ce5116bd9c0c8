"""What DVC tracks at a commit, and which of it lies in DVC's cache and in its remote."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from components.services.data_versions.layout import (
    MAX_LISTING,
    ListedFile,
    bases,
    is_folder,
    md5_of_object,
    object_uri,
    read_listing,
)
from components.services.data_versions.repository import remote_of
from components.services.storage.s3 import Digest, Storage
from dagnn_core.artifacts import MANIFEST, parse_manifest


class ObjectStore(Protocol):
    """Where objects lie, named by their md5; a failure is whatever the place raises."""

    @property
    def name(self) -> str:
        """As a reader knows it."""

    def lacks(self, md5s: Sequence[str]) -> list[str]:
        """Those of the objects that are not there."""

    def read(self, md5: str) -> bytes:
        """Content of a small object that is there."""


@dataclass(frozen=True, kw_only=True)
class S3Place:
    """A DVC remote in S3."""

    name: str
    remote: str
    """`s3://bucket/prefix`."""
    storage: Storage

    def lacks(self, md5s: Sequence[str]) -> list[str]:
        """Those of the objects that are not there."""
        found = self.storage.stat_all([self._uri(md5) for md5 in md5s], description="looking for files")
        return [md5 for md5, stored in zip(md5s, found, strict=True) if stored is None]

    def read(self, md5: str) -> bytes:
        """Content of a small object that is there."""
        return self.storage.read(self._uri(md5), Digest("md5", md5_of_object(md5)), max_bytes=MAX_LISTING)

    def _uri(self, md5: str) -> str:
        return object_uri(bases(self.remote)[0], md5)


@dataclass(frozen=True, kw_only=True)
class DvcPlace:
    """DVC's cache, or a remote that DVC alone knows to use."""

    name: str
    objects: Any
    """DVC's own object database."""

    def lacks(self, md5s: Sequence[str]) -> list[str]:
        """Those of the objects that are not there."""
        return [md5 for md5 in md5s if not self._has(md5)]

    def read(self, md5: str) -> bytes:
        """Content of a small object that is there."""
        return bytes(self.objects.fs.cat_file(self.objects.oid_to_path(md5)))

    def _has(self, md5: str) -> bool:
        try:  # DVC's own `exists` takes a store that cannot be reached for one that lacks the object
            self.objects.fs.info(self.objects.oid_to_path(md5))
        except FileNotFoundError:
            return False
        return True


def brief_storage(endpoint_url: str = "") -> Storage:
    """An S3 store that is asked briefly: the answer may be that it cannot be reached."""
    return Storage(endpoint_url=endpoint_url, attempts=2, connect_timeout=5, read_timeout=20, patience=0)


def s3_place(remote: str, endpoint_url: str = "") -> S3Place:
    """A DVC remote in S3."""
    return S3Place(name=remote, remote=remote, storage=brief_storage(endpoint_url))


def places(project: Path) -> Iterator[ObjectStore]:
    """DVC's cache, and its default remote; none where the folder is no DVC repository.

    Raises:
        DvcException: the configuration is wrong, or a plugin is not installed.
    """
    if not (project / ".dvc").is_dir():
        return
    from dvc.repo import Repo

    with Repo(str(project)) as repo:
        yield DvcPlace(name="DVC's cache", objects=repo.cache.local)
        name, remote = repo.config["core"].get("remote"), remote_of(repo.config)
        if remote.is_plain_s3:
            yield s3_place(remote.url, remote.endpoint_url)
        elif name:
            yield DvcPlace(name=f"the DVC remote {name}", objects=repo.cloud.get_remote_odb(name=name))


def tracked(project: Path, commit: str) -> dict[str, str]:
    """What DVC tracks at a commit: path -> md5; nothing before `dvc init`.

    Raises:
        DvcException: the files of the commit are not such that DVC reads them.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import NotDvcRepoError

    try:
        with closing(DVCFileSystem(str(project), rev=commit)) as files:
            outs = files.repo.index.outs
            return {out.fspath.lstrip("/"): out.hash_info.value for out in outs if out.hash_info}
    except NotDvcRepoError:
        return {}


def objects_of(place: ObjectStore, md5: str) -> list[ListedFile]:
    """Path and md5 of every file of a version; the path of a single file is not in it.

    Raises:
        ValueError: the list of files is damaged.
    """
    if not is_folder(md5):
        return [ListedFile(md5, md5)]
    listing = place.read(md5)
    if hashlib.md5(listing, usedforsecurity=False).hexdigest() != md5_of_object(md5):
        raise ValueError(f"the list of files {md5} is damaged")
    return read_listing(listing)


def content_digest(place: ObjectStore, md5: str) -> str | None:
    """Content digest of an artifact, as its manifest in this place says; None where that is lost or damaged."""
    try:
        manifest = dict(objects_of(place, md5))[MANIFEST]
        return parse_manifest(place.read(manifest), MANIFEST).content_digest
    except (FileNotFoundError, ValueError, KeyError):
        return None

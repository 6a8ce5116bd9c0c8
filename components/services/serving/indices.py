"""Finds the index that a model made: one folder, a folder of indices, or a prefix of S3."""

from pathlib import Path
from typing import NamedTuple

from components.services.storage.artifacts import MAX_MANIFEST, fetch_files
from components.services.storage.s3 import Storage
from dagnn_core.artifacts import MANIFEST, parse_manifest, read_artifact
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.records import Manifest
from dagnn_core.search.index import KIND


class Found(NamedTuple):
    """An index, as its manifest describes it."""

    digest: str
    where: str
    """Folder, or URI."""
    manifest: Manifest | None = None
    """Of one in S3."""


class IndexAt:
    """The index of one folder, whichever model made it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, model_digest: str) -> Found:
        """The index.

        Raises:
            ArtifactError: it is missing or damaged.
            InputError: another model made it.
        """
        artifact = read_artifact(self._folder, KIND)
        made_by = artifact.content["model"]["digest"]
        if made_by != model_digest:
            raise InputError(
                f"{self._folder} was built with the model {made_by[:12]}, but {model_digest[:12]} is to be served",
                "build an index with this one, or give --indexes a folder with an index of each model",
            )
        return Found(artifact.content_digest, str(self._folder))

    def fetch(self, found: Found) -> Path:
        """Its folder."""
        return Path(found.where)


class IndexFolder:
    """The indices in a folder; of several of one model, the last by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, model_digest: str) -> Found:
        """The index that a model made.

        Raises:
            InputError: there is none.
        """
        for path in sorted(self._folder.glob(f"[!.]*/{MANIFEST}"), reverse=True):
            try:
                manifest = parse_manifest(path.read_bytes(), str(path))
            except (InputError, OSError):  # being replaced, or no index at all
                continue
            if _is_made_by(model_digest, manifest):
                return Found(manifest.content_digest, str(path.parent))
        raise _no_index(str(self._folder), model_digest)

    def fetch(self, found: Found) -> Path:
        """Its folder."""
        return Path(found.where)


class IndexBucket:
    """The indices below a prefix of S3, each in a folder of its own; of several of one model, the last by name.

    Args:
        uri: the prefix.
        storage: the store.
        cache: folder with one index for each digest that was downloaded.
    """

    def __init__(self, uri: str, storage: Storage, cache: Path) -> None:
        self._uri, self._storage, self._cache = uri.rstrip("/"), storage, cache
        self._manifests: dict[tuple[str, str], Manifest | None] = {}

    def find(self, model_digest: str) -> Found:
        """The index that a model made.

        Raises:
            InputError: there is none.
            BackendError: the store cannot be reached.
        """
        for name in reversed(self._storage.names_below(self._uri)):
            folder, _, last = name.rpartition("/")
            if last == MANIFEST and folder and "/" not in folder:
                manifest = self._manifest(f"{self._uri}/{name}")
                if manifest is not None and _is_made_by(model_digest, manifest):
                    return Found(manifest.content_digest, f"{self._uri}/{folder}", manifest)
        raise _no_index(self._uri, model_digest)

    def fetch(self, found: Found) -> Path:
        """Download it, unless it is there whole.

        Raises:
            BackendError: the store cannot be reached, or an object is damaged.
            DiskError: the disk is full.
        """
        folder = self._cache / found.digest
        assert found.manifest is not None
        try:
            if read_artifact(folder, KIND, verify=True).content_digest == found.digest:
                return folder
        except ArtifactError:  # not there, or damaged
            pass
        self._cache.mkdir(parents=True, exist_ok=True)
        fetch_files(found.where, found.manifest, folder, self._storage)
        return folder

    def _manifest(self, uri: str) -> Manifest | None:
        """A manifest, read again where the object has changed; None where it is damaged."""
        key = uri, self._storage.stat(uri).etag
        if key not in self._manifests:
            content = self._storage.read(uri, None, max_bytes=MAX_MANIFEST)
            try:
                self._manifests[key] = parse_manifest(content, uri)
            except ArtifactError:
                self._manifests[key] = None
        return self._manifests[key]


def _is_made_by(model_digest: str, manifest: Manifest) -> bool:
    return manifest.kind == KIND and bool(manifest.content["model"]["digest"] == model_digest)


def _no_index(where: str, model_digest: str) -> InputError:
    return InputError(
        f"{where} has no index of the model {model_digest[:12]}",
        "build one there: dagnn index build, with --model as it is here",
    )

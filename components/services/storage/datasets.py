"""A data set in S3, of which a task fetches what it reads: a part of the images, and the other columns of all items.

What is checked: the manifest, against the digest that the caller expects; every file that is fetched whole, against the
sha256 in the manifest. Of the other data files only columns are read, by ranges, from an object of the right size that
does not change meanwhile (ETag); a range has no digest to be checked against. Where tasks share the images among
them, each data file is fetched whole by one of them at least.
"""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pyarrow as pa

from components.services.storage.artifacts import MAX_MANIFEST
from components.services.storage.s3 import Digest, Download, Storage, StoredObject, call_all, parse_uri
from dagnn_core.artifacts import MANIFEST, Artifact, digest_of, parse_manifest
from dagnn_core.data.dataset import KIND, UNSEEN_LABELS, Dataset, read_table, shards
from dagnn_core.disk import readable_size, writing
from dagnn_core.errors import ArtifactError, BackendError, InputError
from dagnn_core.redaction import redact

log = logging.getLogger(__name__)

_REMEDY = (
    "see that AWS_ENDPOINT_URL_S3 (`s3_endpoint_url` of a target) is the store of the run's artifacts; where the data "
    "set is gone, submit with --no-cache, which makes it again"
)


class StoredDataset(NamedTuple):
    """Where a data set is stored, and what it holds."""

    uri: str
    """`s3://bucket/prefix` of the artifact."""
    digest: str
    """Its content digest."""


@contextmanager
def open_dataset(
    dataset: Path | StoredDataset, *, images: Callable[[int], range] | None = None, files: Collection[str] = ()
) -> Iterator[Dataset]:
    """Open a data set: one that is here, all of it checked; of a stored one a part, in a temporary folder.

    Args:
        dataset: the folder of the artifact, or where it is stored.
        images: see `fetch_part`.
        files: see `fetch_part`.

    Raises:
        InputError: the URI is not one of S3.
        ArtifactError: the data set is missing or damaged here, or the manifest of the stored one is.
        BackendError: the store cannot be reached or refuses, lacks the data set, or has another or a damaged one.
        DiskError: the disk is full.
    """
    if isinstance(dataset, Path):
        yield Dataset.read(dataset, verify=True)
        return
    with TemporaryDirectory(prefix="dataset-") as folder:
        yield fetch_part(dataset, Path(folder), Storage(), images=images, files=files)


def fetch_part(
    stored: StoredDataset,
    folder: Path,
    storage: Storage,
    *,
    images: Callable[[int], range] | None = None,
    files: Collection[str] = (),
) -> Dataset:
    """Fetch the data files that some items lie in, and read the columns but the images of the others.

    Args:
        stored: where the data set is stored.
        folder: where the files go; it must stay while images are read.
        storage: the store.
        images: given the number of items, the rows whose images are read; None: no images are.
        files: names of other files that are read, where the data set has them.

    Raises:
        InputError: the URI is not one of S3.
        ArtifactError: the manifest is damaged.
        BackendError: the store cannot be reached or refuses, lacks the data set, or has another or a damaged one.
        DiskError: the disk is full.
    """
    artifact = _read_manifest(stored, folder, storage)
    wanted = images(artifact.require("num_items")["num_items"]) if images else range(0)
    names = [path.name for path in shards(artifact)]
    others = sorted(artifact.files.keys() & {UNSEEN_LABELS, *files})
    objects = _find(stored, artifact, [*names, *others], storage)
    read = partial(_read_table, artifact, storage)
    columns = call_all(read, [objects[name] for name in names], description="reading columns of data files")
    tables = dict(zip(names, columns, strict=True))
    stop = 0
    for name in names:
        start, stop = stop, stop + len(tables[name])
        if max(start, wanted.start) < min(stop, wanted.stop):
            del tables[name]  # it is fetched whole, and read again when it is checked
    whole = [name for name in objects if name not in tables]
    downloads = [
        Download(objects[name], folder / name, Digest("sha256", artifact.files[name].sha256)) for name in whole
    ]
    size = sum(objects[name].size for name in whole)
    with writing(folder, need=size):
        storage.download_all(downloads, description=f"fetching {len(whole)} files")
    log.info(
        "%d of %d data files fetched whole (%s) from %s",
        *(len(names) - len(tables), len(names), readable_size(size), stored.uri),
    )
    return Dataset.of(artifact, elsewhere=tables)


def _read_table(artifact: Artifact, storage: Storage, source: StoredObject) -> pa.Table:
    try:
        return read_table(artifact, source.uri.rsplit("/", 1)[1], storage.open(source))
    except ArtifactError as error:
        raise BackendError(f"{source.uri}: its columns cannot be read ({error.what})", _REMEDY) from error


def _read_manifest(stored: StoredDataset, folder: Path, storage: Storage) -> Artifact:
    """The artifact as its manifest in the store describes it, with its files at a folder."""
    if not stored.uri.startswith("s3://"):
        raise InputError(
            f"the data set of this run is at {redact(stored.uri)!r}, expected s3://bucket/prefix, as in the target's "
            "pipeline_root, which this pipeline was compiled for",
            "start the run with that pipeline root, or with features.shards: 1",
        )
    parse_uri(stored.uri)
    where = f"{stored.uri}/{MANIFEST}"
    try:
        text = storage.read(where, None, max_bytes=MAX_MANIFEST)
    except InputError as error:  # what another task has stored is no input of the user's
        raise BackendError(error.what, _REMEDY) from error
    artifact = Artifact.of(folder, parse_manifest(text, where, _REMEDY))
    if (artifact.kind, artifact.content_digest, digest_of(artifact.files)) != (KIND, stored.digest, stored.digest):
        raise BackendError(
            f"{where} is that of the {artifact.kind} {artifact.content_digest[:12]}, expected the data set "
            f"{stored.digest[:12]}",
            "submit with --no-cache, which makes it again",
        )
    return artifact


def _find(
    stored: StoredDataset, artifact: Artifact, names: Collection[str], storage: Storage
) -> dict[str, StoredObject]:
    """Objects of some files by name, all of which have the size that the manifest says."""
    found = storage.stat_all([f"{stored.uri}/{name}" for name in names], description="looking for files")
    objects = {}
    for name, entry in zip(names, found, strict=True):
        size = artifact.files[name].size
        if entry is None or entry.size != size:
            got = "is missing" if entry is None else f"has {entry.size} bytes"
            raise BackendError(f"{stored.uri}/{name} {got}, expected {size} bytes as {MANIFEST} says", _REMEDY)
        objects[name] = entry
    return objects

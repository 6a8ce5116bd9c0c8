"""Artifacts as folders in S3."""

from pathlib import Path

from components.services.storage.s3 import Digest, Download, Storage
from dagnn_core.artifacts import MANIFEST, parse_manifest
from dagnn_core.drafts import draft_of
from dagnn_core.records import Manifest

MAX_MANIFEST = 16 << 20  # bytes


def send_artifact(artifact: Path, uri: str, storage: Storage) -> None:
    """Store an artifact; its manifest comes last, so that what has one is whole.

    Args:
        artifact: the folder.
        uri: `s3://bucket/prefix` of this artifact alone; what is there already is not sent again.
        storage: the store.

    Raises:
        InputError: the bucket does not exist.
        BackendError: the store cannot be reached, or refuses.
    """
    files = [path for path in sorted(artifact.rglob("*")) if path.is_file() and path.name != MANIFEST]
    for path in (*files, artifact / MANIFEST):
        storage.upload(path, f"{uri}/{path.relative_to(artifact).as_posix()}")


def fetch_artifact(uri: str, out: Path, storage: Storage) -> None:
    """Bring a stored artifact to a new folder, which appears when all files are there and have their digests.

    Raises:
        InputError: there is none.
        ArtifactError: its manifest is damaged.
        BackendError: the store cannot be reached or refuses, or a file is damaged.
    """
    manifest = parse_manifest(storage.read(f"{uri}/{MANIFEST}", None, max_bytes=MAX_MANIFEST), f"{uri}/{MANIFEST}")
    fetch_files(uri, manifest, out, storage)


def fetch_files(uri: str, manifest: Manifest, out: Path, storage: Storage) -> None:
    """The same where the manifest has been read already.

    Raises:
        BackendError: the store cannot be reached or refuses, or a file is damaged.
        DiskError: the disk is full.
    """
    with draft_of(out) as draft:
        storage.download_all(
            [
                Download(storage.stat(f"{uri}/{name}"), draft / name, Digest("sha256", record.sha256))
                for name, record in manifest.files.items()
            ],
            description=f"fetching {uri}",
        )
        storage.download(f"{uri}/{MANIFEST}", draft / MANIFEST)


def delete_folder(uri: str, storage: Storage) -> None:
    """Remove all objects below a prefix.

    Raises:
        BackendError: the store cannot be reached, or refuses.
    """
    for name in storage.names_below(uri):
        storage.delete(f"{uri}/{name}")

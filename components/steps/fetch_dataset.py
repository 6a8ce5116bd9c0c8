"""Step `fetch_dataset`: raw data at one version, from a DVC remote to a folder.

A Kubeflow pod, which has no checkout, begins with it; elsewhere `dvc pull` does.
"""

import logging
import shutil
from pathlib import Path
from typing import Annotated

import typer

from components.command import run_step
from components.services.data_versions.raw_version import RawLineage, read_lineage, write_lineage
from components.services.data_versions.repository import Version, fetch_by_dvc, fetch_source, resolve
from components.services.data_versions.s3_remote import fetch_by_digest
from components.services.storage.s3 import Storage
from dagnn_core.errors import InputError
from dagnn_core.redaction import redact

log = logging.getLogger(__name__)


def run(
    *,
    raw_out: Path,
    md5: str = "",
    remote: str = "",
    endpoint_url: str = "",
    repository: str = "",
    revision: str = "",
    path: str = "",
    uri: str = "",
) -> None:
    """Fetch raw data by digest from an S3 remote, by revision from a repository, or as it is at a URI.

    It appears when it is complete.

    An interrupted fetch resumes. The folder has a record of the version, which the data set takes over;
    data from a URI has no version, and no record.

    Args:
        raw_out: folder for the raw data; a single file gets the name that it has in `path`.
        md5: DVC's digest of the data, `<md5>.dir` for a folder. With it, `repository`, `revision` and `path` are
            recorded and no git is needed; without it, they say what to fetch.
        remote: URL of the DVC remote that has the digest, `s3://bucket/prefix`.
        endpoint_url: of the store; empty: as the remote's configuration or the environment says.
        repository: local path or git URL of the DVC repository.
        revision: branch, tag or commit.
        path: of the data in the repository.
        uri: `s3://bucket/prefix` of a folder that is not under DVC, instead of all the others.

    Raises:
        InputError: the version does not exist or was never pushed, or `raw_out` holds something else.
        BackendError: the store cannot be reached or refuses, a file is damaged, the disk has no room.
    """
    if uri:
        if md5 or repository:
            raise InputError(f"got {uri} and a version under DVC, expected either", "leave one out")
        _fetch_from_uri(uri, endpoint_url, raw_out)
        return
    if md5:
        if not remote:
            raise InputError("no remote is named, expected the one that has the digest", "give s3://bucket/prefix")
        lineage = RawLineage(
            md5=md5,
            size=0,
            num_files=0,
            repository=redact(repository),
            revision=revision,
            path=path,
            remote=remote,
        )
        version = Version(lineage, endpoint_url, is_plain_s3=True)
    elif repository and revision and path:
        version = resolve(repository, revision, path)
    else:
        raise InputError("expected an md5 and a remote, or a repository, a revision and a path", "give either")
    if _is_there(raw_out, version.lineage):
        log.info("%s is already in %s", version.lineage.md5, raw_out)
        return
    work = raw_out.with_name(f".{raw_out.name}.fetch")
    work.mkdir(parents=True, exist_ok=True)
    if version.is_plain_s3:
        storage = Storage(endpoint_url=endpoint_url or version.endpoint_url)
        got = fetch_by_digest(storage, version.lineage, work)
    else:
        got = fetch_by_dvc(repository, version.lineage, work)
    write_lineage(work, got)
    work.replace(raw_out)
    log.info("fetched %s: %d files, %.1f MB: %s", got.md5, got.num_files, got.size / 1e6, raw_out)


def _fetch_from_uri(uri: str, endpoint_url: str, raw_out: Path) -> None:
    if raw_out.exists() and (not raw_out.is_dir() or any(raw_out.iterdir())):
        raise InputError(f"{raw_out} holds something, which would be lost, expected a new folder", "name another")
    work = raw_out.with_name(f".{raw_out.name}.fetch")
    work.mkdir(parents=True, exist_ok=True)
    got = fetch_source(f"{uri.rstrip('/')}/", work, Storage(endpoint_url=endpoint_url))
    got.replace(raw_out)
    shutil.rmtree(work)
    log.info("fetched %s: %s", uri, raw_out)


def _is_there(raw_out: Path, wanted: RawLineage) -> bool:
    """Whether the folder has this version already.

    Raises:
        InputError: it has something else.
    """
    if not raw_out.exists() or (raw_out.is_dir() and not any(raw_out.iterdir())):
        return False
    if raw_out.is_dir():
        known = read_lineage(raw_out)
        num_files = sum(entry.is_file() for entry in raw_out.rglob("*"))
        if known and known.md5 == wanted.md5 and num_files - 1 == known.num_files:
            return True
    raise InputError(
        f"{raw_out} holds something else than {wanted.md5}, which would be lost, expected a new folder",
        "name another or remove it yourself",
    )


if __name__ == "__main__":

    def main(
        *,
        raw_out: Annotated[Path, typer.Option(help="Folder for the raw data.")],
        md5: Annotated[str, typer.Option(help="DVC's digest of the data: no git is needed.")] = "",
        remote: Annotated[str, typer.Option(help="DVC remote with the digest: s3://bucket/prefix.")] = "",
        endpoint_url: Annotated[str, typer.Option(help="Store, unless the environment or the remote says.")] = "",
        repository: Annotated[str, typer.Option(help="Local path or git URL of the DVC repository.")] = "",
        revision: Annotated[str, typer.Option(help="Branch, tag or commit.")] = "",
        path: Annotated[str, typer.Option(help="Path of the data in the repository.")] = "",
        uri: Annotated[str, typer.Option(help="s3://bucket/prefix of a folder that is not under DVC.")] = "",
    ) -> None:
        """Fetch raw data at one version from a DVC remote."""
        run(
            raw_out=raw_out,
            md5=md5,
            remote=remote,
            endpoint_url=endpoint_url,
            repository=repository,
            revision=revision,
            path=path,
            uri=uri,
        )

    run_step(main)

"""Files that MLflow keeps, read the way its clients read them: through the server, or from the store behind it."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from components.services.tracking.mlflow import PROBE_SECONDS, Tracking, unreachable_store

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

_FILES_OF_A_MODEL = "tags.mlflow_model_id LIKE 'm-%'"  # a ledger's versions have none


class KeptFile(NamedTuple):
    """A file of a model version or a run."""

    owner: str
    """What it belongs to, for people."""
    repository: "ArtifactRepository"
    path: str
    size: int
    """Bytes."""


def check_direct_way(tracking: Tracking, repository: "ArtifactRepository", file: str) -> None:
    """Where this process fetches files past the server, check that it can: MLflow itself would try for minutes.

    Raises:
        BackendError: the store cannot be reached, or refuses.
    """
    from mlflow.environment_variables import MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD

    if MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD.get():  # type: ignore[no-untyped-call]
        check_store(tracking, repository, file)


def check_store(tracking: Tracking, repository: "ArtifactRepository", file: str) -> None:
    """Check that a file can be fetched from the address that the server names; a server that names none is passed over.

    Args:
        tracking: the server.
        repository: the files.
        file: one of them.

    Raises:
        BackendError: the store cannot be reached, or refuses.
    """
    from mlflow.utils.request_utils import cloud_storage_http_request
    from requests import HTTPError, RequestException

    name_address = getattr(repository, "_get_presigned_download_url", None)  # MLflow has no public call for it
    if name_address is None:
        return
    try:
        named = name_address(file)
    except HTTPError:
        return
    host = urlsplit(named.url).netloc
    try:
        answer = cloud_storage_http_request(  # type: ignore[no-untyped-call]
            "get",
            named.url,
            max_retries=0,
            timeout=PROBE_SECONDS,
            stream=True,
            headers={**named.headers, "Range": "bytes=0-0"},
        )
    except RequestException as error:
        reason = f"{host} cannot be reached ({type(error).__name__})"
        raise unreachable_store(tracking.address, reason) from error
    with answer:
        if answer.status_code >= 400 and answer.status_code != 416:  # of an empty file
            raise unreachable_store(tracking.address, f"{host} answers {answer.status_code}")


def find_small_file(tracking: Tracking) -> KeptFile | None:
    """A small file of a model version, or else of one of the last runs; None where there is none yet."""
    client = tracking.client
    for version in client.search_model_versions(_FILES_OF_A_MODEL, max_results=1):
        uri = client.get_model_version_download_uri(version.name, version.version)
        found = _smallest(f"{version.name} {version.version}", tracking.repository(uri))
        if found:
            return found
    experiment = client.get_experiment_by_name(tracking.experiment)
    for run in client.search_runs([experiment.experiment_id], max_results=5) if experiment else ():
        found = _smallest(f"run {run.info.run_id}", tracking.repository(str(run.info.artifact_uri)))
        if found:
            return found
    return None


def read(file: KeptFile) -> int:
    """Fetch a file as every client does; return its number of bytes."""
    with tempfile.TemporaryDirectory() as folder:
        return Path(file.repository.download_artifacts(file.path, dst_path=folder)).stat().st_size  # type: ignore[no-untyped-call]


def _smallest(owner: str, repository: "ArtifactRepository") -> KeptFile | None:
    folders: list[str | None] = [None]
    while folders:
        listed = repository.list_artifacts(folders.pop(0))
        files = [file for file in listed if not file.is_dir]
        if files:
            chosen = min(files, key=lambda file: int(file.file_size or 0))
            return KeptFile(owner, repository, str(chosen.path), int(chosen.file_size or 0))
        folders += [str(file.path) for file in listed]
    return None

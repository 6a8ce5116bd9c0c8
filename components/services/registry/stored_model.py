"""What a version of a registered model stands on: its run and its files, without which it must not be served."""

import re
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

import numpy as np

from components.params import read_yaml
from components.services.tracking.files import check_direct_way
from components.services.tracking.mlflow import Tracking
from dagnn_core.artifacts import MANIFEST, parse_manifest
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.records import Manifest

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

MANIFEST_DIGEST = "model_manifest_digest"
"""Tag of a version: the digest of its model's manifest."""

_MLMODEL = "MLmodel"  # where MLflow says what it has stored
_PICKLED = {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt"}
_NUMPY = b"\x93NUMPY"


def find_fault(tracking: Tracking, version: "ModelVersion") -> str | None:
    """Return what keeps a version from being served, as the end of a message about it; None where it is whole.

    Neither its run nor MLflow's record of its model must be deleted (`mlflow gc` would take the files), and every file
    that the manifest of its model lists must lie in the store with the size that the manifest states. Only two small
    files are downloaded.
    """
    if not version.run_id or not tracking.knows(version.run_id):
        return f"stands on the MLflow run {version.run_id or '(none)'}, which was deleted"
    model_id = version.tags.get("mlflow_model_id")
    if model_id and not _has_logged_model(tracking, model_id):
        return f"stands on the MLflow model {model_id}, which was deleted"
    source = tracking.client.get_model_version_download_uri(version.name, version.version)
    repository = tracking.repository(source)
    try:
        with tempfile.TemporaryDirectory() as directory:
            check_direct_way(tracking, repository, _MLMODEL)
            manifest_file, manifest = _read_manifest(repository, directory)
        named = {"model_digest": manifest.content_digest}
        if MANIFEST_DIGEST in version.tags:  # versions of older programs have none
            named[MANIFEST_DIGEST] = manifest.manifest_digest or ""
        for tag, digest in named.items():
            if digest != version.tags.get(tag):
                return f"has the files of another model: {manifest_file} has not the digest of the tag {tag}"
        folder = str(PurePosixPath(manifest_file).parent)
        expected = {f"{folder}/{name}": record.size for name, record in manifest.files.items()}
    except FileNotFoundError as error:
        return f"has lost its files: {error} is missing in its store"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"is no model of this program, or its files are damaged ({error!r})"
    return _fault_of_files(repository, expected)


def _has_logged_model(tracking: Tracking, model_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        tracking.client.get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return True


def download(tracking: Tracking, version: "ModelVersion", folder: Path) -> Path:
    """Bring all files of a version into a folder; return where they lie.

    Raises:
        BackendError: the server or its store failed.
    """
    with tracking.answering():
        source = tracking.client.get_model_version_download_uri(version.name, version.version)
        repository = tracking.repository(source)
        check_direct_way(tracking, repository, _MLMODEL)
        folder.mkdir()
        return Path(repository.download_artifacts("", dst_path=str(folder)))  # type: ignore[no-untyped-call]


def model_folder(stored: Path) -> Path:
    """Where the model artifact lies in the files of a version.

    Raises:
        ArtifactError: they do not say, or name a place elsewhere.
    """
    try:
        flavor = read_yaml(stored / _MLMODEL)["flavors"]["python_function"]
        folder = stored / str(flavor["artifacts"]["model"]["path"])
    except (InputError, KeyError, TypeError) as error:
        raise ArtifactError(f"{stored / _MLMODEL} is not that of a model of this program ({error!r})") from error
    if not folder.resolve().is_relative_to(stored.resolve()):
        raise ArtifactError(f"{stored / _MLMODEL} names a model outside of its own folder: {folder}")
    return folder


def pickled_files(folder: Path) -> list[str]:
    """The files of a folder that hold pickled objects, by name or by content: loading them may run anything."""
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file() and _is_pickled(path)]


def _is_pickled(path: Path) -> bool:
    try:
        if zipfile.is_zipfile(path):  # torch.save, numpy.savez
            with zipfile.ZipFile(path) as archive:
                return any(_is_pickled_stream(archive.open(name), Path(name)) for name in archive.namelist())
        with path.open("rb") as stream:
            return _is_pickled_stream(stream, path)
    except (ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile):
        return True  # what is damaged, or encrypted, may hold anything


def _is_pickled_stream(stream: IO[bytes], name: Path) -> bool:
    start = stream.read(len(_NUMPY))
    if start == _NUMPY:
        stream.seek(0)
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return bool(read(stream)[2].hasobject)
    return name.suffix.lower() in _PICKLED or bool(re.match(rb"\x80[\x02-\x05]", start))


def _fault_of_files(repository: "ArtifactRepository", expected: dict[str, int]) -> str | None:
    present: dict[str, int] = {}
    for folder in {str(PurePosixPath(name).parent) for name in expected}:
        present |= _sizes(repository, folder)
    for name, size in sorted(expected.items()):
        if name not in present:
            return f"has lost its files: {name} is missing in its store"
        if present[name] != size:
            return f"has damaged files: {name} has {present[name]} bytes in its store, expected {size}"
    return None


def _read_manifest(repository: "ArtifactRepository", directory: str) -> tuple[str, Manifest]:
    """Find the model artifact in a stored MLflow model; return where its manifest lies, and what that says."""
    stored = read_yaml(_download(repository, _MLMODEL, directory))["flavors"]["python_function"]
    file = str(PurePosixPath(stored["artifacts"]["model"]["path"], MANIFEST))
    return file, parse_manifest(_download(repository, file, directory).read_bytes(), file)


def read_manifest(tracking: Tracking, version: "ModelVersion") -> Manifest | None:
    """What the manifest of a version's model says; None where it is lost or damaged."""
    source = tracking.client.get_model_version_download_uri(version.name, version.version)
    repository = tracking.repository(source)
    try:
        with tempfile.TemporaryDirectory() as directory:
            check_direct_way(tracking, repository, _MLMODEL)
            return _read_manifest(repository, directory)[1]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _download(repository: "ArtifactRepository", file: str, directory: str) -> Path:
    # every store lists alike, but each fails in its own way for a file that it does not have
    if file not in _sizes(repository, str(PurePosixPath(file).parent)):
        raise FileNotFoundError(file)
    return Path(repository.download_artifacts(file, dst_path=directory))  # type: ignore[no-untyped-call]


def _sizes(repository: "ArtifactRepository", folder: str) -> dict[str, int]:
    listed = repository.list_artifacts(None if folder == "." else folder)
    return {str(file.path): int(file.file_size or 0) for file in listed if not file.is_dir}

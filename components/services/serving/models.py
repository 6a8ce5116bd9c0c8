"""Open a model by its folder, or by a version of the registry."""

import shutil
import tempfile
from pathlib import Path

from components.locations import MODELS
from components.services.lineage.tree import Reference, parse_reference, read_recorded
from components.services.registry.stored_model import download, find_fault, model_folder
from components.services.registry.versions import check_name, find_registered_model
from components.services.tracking.mlflow import Tracking
from dagnn_core.artifacts import MANIFEST, Artifact, read_artifact
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.model.embedder import TrainedModel

PREFIX = "models:/"


def open_model(reference: str, *, cache: Path = MODELS) -> TrainedModel:
    """Open a model, checking every checksum.

    Args:
        reference: folder of a model artifact, or a registered version, such as `models:/dagnn@champion`.
        cache: where the files of versions are kept, by digest; what is there is not downloaded again.

    Raises:
        ArtifactError: the model is missing or damaged.
        InputError: no such version.
        BackendError: the registry or its store cannot be reached.
    """
    path = (
        fetch_model(reference, Tracking.from_environment(), cache) if reference.startswith(PREFIX) else Path(reference)
    )
    return TrainedModel.read(path, verify=True)


def fetch_model(reference: str, tracking: Tracking, cache: Path) -> Path:
    """Bring the model artifact of a registered version to this machine, unless it is there.

    Args:
        reference: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        tracking: the registry.
        cache: folder with one model for each digest.

    Returns:
        Folder of the model artifact.

    Raises:
        InputError: no such version, or its files are not those that were registered.
        BackendError: the registry or its store cannot be reached.
    """
    recorded = read_recorded(tracking, parse_reference(reference))
    digest = recorded.tags.get("model_digest", "")
    folder = cache / digest
    if digest and _is_whole(folder, digest):
        return folder
    with tracking.answering():
        version = tracking.client.get_model_version(recorded.name, recorded.version)
        fault = find_fault(tracking, version)
    if fault is not None:
        raise InputError(f"{recorded.name} {recorded.version} {fault}", "register the model again")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=cache) as temporary:
        stored = model_folder(download(tracking, version, Path(temporary) / "version"))
        if not _is_whole(stored, digest):
            raise InputError(
                f"{recorded.name} {recorded.version} has not the files that were registered", "register it again"
            )
        if folder.exists():  # damaged; or another process was faster, whose files are the same
            shutil.rmtree(folder)
        stored.rename(folder)
    return folder


def find_version(reference: Reference, tracking: Tracking) -> tuple[str, str, str]:
    """Look up which version a reference means now; nothing is downloaded.

    Args:
        reference: a version, or the one that has an alias.
        tracking: the registry.

    Returns:
        Name of the registered model, number of the version, content digest of its model.

    Raises:
        InputError: there is no such version, or it is of another program.
        BackendError: the registry cannot be reached.
    """
    check_name(reference.name)
    tracking.check_exists()
    with tracking.answering():
        registered = find_registered_model(tracking.client, reference.name)
        number = reference.version or (str(registered.aliases.get(reference.alias, "")) if registered else "")
        if registered is None or not number:
            raise InputError(f"{tracking.address} has no {reference}", "run `dagnn register` and `dagnn promote` first")
        version = tracking.client.get_model_version(reference.name, number)
    digest = version.tags.get("model_digest", "")
    if not digest:
        raise InputError(
            f"{reference.name} {number} is of another program: it has no model_digest", "register it again"
        )
    return reference.name, number, digest


def _is_whole(folder: Path, digest: str) -> bool:
    if not (folder / MANIFEST).is_file():
        return False
    try:
        found: Artifact = read_artifact(folder, "model", verify=True)
    except ArtifactError:
        return False
    return found.content_digest == digest

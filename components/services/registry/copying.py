"""Copy a version into another registry: its files to the byte, tags, card, report and lineage.

What passed a gate is what is served: nothing is made again. Only `MLmodel` differs, which names MLflow's own records.
"""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from components.services.registry.models import ensure_registered_model
from components.services.registry.stored_model import download, find_fault, model_folder
from components.services.registry.versions import (
    CHALLENGER,
    MODEL_ID,
    add_version,
    check_name,
    find_whole,
    log_evaluation,
)
from components.services.tracking.mlflow import REQUEST, Tracking
from dagnn_core.artifacts import Artifact, read_artifact, sha256_of
from dagnn_core.errors import ArtifactError, BackendError, InputError
from dagnn_core.records import read_metrics

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

COPIED_FROM = "copied_from"
"""Tag of a version: the registry and the version that it is a copy of."""
_OWN_TAGS = {MODEL_ID, "mlflow_run_id", "registered_by", COPIED_FROM}
"""What each registry says of its own records."""
_MLMODEL = "MLmodel"
_LOGIN = {f"MLFLOW_TRACKING_{name}": f"DAGNN_TO_{name}" for name in ("USERNAME", "PASSWORD", "TOKEN")}
"""Variable that MLflow reads -> the one that has its value for the other registry."""


class Copy(NamedTuple):
    """A version that was copied."""

    name: str
    version: str
    """Its number in the other registry."""
    digest: str
    """Content digest of the model."""
    source: str
    is_new: bool
    """Whether it was not there before."""


def other_registry(source: Tracking, uri: str) -> Tracking:
    """The registry that a version goes to, with the account of DAGNN_TO_USERNAME, ...; unset: that of the source.

    Args:
        source: where the version is.
        uri: of the other registry.
    """
    account = os.environ.get("DAGNN_TO_USERNAME") if _has_login() else source.account
    login = ("DAGNN_TO_USERNAME", "DAGNN_TO_PASSWORD")
    return replace(source, uri=uri, account=account or None, option="--to", login=login)


def _has_login() -> bool:
    return any(os.environ.get(own) for own in _LOGIN.values())


@contextmanager
def _logged_in() -> Iterator[None]:
    """Use the account of the other registry alone; MLflow reads the variables at each request."""
    if not _has_login():
        yield
        return
    before = {name: os.environ.pop(name, None) for name in _LOGIN}
    os.environ.update({name: os.environ[own] for name, own in _LOGIN.items() if os.environ.get(own)})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def copy_version(source: Tracking, version: "ModelVersion", destination: Tracking) -> Copy:
    """Copy a version, check every file of the copy, and make it the challenger there; equal content keeps its version.

    Args:
        source: where the version is.
        version: the version.
        destination: where it goes.

    Raises:
        InputError: both are the same registry; the version has lost files, or its files are not what was registered,
            here or in a copy that is there already.
        BackendError: a server or a store failed, or the copy differs; there is no version then, and the same command
            copies again.
    """
    same = InputError(f"{destination.address} is the registry that the version is in", "name another one as --to")
    if source.uri.rstrip("/") == destination.uri.rstrip("/"):
        raise same
    name = str(version.name)
    check_name(name)
    with source.answering():
        fault = find_fault(source, version)
    if fault:
        raise InputError(f"{name} {version.version} {fault}", "register the model again")
    with tempfile.TemporaryDirectory() as folder:
        stored, model = _fetch(source, version, Path(folder) / "version", remedy="register it again")
        digest = model.content_digest
        report = _download_report(source, version, Path(folder) / "run")
        origin, description = f"{source.address} {name}/{version.version}", _description(source, name)
        with _logged_in():
            with destination.answering():
                _ = destination.client
                ensure_registered_model(destination.client, name, description)
                known = find_whole(destination, name, digest)
            if known and known.run_id == version.run_id:  # by another address
                raise same
            if known is None:
                number = _add_copy(version, destination, stored=stored, model=model, report=report, origin=origin)
            else:
                remedy = "delete that version there, and run the same command again"
                _fetch(destination, known, Path(folder) / "there", remedy=remedy)
                number = str(known.version)
            with destination.answering():
                for tag, value in _tags(version, origin).items():
                    destination.client.set_model_version_tag(name, number, tag, value)
                destination.client.set_registered_model_alias(name, CHALLENGER, number)
    return Copy(name, number, digest, origin, known is None)


def _add_copy(
    version: "ModelVersion", destination: Tracking, *, stored: Path, model: Artifact, report: Artifact, origin: str
) -> str:
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    client, name, request = destination.client, str(version.name), uuid4().hex
    metrics = read_metrics(report.file("metrics.json"), report.remedy)
    with destination.resumed_run(model) as run, destination.answering():
        run.log_metrics(metrics)
        client.log_artifacts(run.run_id, str(report.path), "report")
        experiment = client.get_run(run.run_id).info.experiment_id
        found = f"tags.`{REQUEST}` = '{request}'"
        logged = destination.make_once(
            lambda: next(iter(client.search_logged_models([experiment], found, max_results=1)), None),
            lambda: client.create_logged_model(
                experiment, name=name, source_run_id=run.run_id, tags={REQUEST: request}
            ),
        )
        renamed = {version.tags.get(MODEL_ID, ""): logged.model_id, version.run_id or "": run.run_id}
        _rename(stored / _MLMODEL, renamed)
        client.log_model_artifacts(logged.model_id, str(stored))
        _check_copy(destination, str(logged.artifact_location), stored)
        client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        client.log_outputs(run.run_id, [LoggedModelOutput(logged.model_id, step=0)])
        log_evaluation(client, run, logged.model_id, metrics, report.content["data"])
        return add_version(
            destination,
            name,
            model.content_digest,
            model_id=logged.model_id,
            run_id=run.run_id,
            tags=_tags(version, origin),
            description=version.description or "",
        )


def _tags(version: "ModelVersion", origin: str) -> dict[str, str]:
    return {tag: value for tag, value in version.tags.items() if tag not in _OWN_TAGS} | {COPIED_FROM: origin}


def _description(tracking: Tracking, name: str) -> str:
    with tracking.answering():
        return str(tracking.client.get_registered_model(name).description or "")


def _download_report(tracking: Tracking, version: "ModelVersion", folder: Path) -> Artifact:
    """The report that the version was registered with, from its run.

    Raises:
        InputError: it is gone, or was replaced.
        BackendError: the server failed.
    """
    folder.mkdir()
    run_id = version.run_id or ""
    with tracking.answering():
        found = [file.path for file in tracking.client.list_artifacts(run_id)]
        if "report" in found:
            tracking.client.download_artifacts(run_id, "report", str(folder))
    try:
        report = read_artifact(folder / "report", "report", verify=True)
    except ArtifactError as error:
        raise InputError(
            f"the run of {version.name} {version.version} has lost its report", "register the model again"
        ) from error
    if report.content_digest != version.tags.get("report_digest"):
        raise InputError(
            f"the run of {version.name} {version.version} has the report of another evaluation by now",
            "register the model again",
        )
    return report


def _fetch(tracking: Tracking, version: "ModelVersion", folder: Path, *, remedy: str) -> tuple[Path, Artifact]:
    """Download a version whose model is the one that was registered.

    Returns:
        The folder of its files, and the model in it.

    Raises:
        InputError: it is another one, or damaged.
        BackendError: the server failed.
    """
    stored = download(tracking, version, folder)
    fault = InputError(
        f"{version.name} {version.version} in {tracking.address} has not the files that were registered", remedy
    )
    try:
        model = read_artifact(model_folder(stored), "model", verify=True)
    except ArtifactError as error:
        raise fault from error
    if model.content_digest != version.tags.get("model_digest"):
        raise fault
    return stored, model


def _rename(file: Path, names: dict[str, str]) -> None:
    """Put the ids of the other registry's records in the place of those of this one."""
    text = file.read_text(encoding="utf-8")
    for old, new in names.items():
        if old:
            text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")


def _check_copy(destination: Tracking, uri: str, stored: Path) -> None:
    """Fetch the copy, and compare every file.

    Raises:
        BackendError: one differs, or is missing.
    """
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(destination.repository(uri).download_artifacts("", dst_path=folder))  # type: ignore[no-untyped-call]
        one, other = _digests(stored), _digests(copied)
    if wrong := [name for name in one if other.get(name) != one[name]]:
        raise BackendError(
            f"the copy in {destination.address} differs from the version in {len(wrong)} of {len(one)} files, such as "
            f"{wrong[0]}",
            "run the same command again",
        )


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}

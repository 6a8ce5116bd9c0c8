"""Reports of evaluations, by their folder, by a run of MLflow, or by a version of the registry."""

import re
import tempfile
from pathlib import Path

from components.services.lineage.tree import parse_reference, read_recorded
from components.services.registry.versions import CHAMPION, check_name, find_registered_model
from components.services.tracking.files import check_direct_way
from components.services.tracking.mlflow import Tracking
from dagnn_core.artifacts import MANIFEST, Artifact, read_artifact
from dagnn_core.errors import ArtifactError, DagnnError, InputError
from dagnn_core.reports.comparison.champion import BesideChampion
from dagnn_core.text import quote

KIND = "report"
_RUN = re.compile(r"(?:runs:/)?(?P<run>[0-9a-f]{32})(?:/report)?")


def open_report(reference: str, tracking: Tracking, folder: Path) -> Artifact:
    """Open a report, checking every checksum.

    Args:
        reference: folder of a report artifact; id of an MLflow run, also as `runs:/ID`; or a version, such as
            `models:/dagnn@champion`, `dagnn/3` or `dagnn`, whose champion is meant.
        tracking: where runs and versions are; asked for them alone.
        folder: for a report that is downloaded.

    Raises:
        ArtifactError: the report is missing or damaged.
        InputError: no such run or version, or its run has no report of its model.
        BackendError: the server or its store failed.
    """
    if Path(reference).exists():
        return read_artifact(Path(reference), KIND, verify=True)
    if match := _RUN.fullmatch(reference):
        return _download(tracking, match["run"], f"the run {match['run']}", folder)
    if reference.startswith(("/", "./", "../")):
        return read_artifact(Path(reference), KIND)  # says what is missing
    try:
        version = parse_reference(reference)
        check_name(version.name)
    except InputError as error:
        raise InputError(
            f"{quote(reference)} is no report",
            "give a folder, the id of an MLflow run, or a version: NAME, NAME@ALIAS or NAME/VERSION",
        ) from error
    recorded = read_recorded(tracking, version)
    if not recorded.run_id:
        raise InputError(f"{version} names no MLflow run, so it has no report", "register the model again")
    artifact = _download(tracking, recorded.run_id, f"{recorded.name}/{recorded.version}", folder)
    digest = artifact.provenance.get("ancestors", {}).get("model")
    if digest != recorded.digests.get("model"):
        raise InputError(
            f"the report in the run of {recorded.name}/{recorded.version} is about another model "
            f"({str(digest)[:12]}, expected {str(recorded.digests.get('model'))[:12]})",
            "evaluate and register the model again",
        )
    return artifact


def find_beside_champion(tracking: Tracking, name: str, *, model: Artifact, report: Artifact) -> BesideChampion | None:
    """Compare a model's report with that of the present champion.

    Args:
        tracking: where the registry is.
        name: of the registered model.
        model: the model.
        report: its report.

    Returns:
        The comparison, or why there is none, such as other test items; None where there is no champion, or the model
        is the champion.

    Raises:
        BackendError: the registry failed.
    """
    with tracking.answering():
        registered = find_registered_model(tracking.client, name)
        number = registered.aliases.get(CHAMPION) if registered else None
        if number is None:
            return None
        version = tracking.client.get_model_version(name, str(number))
    if version.tags.get("model_digest") == model.content_digest:
        return None
    champion = f"{name}/{number}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = open_report(f"models:/{champion}", tracking, Path(folder) / KIND)
            return BesideChampion.of(report, champion, found)
        except DagnnError as error:
            fault = error.what.replace(str(Path(folder) / KIND / KIND), "the champion's report")
            return BesideChampion.impossible(champion, fault.replace(str(report.path), "the model's report"))


def _download(tracking: Tracking, run_id: str, what: str, folder: Path) -> Artifact:
    """Bring the report in a run to this machine."""
    tracking.check_exists()
    with tracking.answering():
        if not tracking.knows(run_id):
            raise InputError(f"{what}: {tracking.address} has no run {run_id}, or it was deleted", "name another one")
        repository = tracking.repository(str(tracking.client.get_run(run_id).info.artifact_uri))
        if MANIFEST not in {Path(str(file.path)).name for file in repository.list_artifacts(KIND)}:
            raise InputError(f"{what} has no report", "evaluate its model: dvc repro evaluate")
        check_direct_way(tracking, repository, f"{KIND}/{MANIFEST}")
        folder.mkdir(parents=True)
        path = repository.download_artifacts(KIND, dst_path=str(folder))  # type: ignore[no-untyped-call]
    try:
        return read_artifact(Path(path), KIND, verify=True)
    except ArtifactError as error:
        raise ArtifactError(f"the report of {what}: {error.what}", "evaluate its model again") from error

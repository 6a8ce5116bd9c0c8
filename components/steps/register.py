"""Step `register`: a model and its report become a version in the model registry.

It writes outside the workspace, so it is no DVC stage; its command line is `dagnn register`.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from components.services.lineage.reports import find_beside_champion
from components.services.promotion.gate import judge_floors
from components.services.registry.versions import CHALLENGER, RegisteredVersion, mark_finished, register_version
from components.services.tracking.mlflow import Tracking
from dagnn_core.artifacts import Artifact, read_artifact, rerun
from dagnn_core.config.register import GateConfig, RegisterConfig
from dagnn_core.errors import ArtifactError, CheckFailedError
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.records import read_metrics
from dagnn_core.reports.comparison.champion import BesideChampion
from dagnn_core.retrieval.directions import MAP_METRICS

log = logging.getLogger(__name__)

COMPARISON = "comparison/champion.html"
"""In the model's run: the model beside the champion of the time when it was registered."""


def run(*, model: Path, report: Path, params: RegisterConfig, tracking: Tracking) -> RegisteredVersion:
    """Register a model with alias `challenger`; the same model again keeps its version.

    Args:
        model: model artifact.
        report: report artifact of this very model.
        params: the registered model's name, and the licence of the data; below the floors of `gate` nothing is
            registered.
        tracking: where the registry is.

    Raises:
        ArtifactError: an artifact is missing or damaged, or the report is about another model.
        CheckFailedError: the report's metrics are below the floors.
        InputError: a name that MLflow does not take.
        BackendError: the server cannot be reached.
    """
    trained = TrainedModel.read(model, verify=True)
    evaluated = read_artifact(report, "report", verify=True)
    _check_same_model(trained.artifact, evaluated)
    metrics = read_metrics(evaluated.file("metrics.json"), evaluated.remedy, MAP_METRICS)
    _check_floors(report, metrics, params.gate)
    with tracking.resumed_run(trained.artifact) as tracked:
        with tracking.answering():
            tracking.client.log_artifacts(tracked.run_id, str(evaluated.path), "report")
        beside = find_beside_champion(tracking, params.model_name, model=trained.artifact, report=evaluated)
        if beside and beside.page:
            with tracking.answering():
                tracking.client.log_text(tracked.run_id, beside.page, COMPARISON)
        registered = register_version(
            tracking,
            tracked,
            name=params.model_name,
            model=trained,
            report=evaluated,
            metrics=metrics,
            beside=beside,
            data_licence=params.data_licence,
        )
    mark_finished(tracking, *registered, "register")
    if beside:
        log.info("%s", _words(beside))
    log.info("%s version %s, alias %s (%s)", *registered, CHALLENGER, tracking.address)
    return registered


def _words(beside: BesideChampion) -> str:
    """How the model does beside the champion, in one line."""
    if beside.fault:
        return f"not compared with the champion, {beside.champion}: {beside.fault}"
    changes = (
        f"{name} {mean:+.4f} ({low:+.4f} to {high:+.4f})" for name, (mean, low, high) in beside.differences.items()
    )
    return f"MAP against the champion, {beside.champion}: {', '.join(changes)}"


def _check_floors(report: Path, metrics: Mapping[str, float], gate: GateConfig) -> None:
    failed = [check for check in judge_floors(metrics, gate) if check.verdict == "failed"]
    if failed:
        below = ", ".join(f"{check.name} {check.value:.4f} is below {check.limit}" for check in failed)
        raise CheckFailedError(
            f"{report}: {below}",
            "nothing is registered: train a better model, or correct the floors in register.gate of params.yaml",
        )


def _check_same_model(model: Artifact, report: Artifact) -> None:
    if report.provenance.get("ancestors", {}).get(model.kind) != model.content_digest:
        raise ArtifactError(f"{report.path} is the report of another model than {model.path}", rerun("evaluate"))
    if "data" not in report.content:
        raise ArtifactError(f"{report.path} was made by an older program", rerun("evaluate"))

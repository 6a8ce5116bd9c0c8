"""Step `register`: a model and its report become a version in the model registry.

It writes outside the workspace, so it is no DVC stage; its command line is `dagnn register`.
"""

import json
import logging
from pathlib import Path

from components.services.registry import CHALLENGER, RegisteredVersion, register_version
from components.services.tracking import Tracking
from dagnn_core.artifacts import Artifact, read_artifact
from dagnn_core.config import RegisterConfig
from dagnn_core.errors import ArtifactError
from dagnn_core.model import TrainedModel

log = logging.getLogger(__name__)


def run(*, model: Path, report: Path, params: RegisterConfig, tracking: Tracking) -> RegisteredVersion:
    """Register a model with alias `challenger`; the same model again keeps its version.

    Args:
        model: model artifact.
        report: report artifact of this very model.
        params: the registered model's name, and the licence of the data.
        tracking: where the registry is.

    Raises:
        ArtifactError: an artifact is missing or damaged, or the report is about another model.
        InputError: a name that MLflow does not take.
        SurroundingsError: the server cannot be reached.
    """
    trained = TrainedModel.read(model, verify=True)
    evaluated = read_artifact(report, "report", verify=True)
    _check_same_model(trained.artifact, evaluated)
    metrics = json.loads(evaluated.file("metrics.json").read_text(encoding="utf-8"))
    with tracking.resumed_run(trained.artifact) as tracked:
        with tracking.answering():
            tracking.client.log_artifacts(tracked.run_id, str(evaluated.path), "report")
        registered = register_version(
            tracking,
            tracked,
            name=params.model_name,
            model=trained,
            report=evaluated,
            metrics=metrics,
            data_licence=params.data_licence,
        )
    log.info("%s version %s, alias %s (%s)", *registered, CHALLENGER, tracking.address)
    return registered


def _check_same_model(model: Artifact, report: Artifact) -> None:
    if report.provenance["ancestors"].get(model.kind) != model.content_digest:
        raise ArtifactError(f"{report.path} is the report of another model than {model.path}; run `dvc repro evaluate`")
    if "data" not in report.content:
        raise ArtifactError(f"{report.path} was made by an older program; run `dvc repro evaluate`")

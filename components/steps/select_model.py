"""Step `select_model`: of the models of several trainings, the best on the validation split.

Only a Kubeflow run that trains with several seeds has it.
"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from dagnn_core.artifacts import read_artifact
from dagnn_core.drafts import draft_of
from dagnn_core.errors import InputError
from dagnn_core.model.files import KIND
from dagnn_core.records import read_metrics

log = logging.getLogger(__name__)

_METRIC = "val_map_mean"


def run(*, models: Sequence[Path], model_out: Path) -> None:
    """Copy the model with the highest validation MAP; of equal ones, the first.

    Args:
        models: model artifacts, trained on the same features.
        model_out: where the copy goes.

    Raises:
        ArtifactError: a model is missing or damaged.
        InputError: there is no model.
        DiskError: the disk refuses a file.
    """
    if not models:
        raise InputError("there is no model to select from, expected one of each training")
    artifacts = [read_artifact(path, KIND, verify=True) for path in models]
    values = [
        read_metrics(artifact.file("val_metrics.json"), artifact.remedy, [_METRIC])[_METRIC] for artifact in artifacts
    ]
    best = max(range(len(models)), key=values.__getitem__)
    # the whole artifact, so that it keeps its provenance: which training and which MLflow run it came from
    model_out.parent.mkdir(parents=True, exist_ok=True)
    with draft_of(model_out) as draft:
        shutil.copytree(artifacts[best].path, draft, dirs_exist_ok=True)
    log.info("%s of %d models: %s; the best is taken", _METRIC, len(models), ", ".join(f"{x:.4f}" for x in values))

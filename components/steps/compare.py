"""Step `compare`: the new model beside the champion, on both test splits; a part of retraining on a cluster."""

import logging
import tempfile
from dataclasses import asdict
from pathlib import Path

from components.services.promotion.datasets import dataset_digest
from components.services.promotion.side_by_side import SideBySide, measure_on_both
from components.services.registry.versions import CHAMPION
from components.services.serving.models import fetch_model
from components.services.tracking.mlflow import Tracking
from dagnn_core.artifacts import write_json
from dagnn_core.config.register import RegisterConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.model.embedder import TrainedModel

log = logging.getLogger(__name__)


def run(
    *, dataset: Path, model: Path, champion_dataset: Path, params: RegisterConfig, tracking: Tracking
) -> list[SideBySide]:
    """Measure a model and the champion on two test splits; the MLflow run of the training keeps it.

    Args:
        dataset: the data set that the model was trained on.
        model: the model.
        champion_dataset: the champion's data set; left out where another version is champion by now.
        params: name of the registered model, and how to compare.
        tracking: where runs and registry are.

    Raises:
        InputError: there is no champion any more, its files are gone, or the model cannot encode the data.
        BackendError: a server or a store failed.
    """
    challenger = TrainedModel.read(model, verify=True)
    with tempfile.TemporaryDirectory() as folder:
        models, out = Path(folder) / "models", Path(folder) / "comparison"
        reference = f"models:/{params.model_name}@{CHAMPION}"
        champion = TrainedModel.read(fetch_model(reference, tracking, models), verify=True)
        old: Dataset | None = Dataset.read(champion_dataset)
        if old and old.artifact.content_digest != dataset_digest(champion.artifact):
            log.warning("another version is champion by now, whose data is not at hand: comparing on new data alone")
            old = None
        compared = measure_on_both(Dataset.read(dataset), old, challenger, champion, params.gate)
        out.mkdir()
        write_json(out / "comparison.json", [asdict(entry) for entry in compared])
        with tracking.resumed_run(challenger.artifact) as mlflow_run:
            mlflow_run.log_directory(out, "comparison")
    for entry in compared:
        means = [side.get("map_mean") for side in (entry.challenger, entry.champion)]
        said = [f"{mean:.4f}" if mean is not None else f"not measured: {entry.fault}" for mean in means]
        log.info("%s, %d items: mean MAP of the challenger %s, of the champion %s", entry.data, entry.num_items, *said)
    return compared

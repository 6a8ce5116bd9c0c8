"""The steps in pods where Kubeflow's own MLflow integration has opened a run for each: only a training adopts its own.

The variables, the tags and the nesting are those of Kubeflow Pipelines 2.17 (see `tests/pipeline/kfp_recorded`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from components.services.tracking.mlflow import Tracking
from components.steps import evaluate, record_outcome, register, train
from dagnn_core.config.evaluate import EvaluateConfig
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.register import RegisterConfig
from dagnn_core.config.train import TrainConfig

PIPELINE_RUN = "b1997ba5-abb3-41ba-ab62-d003f1b7b9c9"


class Pod(NamedTuple):
    """What Kubeflow has made for a task: a run below that of the pipeline run."""

    client: MlflowClient
    run_id: str

    @property
    def run(self) -> Run:
        return self.client.get_run(self.run_id)

    @property
    def content(self) -> tuple[object, ...]:
        """What a task could have changed."""
        info, data = self.run.info, self.run.data
        files = [entry.path for entry in self.client.list_artifacts(self.run_id)]
        return info.status, info.end_time, data.params, data.metrics, data.tags, files


@pytest.fixture
def enter(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Pod]:
    """Set the environment of a task's pod, as recorded."""
    client = tracking.client
    experiment = client.create_experiment("dagnn")
    parent = client.create_run(experiment, tags={"kfp.pipeline_run_id": PIPELINE_RUN}).info.run_id

    def do(task: str) -> Pod:
        tags = {"mlflow.parentRunId": parent, "mlflow.runName": task}
        run_id = client.create_run(experiment, tags=tags).info.run_id
        monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "dagnn")
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
        monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
        monkeypatch.setenv("DAGNN_PIPELINE_RUN", PIPELINE_RUN)
        return Pod(client, run_id)

    return do


@pytest.mark.slow
def test_the_training_alone_adopts_its_run(
    enter: Callable[[str], Pod], inputs: dict[str, Path], tmp_path: Path
) -> None:
    model, report = tmp_path / "model", tmp_path / "report"
    pod = enter("train")
    train.run(
        **inputs,
        model_params=ModelConfig(embedding_dim=4, hops=1),
        params=TrainConfig(epochs=2),
        tracking=Tracking.from_environment(),
        work=tmp_path / "work",
        model_out=model,
    )
    training = pod.run
    assert training.info.status == "FINISHED" and training.data.params["train.epochs"] == "2"
    assert training.data.tags["pipeline_run"] == PIPELINE_RUN and "mlflow.parentRunId" in training.data.tags

    pod = enter("evaluate")
    before = pod.content
    evaluate.run(
        dataset=inputs["features"].parent / "dataset",
        features=inputs["features"],
        model=model,
        params=EvaluateConfig(),
        tracking=Tracking.from_environment(),
        report_out=report,
    )
    assert pod.content == before
    pod = enter("register")
    before = pod.content
    params = RegisterConfig(model_name="scenes", data_licence="CC BY 4.0")
    register.run(model=model, report=report, params=params, tracking=Tracking.from_environment())
    assert pod.content == before
    pod = enter("record-outcome")
    before = pod.content
    tracking = Tracking.from_environment()
    record_outcome.run(pipeline_run=PIPELINE_RUN, state="SUCCEEDED", error="", webhook=None, tracking=tracking)
    assert pod.content == before

    # what the later steps have to say is in the run of the training
    found = tracking.client.get_run(training.info.run_id)
    assert "map_mean" in found.data.metrics and found.data.tags["pipeline_state"] == "SUCCEEDED"
    version = tracking.client.get_model_version("scenes", "1")
    assert version.run_id == training.info.run_id
    parent = found.data.tags["mlflow.parentRunId"]
    assert version.tags["kubeflow_mlflow_run"] == parent
    assert tracking.client.get_run(parent).data.tags["model_version"] == "scenes/1"
    assert len(tracking.client.search_runs([found.info.experiment_id])) == 5, "no run beside those of Kubeflow"

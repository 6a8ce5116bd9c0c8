"""A search as a cluster gets it, run in local processes: workers at the same time that share a database.

kfp's local runner leaves out what Kubernetes would do (resources, secrets, volumes); all else is as on a cluster, with
real PostgreSQL and MLflow servers.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from components.services.tracking.mlflow import PARENT
from components.steps.tune import SEARCH
from tests.fixtures.mlflow_server import mlflow_server

pytestmark = pytest.mark.slow

SPACE = {
    "trials": 6,
    "seeds": [7],
    "prune": False,
    "model": {"hops": [1, 2, 3]},
    "train": {"lr": {"low": 1e-4, "high": 1e-1, "log": True}, "epochs": 8},
    "label_graph": {"threshold": {"low": 0.2, "high": 0.6}},
}
RUN = """
import json, sys
from pathlib import Path
from kfp import local
from components.params_file import load_params
from dagnn_core.config.space import parse_space
from pipeline.graph import PipelineOptions, WorkersOfSearch, build_pipeline
from pipeline.images import Images
from pipeline.local import reliable_processes
from pipeline.target import Target
space, mlflow = json.loads(sys.argv[1]), sys.argv[2]
pipeline = build_pipeline(
    images=Images("python", "python"),
    params=load_params(Path("params.yaml")),
    target=Target(mlflow_uri=mlflow, tune_secret="search", kubeflow_url=""),
    options=PipelineOptions(search=WorkersOfSearch(parse_space(space), "s", 2)),
)
local.init(local.SubprocessRunner(use_venv=False), pipeline_root="runs")
with reliable_processes():
    pipeline(work=".dagnn/work", cache=".dagnn/cache")
"""


def test_workers_share_a_search(
    make_checkout: Callable[[], Any], postgres: str, empty_database: Path, tmp_path: Path
) -> None:
    checkout = make_checkout()
    shutil.copy(empty_database, tmp_path)
    with mlflow_server(f"sqlite:///{tmp_path}/mlflow.db", tmp_path) as tracking:
        checkout.environment |= {"DAGNN_TUNE_STORAGE": postgres, "PYTHONPATH": str(checkout.root)}
        with checkout.start(sys.executable, "-c", RUN, json.dumps(SPACE), tracking) as process:
            output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output
        assert "mlflow@" not in output  # the account of the database
        client = MlflowClient(tracking)
        experiment = client.get_experiment_by_name("dagnn")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id], f"tags.`{SEARCH}` = 's'")
    (parent,) = (run for run in runs if PARENT not in run.data.tags)
    trials = [run for run in runs if run.data.tags.get(PARENT) == parent.info.run_id]
    assert len(trials) == 6 == len(runs) - 1
    assert {run.info.status for run in runs} == {"FINISHED"}

    pages = sorted((checkout.root / "runs").rglob("search_out/tuning.html"))
    records = [json.loads(page.with_name("tuning.json").read_text()) for page in pages]
    assert len(records) == 2
    last = max(records, key=lambda record: sum(trial["state"] == "finished" for trial in record["trials"]))
    assert [trial["state"] for trial in last["trials"]] == ["finished"] * 6
    best = max(last["trials"], key=lambda trial: trial["val_map"])
    assert last["found"] == best["values"] | {"train.epochs": 8}
    assert output.count(" of 6: trial ") == 6

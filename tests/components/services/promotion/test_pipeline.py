"""The pipeline of `dagnn promote --target`, run in local processes: the gate on a real version and its data set."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components.services.data_versions.layout import folder_digest
from components.services.registry.versions import CHAMPION
from dagnn_core.config.register import GateConfig, RegisterConfig
from dagnn_core.config.section import section_json
from pipeline.promotion import read_verdict
from tests.components.conftest import Scenes
from tests.fixtures.locations import ROOT
from tests.fixtures.mlflow_server import mlflow_server

pytestmark = pytest.mark.slow
PROMOTE = """
import json, sys
from kfp import local
from pipeline.images import Images
from pipeline.local import reliable_processes
from pipeline.promotion import build_promotion
from pipeline.target import Target
given = json.loads(sys.argv[1])
local.init(local.SubprocessRunner(use_venv=False), pipeline_root="runs")
with reliable_processes():
    build_promotion(images=Images("python", "python"), target=Target(mlflow_uri=given["mlflow"]))(**given["parameters"])
"""


def promote(folder: Path, mlflow: str, dataset: Path, *, run_id: str, version: str, register: RegisterConfig) -> None:
    parameters = {"name": "boats", "version": version, "dataset_uri": str(dataset), "reason": "ticket 7"}
    parameters["register"] = section_json(register)
    variables = os.environ | {"DAGNN_PIPELINE_RUN": run_id, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROMOTE, json.dumps({"mlflow": mlflow, "parameters": parameters})],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def commit_lock(folder: Path, model: Path) -> None:
    """A repository whose dvc.lock lists the model: a version of a cluster has an image instead."""
    outs = [{"path": "artifacts/model", "md5": folder_digest(model), "hash": "md5"}]
    YAML().dump({"schema": "2.0", "stages": {"train": {"cmd": "train", "outs": outs}}}, folder / "dvc.lock")
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "--quiet"], ["add", "dvc.lock"], ["commit", "--quiet", "--message", "Train"]):
        subprocess.run([*git, *command], cwd=folder, check=True)


def test_a_version_passes_the_gate_or_is_refused(scenes: Scenes, tmp_path: Path) -> None:
    scenes.register("boats", "weak", dataset_uri="s3://runs/7/dataset_out")
    params = RegisterConfig(gate=GateConfig(max_drop_i2t=0.1, max_drop_t2i=0.1, max_slice_drop=0.3))
    unreachable = RegisterConfig(gate=GateConfig(min_map_i2t=0.999))
    (tmp_path / "files").mkdir()
    commit_lock(tmp_path, scenes.models["weak"])
    with mlflow_server(scenes.tracking.uri, tmp_path / "files") as url:
        data = scenes.datasets["scenes"]
        promote(tmp_path, url, data, run_id="run-1", version="1", register=unreachable)
        refused = read_verdict(scenes.tracking, name="boats", version="1", run_id="run-1")
        promote(tmp_path, url, data, run_id="run-2", version="1", register=params)
    assert not refused.accepted and refused.reason.startswith("ticket 7; pipeline run run-1; ")
    decision = read_verdict(scenes.tracking, name="boats", version="1", run_id="run-2")
    assert decision.accepted, decision.reason
    tags = scenes.tracking.client.get_model_version("boats", "1").tags
    assert tags["promote_run"] == "run-2"
    assert str(scenes.tracking.client.get_model_version_by_alias("boats", CHAMPION).version) == "1"

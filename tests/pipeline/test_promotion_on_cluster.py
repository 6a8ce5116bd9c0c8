"""`dagnn promote --target`, whole, against the contract server and a real registry; others test the gate."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.services.promotion.promotion import promote
from components.services.registry.versions import CHALLENGER, CHAMPION
from components.services.tracking.mlflow import Tracking
from tests.pipeline.conftest import Dagnn
from tests.pipeline.kfp_server import KubeflowServer, Request

pytestmark = pytest.mark.usefixtures("no_cluster")
URI = "s3://runs/v2/artifacts/dagnn/run-7/dataset/dataset_out"


@pytest.fixture
def tracking(dagnn: Dagnn, empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    """A registry with two versions of `dagnn`, of which the second, the challenger, was trained on a cluster."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    tracking = Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    client = tracking.client
    client.create_registered_model("dagnn")
    for tags in ({}, {"dataset_uri": URI}):
        version = client.create_model_version("dagnn", source="file:///nowhere", tags=tags).version
    client.set_registered_model_alias("dagnn", CHALLENGER, version)
    return tracking


def on_create_run(server: KubeflowServer, act: Callable[[dict[str, Any]], None]) -> None:
    """Have something happen when a run is started, as its tasks would do it."""

    def create_and_act(request: Request) -> dict[str, Any]:
        run = KubeflowServer.RunService_CreateRun(server, request)
        act(run)
        return run

    server.RunService_CreateRun = create_and_act  # type: ignore[method-assign]
    server.states = [{"state": "SUCCEEDED"}]


def refuse(tracking: Tracking) -> Callable[[dict[str, Any]], None]:
    """What the task does: the version has no files, so it is refused, and the record names the run."""

    def act(run: dict[str, Any]) -> None:
        number = run["runtime_config"]["parameters"]["version"]
        why = f"first of March; pipeline run {run['run_id']}"
        promote(tracking, name="dagnn", version=number, examine=lambda *_: pytest.fail("not asked"), why=why)

    return act


def test_the_challenger_is_submitted_with_its_data_set(
    server: KubeflowServer, dagnn: Dagnn, tracking: Tracking
) -> None:
    done = dagnn("promote", "--target", "kind", "--reason", "first of March", "--adopt", "--service-account", "tasks")
    assert (done.status, done.error) == (0, "")
    (run,) = server.runs.values()
    parameters = run["runtime_config"]["parameters"]
    assert json.loads(parameters.pop("register"))["model_name"] == "dagnn"
    assert parameters == {
        "name": "dagnn",
        "version": "2",
        "dataset_uri": URI,
        "reason": "first of March",
        "adopt": "yes",
    }
    assert run["service_account"] == "tasks"
    assert f"dataset  {URI}\n" in done.out and f"run_id   {run['run_id']}\n" in done.out
    (pipeline,) = server.pipelines.values()
    assert pipeline["display_name"] == "dagnn-promote"


def test_a_second_promotion_uses_the_same_version_of_the_pipeline(
    server: KubeflowServer, dagnn: Dagnn, tracking: Tracking
) -> None:
    assert dagnn("promote", "--target", "kind").status == 0
    tracking.client.set_model_version_tag("dagnn", "1", "dataset_uri", "s3://runs/other/dataset_out")
    facts = json.loads(dagnn("promote", "--target", "kind", "--version", "1", "--json").out)
    assert (facts["version"], facts["dataset"]) == ("1", "s3://runs/other/dataset_out")
    assert [len(kind) for kind in (server.pipelines, server.versions, server.runs)] == [1, 1, 2]
    spec, platform = yaml.safe_load_all(next(iter(server.packages.values())))
    importer = spec["deploymentSpec"]["executors"]["exec-importer"]["importer"]
    assert importer["artifactUri"] == {"runtimeParameter": "uri"} and not importer.get("reimport")
    (executor,) = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    assert executor["secretAsEnv"][0]["secretName"] == "mlflow-tasks"


def test_wait_exits_as_the_gate_decides(server: KubeflowServer, dagnn: Dagnn, tracking: Tracking) -> None:
    on_create_run(server, refuse(tracking))
    done = dagnn("promote", "--target", "kind", "--wait")
    assert done.status == 1
    (run_id,) = server.runs
    last = done.error.splitlines()[-1]
    assert last.startswith(f"error: dagnn version 2 is not promoted: first of March; pipeline run {run_id}; version 2 ")
    assert "was deleted; register it again" in last
    as_json = dagnn("promote", "--target", "kind", "--wait", "--json")
    assert as_json.status == 1 and json.loads(as_json.out)["accepted"] is False

    on_create_run(server, lambda run: tracking.client.set_registered_model_alias("dagnn", CHAMPION, "2"))
    done = dagnn("promote", "--target", "kind", "--wait")
    assert done.status == 0 and done.out.endswith("champion: version 2 (version 2 is the champion already)\n")


def test_a_run_that_fails_or_leaves_no_record(server: KubeflowServer, dagnn: Dagnn, tracking: Tracking) -> None:
    server.states = [{"state": "FAILED", "error": {"code": 2, "message": "no pod could be started"}}]
    done = dagnn("promote", "--target", "kind", "--wait")
    assert done.status == 1 and "failed (no pod could be started)" in done.error
    server.states = [{"state": "SUCCEEDED"}]
    done = dagnn("promote", "--target", "kind", "--wait")
    assert done.status == 3 and "has no record of it; check that MLFLOW_TRACKING_URI" in done.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--version", "1"], "dagnn version 1 does not record where its data set is stored: it was trained outside"),
        (["--version", "9"], "dagnn/9 does not exist (dagnn has versions 1, 2, aliases challenger: 2)"),
        (["--dataset", "artifacts/dataset"], "--dataset and --dry-run are for a promotion on this machine"),
        (["--dry-run"], "--dataset and --dry-run are for a promotion on this machine"),
        (["--image", "registry.example/dagnn:latest"], "expected NAME@sha256:..., which a cluster can pull"),
        (["--target", "moon"], "configs/clusters/moon.yaml does not exist, expected a cluster"),
        (["--host", ""], "no server is named, expected the URL of Kubeflow Pipelines; give --host"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_made(
    server: KubeflowServer, dagnn: Dagnn, tracking: Tracking, arguments: list[str], message: str
) -> None:
    done = dagnn("promote", "--target", "kind", *arguments)
    assert done.status == 2
    assert message in done.error and done.error.count("\n") == 1, done.error
    assert server.created == []


def test_options_of_a_cluster_need_one(dagnn: Dagnn) -> None:
    done = dagnn("promote", "--wait")
    assert done.status == 2 and "--wait, --image and --service-account are for a promotion on a cluster" in done.error


def test_images_of_another_commit(server: KubeflowServer, dagnn: Dagnn, tracking: Tracking, tmp_path: Path) -> None:
    images = json.loads((tmp_path / "infra/images.json").read_text())
    (tmp_path / "infra/images.json").write_text(json.dumps(images | {"commit": "0" * 40}))
    assert "run `make images` again, or add --allow-dirty" in dagnn("promote", "--target", "kind").error
    assert dagnn("promote", "--target", "kind", "--allow-dirty").status == 0

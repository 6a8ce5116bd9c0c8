"""The whole pipeline in containers: no root, read-only, little memory, with servers for MLflow and S3."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from mlflow import MlflowClient
from ruamel.yaml import YAML

from dagnn_core.artifacts import read_artifact

ROOT = Path(__file__).parents[2]
DAGNN = "from pipeline.cli.main import main; main()"


def dagnn(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return subprocess.run(
        [sys.executable, "-c", DAGNN, *arguments],
        cwd=cwd,
        env=inherited | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def finished(project: Path, tracking_uri: str) -> str:
    done = dagnn("run", "--docker", "--memory", "2g", "--promote", cwd=project, MLFLOW_TRACKING_URI=tracking_uri)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_version_is_registered_with_its_files_in_s3(finished: str, tracking_uri: str, bucket: Any) -> None:
    assert "version dagnn 1" in finished
    version = MlflowClient(tracking_uri).get_model_version_by_alias("dagnn", "challenger")
    assert str(version.version) == "1"
    stored = {Path(item.key).name for item in bucket.objects.all()}
    assert {"MLmodel", "model.safetensors", "report.html"} <= stored


def test_the_version_has_passed_the_gate(finished: str, tracking_uri: str) -> None:
    """Of an image, `dvc.lock` is not asked for; the load test runs in a container without a file system to write to."""
    assert (
        "[promote] dagnn version 1 is champion: 14 of 18 checks passed, 4 not applicable; trained in the image"
        in finished
    )
    champion = MlflowClient(tracking_uri).get_model_version_by_alias("dagnn", "champion")
    assert (str(champion.version), champion.tags["git_dirty"]) == ("1", "false")
    assert champion.tags["image_digest"].startswith("sha256:")


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("dataset", "dataset"),
        ("extract-features", "features"),
        ("build-label-graph", "label_graph"),
        ("train", "model"),
        ("evaluate", "report"),
    ],
)
def test_every_task_left_a_whole_artifact_of_this_commit(finished: str, project: Path, task: str, kind: str) -> None:
    (folder,) = (
        path for path in (project / ".dagnn/runs").iterdir() if path.is_dir() and path.name.startswith("dagnn")
    )
    artifact = read_artifact(folder / task / f"{kind}_out", kind, verify=True)
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()
    assert artifact.provenance["git"] == {"commit": commit, "dirty": False, "changed": []}
    assert artifact.path.stat().st_uid != 0


def test_progress_is_shown(finished: str) -> None:
    assert "[train] epoch 2 of 2: " in finished


def test_a_failing_task_is_one_line_with_its_exit_status(project: Path, tracking_uri: str) -> None:
    spec = project / "params.yaml"
    (project / "wrong.yaml").write_text(spec.read_text().replace("configs/demo_scenes.yaml", "configs/missing.yaml"))
    arguments = ("run", "--docker", "--params", "wrong.yaml", "--work", ".dagnn/failing")
    done = dagnn(*arguments, cwd=project, MLFLOW_TRACKING_URI=tracking_uri)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: dataset: configs/missing.yaml")


def test_a_local_database_is_refused(project: Path) -> None:
    done = dagnn("run", "--docker", cwd=project)
    assert done.returncode == 2
    assert done.stderr.startswith("error: a container cannot use sqlite:///mlflow.db, expected a server in MLFLOW_")


def test_the_image_serves_a_version_as_the_manifest_says(
    finished: str, engine: docker.DockerClient, project: Path, tracking_uri: str
) -> None:
    manifest = YAML(typ="safe").load(ROOT / "infra/kubernetes/serving/champion.yaml")
    (container,) = manifest["spec"]["predictor"]["containers"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    changes = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=8080": f"--port={port}"}
    command = container["command"]
    for old, new in changes.items():
        assert any(old in word for word in command)
        command = [word.replace(old, new) for word in command]
    server = engine.containers.run(
        json.loads((project / "infra/images.json").read_text())["cpu"],
        command,
        environment={"MLFLOW_TRACKING_URI": tracking_uri},
        network_mode="host",
        read_only=True,
        tmpfs={"/tmp": ""},  # the container's own
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        mem_limit="4g",
        detach=True,
    )
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while True:
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{url}{container['readinessProbe']['httpGet']['path']}", timeout=5).ok:
                    break
            server.reload()
            assert server.status == "running" and time.monotonic() < deadline, server.logs().decode()
            time.sleep(0.2)
        rows = {"dataframe_records": [{"text": "two boats"}, {"text": "a tree"}, {"text": "two boats"}]}
        answer = requests.post(f"{url}/invocations", json=rows, timeout=60)
        first, second, third = answer.json()["predictions"]
        assert len(first) == 16 and first == third != second
    finally:
        server.remove(force=True)

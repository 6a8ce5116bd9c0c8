"""The pipeline as a cluster gets it, run in local processes: raw data from S3, several seeds, promotion, exit handler.

kfp's local runner leaves out what Kubernetes would do (resources, secrets, volumes); all else is as on a cluster, with
real MLflow and S3 servers.
"""

import hashlib
import importlib.util
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from dagnn_core.artifacts import read_artifact
from tests.fixtures.s3 import AWS, Bucket, make_bucket
from tests.fixtures.webhook import Webhook

pytestmark = pytest.mark.slow

HAS_GATE = importlib.util.find_spec("components.steps.promote") is not None
FOLDER = {"table": "table.csv", "images": "images", "image_pattern": "{id}.png", "split_column": "split"}
RUN = """
import json, sys
from pathlib import Path
from kfp import local
from kfp.local.orchestrator import task_executor
from components.params_file import load_params
from pipeline.graph import PipelineOptions, RawDataVersion, build_pipeline
from pipeline.images import Images
from pipeline.local import reliable_processes
from pipeline.target import Target
given = json.loads(sys.argv[1])
pipeline = build_pipeline(
    images=Images("python", "python"),
    params=load_params(Path("params.yaml")),
    target=Target(**given["target"]),
    options=PipelineOptions(raw=RawDataVersion(**given["raw"]), seeds=(1, 2), promote=given["promote"]),
)
task_executor.time.sleep = lambda _: None  # between two tries
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=given["root"])
with reliable_processes():
    pipeline(work=".dagnn/work", cache=".dagnn/cache", model_name="images", **given["parameters"])
"""


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    command = [Path(sys.executable).with_name("mlflow"), "server", "--port", url.rsplit(":", 1)[1], "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", folder / "files"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # processes that nothing here needs
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None and time.monotonic() < deadline, "MLflow does not start"
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def store(s3_server: str, s3_client: Any) -> Bucket:
    return make_bucket(s3_server, s3_client)


@pytest.fixture(scope="module")
def raw(store: Bucket) -> dict[str, str]:
    """Images and texts in a DVC remote."""
    rng = np.random.default_rng(0)
    colours = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 40, 210)}
    rows, files = ["id,text,labels,split"], {}
    for number in range(120):
        names = [name for name in colours if rng.random() < 0.5] or ["red"]
        shade = np.mean([colours[name] for name in names], axis=0) + rng.normal(0, 20, (16, 16, 3))
        image = io.BytesIO()
        Image.fromarray(shade.clip(0, 255).astype(np.uint8)).save(image, "PNG")
        files[f"images/{number}.png"] = image.getvalue()
        split = ("train", "train", "train", "val", "test")[number % 5]
        rows.append(f"{number},something {' and '.join(names)},{'|'.join(names)},{split}")
    files["table.csv"] = "\n".join(rows).encode()
    listing = []
    for name, content in sorted(files.items()):
        md5 = hashlib.md5(content).hexdigest()
        store.put(f"dvc/files/md5/{md5[:2]}/{md5[2:]}", content)
        listing.append({"md5": md5, "relpath": name})
    top = json.dumps(listing).encode()
    md5 = hashlib.md5(top).hexdigest()
    store.put(f"dvc/files/md5/{md5[:2]}/{md5[2:]}.dir", top)
    remote = {"remote": f"{store.uri}/dvc", "endpoint_url": store.endpoint}
    return remote | {"md5": f"{md5}.dir", "repository": "https://git.example.org/p", "path": "data/photos"}


class Cluster:
    """Where the pipeline runs."""

    def __init__(self, checkout: Any, given: dict[str, Any]) -> None:
        self.root: Path = checkout.root
        self._checkout = checkout
        self._given = given

    def run(self, name: str, **parameters: str) -> subprocess.CompletedProcess[str]:
        given = self._given | {"root": name, "parameters": parameters}
        self._checkout.environment["DAGNN_PIPELINE_RUN"] = name
        done: subprocess.CompletedProcess[str] = self._checkout.try_run(sys.executable, "-c", RUN, json.dumps(given))
        return done

    def tasks(self, name: str) -> dict[str, Path]:
        """Folder of every task that has run, by its path."""
        (folder,) = (self.root / name).iterdir()
        return {str(path.parent.relative_to(folder)): path.parent for path in folder.rglob("executor_output.json")}


@pytest.fixture(scope="module")
def cluster(
    *,
    make_checkout: Callable[[], Any],
    mlflow_server: str,
    store: Bucket,
    raw: dict[str, str],
    webhook: Webhook,
) -> Cluster:
    checkout = make_checkout()
    checkout.set({"dataset": {"layout": "folder", "source": "data/photos", "folder": FOLDER}})
    checkout.environment |= AWS | {"DAGNN_WEBHOOK_URL": webhook.url, "PYTHONPATH": str(checkout.root)}
    target = {
        "mlflow_uri": mlflow_server,
        "s3_endpoint_url": store.endpoint,
        "checkpoints": f"{store.uri}/checkpoints",
        "webhook_secret": "webhook",
        "kubeflow_url": "",
    }
    return Cluster(checkout, {"target": target, "raw": raw, "promote": HAS_GATE})


@pytest.fixture(scope="module")
def finished(cluster: Cluster) -> dict[str, Path]:
    done = cluster.run("run-7")
    assert done.returncode == 0, done.stdout + done.stderr
    return cluster.tasks("run-7")


def test_every_task_ran(finished: dict[str, Path]) -> None:
    trainings = {path for path in finished if path.endswith("/train")}
    assert len(trainings) == 2
    others = {"fetch-dataset", "dataset", "extract-features", "build-label-graph", "select-model", "evaluate"}
    others |= {"register", "record-outcome"} | ({"promote"} if HAS_GATE else set())
    assert set(finished) - trainings == others


def test_the_best_of_both_models_goes_on(finished: dict[str, Path]) -> None:
    models = [read_artifact(folder / "model_out", "model") for name, folder in finished.items() if "/train" in name]
    values = [json.loads(model.file("val_metrics.json").read_text())["val_map_mean"] for model in models]
    taken = read_artifact(finished["select-model"] / "model_out", "model", verify=True)
    assert sorted(model.provenance["params"]["train"]["seed"] for model in models) == [1, 2]
    assert taken.content_digest in {
        model.content_digest for model, value in zip(models, values, strict=True) if value == max(values)
    }
    report = read_artifact(finished["evaluate"] / "report_out", "report")
    assert report.provenance["ancestors"]["model"] == taken.content_digest


def test_the_version_of_the_raw_data_travels_on(finished: dict[str, Path], raw: dict[str, str]) -> None:
    dataset = read_artifact(finished["dataset"] / "dataset_out", "dataset")
    assert dataset.provenance["raw"]["md5"] == raw["md5"]
    assert dataset.provenance["raw"]["path"] == "data/photos"
    assert dataset.provenance["params"]["dataset"]["source"] == "data/photos"


def test_the_version_has_the_name_that_the_run_was_given(finished: dict[str, Path], mlflow_server: str) -> None:
    outcome = json.loads((finished["register"] / "executor_output.json").read_text())["parameterValues"]
    assert outcome["name"] == "images"
    client = MlflowClient(mlflow_server)
    assert str(client.get_model_version_by_alias("images", "challenger").version) == outcome["version"]


@pytest.mark.skipif(not HAS_GATE, reason="this checkout has no components/steps/promote.py")
def test_a_promotion_is_decided_and_a_refusal_is_no_failure(finished: dict[str, Path]) -> None:
    outcome = json.loads((finished["promote"] / "executor_output.json").read_text())["parameterValues"]
    assert isinstance(outcome["accepted"], bool)
    assert outcome["reason"]


def test_the_outcome_is_posted(finished: dict[str, Path], webhook: Webhook) -> None:
    judged, ended = (content for _, content in webhook.got)
    assert judged["event"] in ("promoted", "refused") and judged["version"] == "1"
    assert {"pipeline_run": "run-7", "state": "SUCCEEDED", "error": ""}.items() <= ended.items()


def test_no_checkpoint_is_left(finished: dict[str, Path], store: Bucket) -> None:
    assert not [key for key in store.keys if key.startswith("checkpoints/")]


def test_a_run_that_fails_is_recorded_as_failed(cluster: Cluster, webhook: Webhook) -> None:
    webhook.got.clear()
    done = cluster.run("run-8", dataset="{broken")
    assert done.returncode != 0
    message = "[dataset] InputError: parameters of dataset are not valid JSON"
    assert done.stdout.count(message) == 3, "it is tried twice more"
    (sent,) = [content for _, content in webhook.got]
    assert (sent["pipeline_run"], sent["state"]) == ("run-8", "FAILED")
    assert sent["error"]
    assert set(cluster.tasks("run-8")) == {"fetch-dataset", "record-outcome"}

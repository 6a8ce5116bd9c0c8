"""A training on two nodes for real: the pods' own commands in processes, torchrun, S3, MLflow, and the steps after it.

Only the cluster is not real: see `trainer_server` and `kubelet`.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import pytest
from kfp.dsl import HTML, Artifact, Dataset, Metrics, Model
from mlflow import MlflowClient

from dagnn_core.artifacts import read_artifact
from dagnn_core.config.evaluate import EvaluateConfig
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.register import RegisterConfig
from dagnn_core.config.section import section_json
from dagnn_core.config.train import TrainConfig
from pipeline import steps
from pipeline.target import Target, TrainResources
from pipeline.trainer import cluster, job
from pipeline.trainer.job import Pace
from pipeline.trainer.manifests import POD, POD_UID, TEMPLATE, write_template
from tests.components.conftest import _prepare
from tests.fixtures.locations import ROOT
from tests.fixtures.mlflow_server import mlflow_server
from tests.fixtures.s3 import SECRET, Bucket
from tests.pipeline.kubelet import Kubelet
from tests.pipeline.trainer_server import TOKEN, TrainerServer, serving

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("same_logging")]

MODEL = ModelConfig(embedding_dim=8, image_to_text_hidden=8, text_to_image_hidden=8, hops=2)
PARAMS = TrainConfig(epochs=3, batch_size=16, lr=1e-3, device="cpu")
LONG = TrainConfig(epochs=10_000, patience=10_000, batch_size=16, lr=1e-3, device="cpu")
IMAGE = "registry.example/dagnn@sha256:1"


class Cluster(NamedTuple):
    """Servers, and what the task finds in its pod."""

    server: TrainerServer
    kubelet: Kubelet
    bucket: Bucket
    mlflow: str
    folder: Path

    def train(self, name: str, params: TrainConfig = PARAMS) -> Model:
        """Run the task; its artifacts are those of a Kubeflow with a store of its own."""
        features, label_graph = (artifact(Artifact, self.folder / kind) for kind in ("features", "label_graph"))
        model = artifact(Model, self.folder / name)
        steps.train(
            features=features,
            label_graph=label_graph,
            model_params=section_json(MODEL),
            params=section_json(params),
            seed="",
            work=str(self.folder / "work"),
            checkpoints_uri=f"{self.bucket.uri}/checkpoints",
            model_out=model,
            val_metrics=Metrics(),
        )
        return model


def artifact(kind: type[Artifact], path: Path) -> Artifact:
    made = kind(uri=f"minio://mlpipeline/v2/{path.name}")
    made.custom_path = str(path)
    return made


@pytest.fixture(scope="module")
def tracking_server(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
    with mlflow_server(f"sqlite:///{folder}/mlflow.db", folder) as url:
        yield url


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a data set, its features and its label graph."""
    folder = tmp_path_factory.mktemp("inputs")
    _prepare(folder, 0)
    return folder


@pytest.fixture
def on_cluster(
    *,
    certificates: tuple[Path, Path],
    tmp_path: Path,
    bucket: Bucket,
    tracking_server: str,
    inputs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Cluster]:
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text(TOKEN)
    (account / "namespace").write_text("team")
    (account / "ca.crt").write_bytes(certificates[0].read_bytes())
    monkeypatch.setattr(cluster, "ACCOUNT", account)
    monkeypatch.setitem(job.train_on_nodes.__kwdefaults__, "pace", Pace(look=0.2))
    target = Target(
        mlflow_uri=tracking_server,
        s3_endpoint_url=bucket.endpoint,
        s3_secret="s3-credentials",
        checkpoints=f"{bucket.uri}/checkpoints",
        train=TrainResources(nodes=2),
    )
    variables = {
        "DAGNN_IMAGE": IMAGE,
        "DAGNN_PIPELINE_RUN": f"run-{tmp_path.name}",
        "AWS_ENDPOINT_URL_S3": bucket.endpoint,
        "MLFLOW_TRACKING_URI": tracking_server,
        TEMPLATE: write_template(target),
        POD: "dagnn-train-1",
        POD_UID: "uid-1",
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for kind in ("features", "label_graph", "dataset"):
        (tmp_path / kind).symlink_to(inputs / kind)
    secrets = {("s3-credentials", "access-key"): "test", ("s3-credentials", "secret-key"): SECRET}
    base = {"OMP_NUM_THREADS": "1", "DAGNN_GIT_COMMIT": "c0ffee", "AWS_CONFIG_FILE": f"{os.devnull}/none"}
    with serving(TrainerServer(), certificates[1]) as server:
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
        kubelet = Kubelet(server, tmp_path / "pods", secrets, base)
        yield Cluster(server, kubelet, bucket, tracking_server, tmp_path)
        for name in [name for kind, name in server.objects if kind == "trainjobs"]:
            server._delete("trainjobs", name)
        kubelet.join()
    assert server.violations == []


def test_two_nodes_train_what_two_processes_train_and_the_pipeline_goes_on(
    on_cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    model = on_cluster.train("model")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("[train] epoch")] == [
        f"[train] epoch {number} of 3" for number in (1, 2, 3)
    ]
    assert len(on_cluster.kubelet.attempts) == 1 and on_cluster.server.objects == {} and on_cluster.bucket.keys == []
    made = read_artifact(Path(model.path), "model", verify=True)
    params = on_cluster.folder / "params.json"
    params.write_text(json.dumps({"model": asdict(MODEL), "train": asdict(PARAMS)}))
    paths = {"params": params, "work": on_cluster.folder / "work", "model-out": on_cluster.folder / "one_machine"}
    paths |= {"features": on_cluster.folder / "features", "label-graph": on_cluster.folder / "label_graph"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=127.0.0.1:0", "-m", "components.steps.train"]
    subprocess.run(
        [*command, *(f"--{name}={path}" for name, path in paths.items())],
        check=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    expected = read_artifact(paths["model-out"], "model", verify=True)
    assert made.content_digest == expected.content_digest
    assert made.provenance["uris"]["model"] == "minio://mlpipeline/v2/model"
    assert made.provenance["execution"]["pipeline_run"] == os.environ["DAGNN_PIPELINE_RUN"]
    assert made.provenance["execution"]["machine"]["processes"] == 2
    client = MlflowClient(on_cluster.mlflow)
    assert client.get_run(made.provenance["mlflow_run_id"]).info.status == "FINISHED"
    found = client.search_runs(["1"], f"tags.pipeline_run = '{os.environ['DAGNN_PIPELINE_RUN']}'")
    assert {run.info.run_id for run in found} == {
        run["mlflow_run_id"] for run in (made.provenance, expected.provenance)
    }
    report, html = artifact(Artifact, on_cluster.folder / "report"), artifact(HTML, on_cluster.folder / "report.html")
    steps.evaluate(
        dataset=artifact(Dataset, on_cluster.folder / "dataset"),
        features=artifact(Artifact, on_cluster.folder / "features"),
        model=model,
        params=section_json(EvaluateConfig(num_queries=1, num_retrieved=1)),
        report_out=report,
        metrics=Metrics(),
        report_html=html,
    )
    version = steps.register(
        model=model, report=report, params=section_json(RegisterConfig(data_licence="none")), model_name="nodes"
    )
    assert client.get_model_version_by_alias("nodes", "challenger").version == version.version


def test_a_lost_node_starts_all_again_from_the_last_checkpoint_in_one_mlflow_run(
    on_cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second attempt has neither the disks nor the processes of the first one."""
    killed = threading.Event()

    def kill_the_second_node() -> None:
        while not any(key.endswith("/checkpoint.safetensors") for key in on_cluster.bucket.keys):
            time.sleep(0.05)
        (second,) = (pod for pod in on_cluster.kubelet.attempts[0] if "-node-0-1-" in pod.name)
        killed.set()
        on_cluster.kubelet.kill(second)

    on_cluster.kubelet.program = "tests.pipeline.slow_node"
    watcher = threading.Thread(target=kill_the_second_node, daemon=True)
    watcher.start()
    model = on_cluster.train("model", TrainConfig(epochs=8, batch_size=16, lr=1e-3, device="cpu"))
    watcher.join()
    lines = capsys.readouterr().out.splitlines()
    assert killed.is_set() and len(on_cluster.kubelet.attempts) == 2
    assert any(line.startswith("[train] resuming after epoch ") for line in lines), "\n".join(lines)
    made = read_artifact(Path(model.path), "model", verify=True)
    client = MlflowClient(on_cluster.mlflow)
    run = os.environ["DAGNN_PIPELINE_RUN"]
    (found,) = client.search_runs(["1"], f"tags.pipeline_run = '{run}'")
    assert found.info.run_id == made.provenance["mlflow_run_id"] and found.info.status == "FINISHED"
    assert on_cluster.bucket.keys == [] and on_cluster.server.objects == {}


def test_cancel_ends_the_nodes_and_keeps_their_checkpoint(
    on_cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    def cancel_when_it_trains() -> None:
        while not any(
            "epoch 2 of" in line for pod in on_cluster.server.pods.values() for line in pod.logs.get("node", [])
        ):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    on_cluster.kubelet.program = "tests.pipeline.slow_node"
    watcher = threading.Thread(target=cancel_when_it_trains, daemon=True)
    watcher.start()
    with pytest.raises(SystemExit) as ended:
        on_cluster.train("model", LONG)
    watcher.join()
    assert ended.value.code == 143
    assert on_cluster.server.objects == {}
    on_cluster.kubelet.join()
    assert on_cluster.kubelet.processes == {}
    assert {key.rsplit("/", 1)[1] for key in on_cluster.bucket.keys} == {"checkpoint.safetensors", "mlflow_run_id"}
    client = MlflowClient(on_cluster.mlflow)
    (found,) = client.search_runs(["1"], f"tags.pipeline_run = '{os.environ['DAGNN_PIPELINE_RUN']}'")
    assert found.info.status == "KILLED"


def test_what_is_wrong_with_the_input_is_told_as_by_one_process(
    on_cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        on_cluster.train("model", TrainConfig(epochs=3, batch_size=16, lr=1e30, device="cpu"))
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 2
    assert lines[-1].startswith("[train] InputError: the loss is not finite in epoch ")
    assert on_cluster.server.objects == {} and len(on_cluster.kubelet.attempts) == 1

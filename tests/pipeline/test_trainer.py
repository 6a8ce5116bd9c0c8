"""A training on several nodes, by the task `train`: against an API that answers as Kubernetes and Trainer do."""

import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest
from kfp.dsl import Artifact, Metrics, Model

from components.params_file import load_params
from components.services.storage.artifacts import send_artifact
from components.services.storage.s3 import Storage
from dagnn_core.artifacts import read_artifact, write_artifact
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import section_json
from dagnn_core.config.train import TrainConfig
from dagnn_core.errors import InputError
from pipeline import steps
from pipeline.compiling import write_pipeline
from pipeline.images import Images
from pipeline.target import FOLDER, Gpu, Target, TrainResources, read_target, with_nodes
from pipeline.trainer import cluster, job
from pipeline.trainer.job import Pace
from pipeline.trainer.manifests import NODES, POD, POD_UID, RIGHTS, TEMPLATE, Manifests, Owner, fill, write_template
from tests.fixtures.locations import ROOT
from tests.fixtures.s3 import Bucket
from tests.pipeline.specs import Spec, kubernetes_of, pod_of, read_specs, tasks_of
from tests.pipeline.trainer_server import TOKEN, TrainerServer, judge, rights_of_role, serving

pytestmark = pytest.mark.usefixtures("same_logging")

CLUSTERS = sorted(path.stem for path in (ROOT / FOLDER).glob("*.yaml"))
IMAGE = "registry.example/dagnn@sha256:" + "0" * 64
PARAMS = load_params(ROOT / "params.yaml")
ON_CPUS = {**PARAMS, "train": replace(PARAMS["train"], device="cpu")}
KUBERNETES = "1.36"
RUN = "3f0c9a1b-5d6e-4f80-9a1b-5d6e4f809a1b"
TARGET = Target(
    mlflow_uri="http://mlflow:5000",
    checkpoints="s3://dagnn/checkpoints",
    train=TrainResources(nodes=2),
    gpu=Gpu(count=2),
)


def shipped(name: str, nodes: int = 2) -> Target:
    return with_nodes(read_target(str(ROOT / FOLDER / f"{name}.yaml")), nodes)


def manifests(target: Target, **changes: Any) -> Manifests:
    given: dict[str, Any] = {
        "name": "train-1",
        "image": IMAGE,
        "owner": Owner("task", "1-2"),
        "run_id": RUN,
        "place": "s3://dagnn/checkpoints/train-1",
        "inputs": {"features": "s3://dagnn/f", "label_graph": "s3://dagnn/g"},
        "arguments": ["--params={}"],
        "env": {"DAGNN_IMAGE": IMAGE},
    }
    return fill(write_template(target), **given | changes)


def compiled(target: Target, folder: Path, params: dict[str, Any] = ON_CPUS) -> tuple[Spec, Spec]:
    write_pipeline(folder / "pipeline.yaml", images=Images(IMAGE, IMAGE), params=params, target=target)
    return read_specs(folder / "pipeline.yaml")


class TestManifests:
    @pytest.mark.parametrize("name", CLUSTERS)
    def test_trainer_and_kubernetes_take_them(self, name: str) -> None:
        schemas = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed: make setup")
        runtime, train_job = manifests(shipped(name))
        judge(runtime)
        judge(train_job)
        (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
        whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "node", **node["template"]["metadata"]}}
        schemas.validate({**whole, "spec": node["template"]["spec"]}, KUBERNETES, strict=True)
        assert train_job["spec"]["runtimeRef"] == {
            "apiGroup": runtime["apiVersion"].split("/")[0],
            "kind": runtime["kind"],
            "name": runtime["metadata"]["name"],
        }

    @pytest.mark.parametrize(
        "damage",
        [
            lambda made: made.job["spec"]["trainer"].update(numNodes="2"),
            lambda made: made.job["spec"].update(podTemplateOverrides=[]),
            lambda made: made.job["spec"].pop("runtimeRef"),
            lambda made: made.job["metadata"].update(name="1-train"),
            lambda made: made.runtime["spec"]["mlPolicy"]["torch"].update(numProcPerNode="auto"),
            lambda made: made.runtime["spec"]["template"]["spec"]["replicatedJobs"][0].pop("name"),
        ],
    )
    def test_the_schema_refuses_what_trainer_would(self, damage: Callable[[Manifests], object]) -> None:
        made = manifests(TARGET)
        damage(made)
        with pytest.raises(jsonschema.ValidationError):
            for manifest in made:
                judge(manifest)

    def test_nodes_and_processes_are_the_targets(self) -> None:
        assert manifests(TARGET).job["spec"]["trainer"] == {"numNodes": 2, "numProcPerNode": 2}
        assert manifests(with_nodes(TARGET, 1)).job["spec"]["trainer"] == {"numNodes": 1, "numProcPerNode": 2}
        without = replace(TARGET, gpu=Gpu())
        assert manifests(without).job["spec"]["trainer"] == {"numNodes": 2, "numProcPerNode": 1}

    def test_the_pods_have_what_the_target_says(self) -> None:
        target = shipped("private-cluster")
        pod = node_pod(manifests(target))
        (main,) = pod["spec"]["containers"]
        assert main["resources"] == {
            "requests": {"cpu": "4", "memory": "32Gi", "nvidia.com/mig-3g.40gb": "1"},
            "limits": {"cpu": "8", "memory": "64Gi", "nvidia.com/mig-3g.40gb": "1"},
        }
        assert pod["spec"]["nodeSelector"] == {"pool": "gpu", "nvidia.com/mig.strategy": "mixed"}
        assert {"key": "spot", "operator": "Exists"} in pod["spec"]["tolerations"]
        assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["metadata"]["labels"]["cost-centre"] == "4711"
        assert pod["metadata"]["annotations"] == {"example.org/owner": "images"}
        volumes = {volume.pop("name"): volume for volume in pod["spec"]["volumes"]}
        claim = volumes["scratch"]["ephemeral"]["volumeClaimTemplate"]["spec"]
        assert (claim["storageClassName"], claim["resources"]["requests"]["storage"]) == ("fast-disks", "200Gi")
        assert volumes["company-ca"] == {"configMap": {"name": "company-ca"}}
        assert volumes["shared-memory"] == {"emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}
        for container in (*pod["spec"]["initContainers"], main):
            assert container["image"] == IMAGE
            assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
            env = {entry["name"]: entry for entry in container["env"]}
            assert len(env) == len(container["env"])
            assert env["AWS_CA_BUNDLE"]["value"] == "/etc/dagnn/ca/ca-bundle.crt"
            assert env["HF_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "hugging-face", "key": "token"}}
            assert env["MLFLOW_TRACKING_URI"]["value"] == target.mlflow_uri
            assert env["DAGNN_IMAGE"]["value"] == IMAGE

    def test_pods_have_no_privileges(self) -> None:
        pod = node_pod(manifests(TARGET))
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]) and container["resources"]["limits"]

    def test_one_lost_pod_starts_all_again(self) -> None:
        runtime = manifests(TARGET).runtime["spec"]["template"]["spec"]
        assert runtime["failurePolicy"] == {"maxRestarts": 3}
        (node,) = runtime["replicatedJobs"]
        assert node["template"]["spec"]["backoffLimit"] == 0
        assert node["template"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"

    def test_texts_reach_the_nodes_as_they_are(self) -> None:
        """Kubernetes makes $ of $$, and the value of a variable of $(NAME)."""
        (main,) = node_pod(manifests(TARGET, arguments=["--params=$(HOME) $5"]))["spec"]["containers"]
        assert main["command"][2:] == ["-m", "pipeline.trainer.node", "--params=$$(HOME) $$5"]

    def test_nodes_wait_for_one_another_as_long_as_the_training_may_take(self) -> None:
        (main,) = node_pod(manifests(replace(TARGET, train_seconds=7200)))["spec"]["containers"]
        assert main["command"][:2] == ["torchrun", "--rdzv-conf=timeout=7200"]


def node_pod(made: Manifests) -> Spec:
    (node,) = made.runtime["spec"]["template"]["spec"]["replicatedJobs"]
    found: Spec = node["template"]["spec"]["template"]
    return found


class TestCompiled:
    @pytest.mark.parametrize("name", CLUSTERS)
    def test_the_task_hardly_computes_and_carries_the_template(self, name: str, tmp_path: Path) -> None:
        schemas = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed: make setup")
        target = shipped(name)
        pipeline, platform = compiled(target, tmp_path)
        pod = pod_of(pipeline, platform, "exec-train")
        schemas.validate(pod, KUBERNETES, strict=True)
        (main,) = pod["spec"]["containers"]
        light = target.light
        assert main["resources"] == {
            "requests": {"cpu": light.cpu_request, "memory": light.memory_request},
            "limits": {"cpu": light.cpu_limit, "memory": light.memory_limit},
        }
        assert pod["spec"]["activeDeadlineSeconds"] == target.train_seconds
        env = {entry["name"]: entry for entry in main["env"]}
        assert env[TEMPLATE]["value"] == write_template(target) and "{{" not in env[TEMPLATE]["value"]
        fields = {name: env[name]["valueFrom"]["fieldRef"]["fieldPath"] for name in (POD, POD_UID)}
        assert fields == {POD: "metadata.name", POD_UID: "metadata.uid"}
        assert main["image"] == IMAGE == env["DAGNN_IMAGE"]["value"], "the cache is about the image that trains"

    def test_nodes_change_nothing_that_the_cache_goes_by(self, tmp_path: Path) -> None:
        alone, together = (compiled(shipped("kind", nodes), tmp_path)[0] for nodes in (1, 2))
        for pipeline in (alone, together):
            assert tasks_of(pipeline)["train"]["cachingOptions"] == {"enableCache": True}
            for executor in pipeline["deploymentSpec"]["executors"].values():
                executor["container"] |= {"env": [], "resources": {}}
        assert alone == together

    def test_the_exit_handler_reaches_kubernetes_and_s3(self, tmp_path: Path) -> None:
        for nodes, number in ((2, "2"), (1, None)):
            pipeline, platform = compiled(shipped("kind", nodes), tmp_path)
            (main,) = pod_of(pipeline, platform, "exec-record-outcome")["spec"]["containers"]
            env = {entry["name"]: entry.get("value") for entry in main["env"]}
            assert env.get(NODES) == number
            assert ("AWS_ACCESS_KEY_ID" in env) == ("AWS_ENDPOINT_URL_S3" in env) == (nodes > 1)

    def test_one_process_trains_in_the_pod_of_its_task(self, tmp_path: Path) -> None:
        pipeline, platform = compiled(shipped("gpu-cluster", 1), tmp_path)
        container = pipeline["deploymentSpec"]["executors"]["exec-train"]["container"]
        assert "accelerator" in container["resources"]
        assert TEMPLATE not in {entry["name"] for entry in container["env"]}
        fields = [entry["name"] for entry in kubernetes_of(platform)["exec-train"]["fieldPathAsEnv"]]
        assert fields == ["DAGNN_PIPELINE_RUN"]

    @pytest.mark.parametrize(
        ("target", "params", "message"),
        [
            (
                shipped("kind"),
                PARAMS,
                r"train\.nodes is 2 and gpu\.count 0, expected a GPU for each node; set gpu\.count",
            ),
            (
                replace(TARGET, checkpoints=""),
                PARAMS,
                r"checkpoints must be s3://bucket/prefix, where train\.nodes is 2",
            ),
        ],
    )
    def test_a_target_that_cannot_do_it(
        self, target: Target, params: dict[str, Any], message: str, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match=message):
            compiled(target, tmp_path, params)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("nodes", [0, -1])
    def test_numbers_of_nodes_that_are_none(self, nodes: int) -> None:
        with pytest.raises(InputError, match=rf"--nodes must be >= 1, got {nodes}"):
            with_nodes(TARGET, nodes)


def test_the_role_grants_what_the_doctor_looks_for() -> None:
    assert {(resource, verb) for _, resource, verbs in RIGHTS for verb in verbs} == rights_of_role()


class Told(NamedTuple):
    """How the task ended, and what it wrote."""

    status: int
    lines: list[str]

    @property
    def last(self) -> str:
        return self.lines[-1]


@pytest.fixture
def server(
    certificates: tuple[Path, Path], tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TrainerServer]:
    """The API, and the pod of a task that reaches it and S3."""
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text(f"{TOKEN}\n")
    (account / "namespace").write_text("team")
    (account / "ca.crt").write_bytes(certificates[0].read_bytes())
    monkeypatch.setattr(cluster, "ACCOUNT", account)
    monkeypatch.setitem(job.train_on_nodes.__kwdefaults__, "pace", Pace(look=0.01, runtime=5.0, deletion=5.0))
    target = replace(TARGET, s3_endpoint_url=bucket.endpoint)
    variables = {
        "DAGNN_IMAGE": "registry.example/dagnn@sha256:1",
        "DAGNN_PIPELINE_RUN": RUN,
        "DAGNN_BACKEND_PATIENCE": "0",
        "AWS_ENDPOINT_URL_S3": bucket.endpoint,
        TEMPLATE: write_template(target),
        POD: "dagnn-train-1",
        POD_UID: "uid-1",
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    with serving(TrainerServer(), certificates[1]) as running:
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(running.port))
        yield running
    assert running.violations == []


@pytest.fixture
def task(tmp_path: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """Run the task on features and a label graph that nobody reads but as files."""
    artifacts = {}
    for name in ("features", "label_graph"):
        with write_artifact(tmp_path / name, kind=name, provenance={}) as draft:
            (draft.path / f"{name}.npy").write_text(name)
        artifacts[name] = Artifact(uri=f"minio://mlpipeline/{name}")
        artifacts[name].custom_path = str(tmp_path / name)

    def run() -> Told:
        model = Model(uri="minio://mlpipeline/model_out")
        model.custom_path = str(tmp_path / "model_out")
        capsys.readouterr()
        status = 0
        try:
            steps.train(
                **artifacts,
                model_params=section_json(ModelConfig()),
                params=section_json(TrainConfig(device="cpu")),
                seed="7",
                work=str(tmp_path / "work"),
                checkpoints_uri=f"{bucket.uri}/checkpoints",
                model_out=model,
                val_metrics=Metrics(),
            )
        except SystemExit as end:
            status = int(end.code or 0)
        return Told(status, capsys.readouterr().out.splitlines())

    return run


def leave_model(server: TrainerServer, bucket: Bucket, folder: Path) -> None:
    """What the first node does at its end."""
    with write_artifact(folder / "trained", kind="model", provenance={}) as draft:
        (draft.path / "val_metrics.json").write_text('{"val_map_mean": 0.5}')
    send_artifact(folder / "trained", f"{bucket.uri}/checkpoints/{name_of(server)}/model", Storage())


def name_of(server: TrainerServer) -> str:
    name: str = server.job["metadata"]["name"]
    return name


@pytest.fixture
def finishing(tmp_path: Path, bucket: Bucket) -> list[Callable[[TrainerServer], None]]:
    """The acts of a training that goes well."""

    def waits(server: TrainerServer) -> None:
        first, second = server.add_pods("Pending")
        first.status["phase"] = "Running"
        message = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
        second.status["conditions"] = [{"type": "PodScheduled", "status": "False", "message": message}]
        first.write("[train] MLflow run 1")

    def runs(server: TrainerServer) -> None:
        first, second = server.pods.values()
        second.status = {"phase": "Running"}
        first.write("[train] epoch 1 of 2")
        second.write("[train] of the second node")

    def ends(server: TrainerServer) -> None:
        first, _ = server.pods.values()
        first.write("[train] epoch 2 of 2")
        for pod in server.pods.values():
            pod.end(0)
        leave_model(server, bucket, tmp_path)
        server.set_condition("Complete")

    return [waits, runs, ends]


class TestTask:
    def test_starts_follows_and_takes_the_model(
        self,
        *,
        server: TrainerServer,
        task: Callable[[], Told],
        finishing: list[Any],
        bucket: Bucket,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("MLFLOW_RUN_ID", "run-of-kubeflow")
        server.acts = [
            lambda _: None,
            lambda server: server.set_condition("Suspended", "of a queue"),
            lambda server: server.job.pop("status"),
            *finishing,
        ]
        server.slow_webhook = 2
        seen: list[Any] = []
        server.on_job = lambda made: seen.append(
            (made, server.objects["trainingruntimes", made["metadata"]["name"]], bucket.keys)
        )
        done = task()
        name = seen[0][0]["metadata"]["name"]
        assert done.status == 0, done.lines
        assert done.lines == [
            f"[train] TrainJob {name}: 2 nodes, each with 2 processes",
            "[train] Kubeflow Trainer has made no nodes yet",
            "[train] suspended: of a queue",
            "[train] Kubeflow Trainer has made no nodes yet",
            "[train] 1 of 2 nodes run; one waits: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu.",
            "[train] MLflow run 1",
            "[train] 2 of 2 nodes run",
            "[train] epoch 1 of 2",
            "[train] epoch 2 of 2",
        ]
        assert name.startswith("train-3f0c9a1b-") and len(name) == len("train-3f0c9a1b-12345678")
        model = read_artifact(tmp_path / "model_out", "model", verify=True)
        assert json.loads(model.file("val_metrics.json").read_text()) == {"val_map_mean": 0.5}
        assert server.objects == {} and bucket.keys == []
        assert server.created == ["TrainingRuntime", "TrainJob"]
        (made, runtime, keys) = seen[0]
        for manifest in (made, runtime):
            owner = {"apiVersion": "v1", "kind": "Pod", "name": "dagnn-train-1", "uid": "uid-1"}
            assert manifest["metadata"]["ownerReferences"] == [owner]
        prefix = f"checkpoints/{name}"
        files = [f"{kind}/{file}" for kind in ("features", "label_graph") for file in (f"{kind}.npy", "manifest.json")]
        assert keys == [f"{prefix}/{file}" for file in files]
        (main,) = node_pod(Manifests(runtime, made))["spec"]["containers"]
        options = dict(word.split("=", 1) for word in main["command"][4:])
        assert options["--checkpoints-uri"] == f"{bucket.uri}/checkpoints"
        assert options["--model-uri"] == f"{bucket.uri}/{prefix}/model"
        assert options["--uri"] == "minio://mlpipeline/model_out"
        assert json.loads(options["--params"])["seed"] == 7
        env = {entry["name"]: entry.get("value") for entry in main["env"]}
        assert (env["DAGNN_PIPELINE_RUN"], env["DAGNN_IMAGE"]) == (RUN, "registry.example/dagnn@sha256:1")
        assert env["MLFLOW_RUN_ID"] == "run-of-kubeflow", "that the nodes adopt"
        fetched = [
            container["command"][-1] for container in node_pod(Manifests(runtime, made))["spec"]["initContainers"]
        ]
        assert fetched == [f"--uri={bucket.uri}/{prefix}/{kind}" for kind in ("features", "label_graph")]

    def test_takes_up_the_job_of_a_lost_pod(
        self,
        server: TrainerServer,
        task: Callable[[], Told],
        finishing: list[Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The second pod owns the job then, so that it outlives the first one. All this takes the whole role."""
        server.acts = [*finishing[:1], lambda _: server.statuses.append(500)]
        assert task().status == 3 and len(server.pods) == 2
        name = name_of(server)
        monkeypatch.setenv(POD, "dagnn-train-2")
        monkeypatch.setenv(POD_UID, "uid-2")
        server.acts = [lambda _: None, lambda _: server.delete_owner("uid-1"), *finishing[1:]]
        done = task()
        assert done.status == 0, done.lines
        assert done.lines[0] == f"[train] TrainJob {name} is there already: this task follows it"
        assert "[train] MLflow run 1" in done.lines, "what was written before is shown again"
        assert server.created == ["TrainingRuntime", "TrainJob"] and server.objects == {}
        job.end_trainings(RUN)
        assert server.used == rights_of_role()

    @pytest.mark.slow
    def test_a_finished_job_of_a_lost_pod_is_not_run_again(
        self, server: TrainerServer, task: Callable[[], Told], finishing: list[Any], bucket: Bucket
    ) -> None:
        def all_at_once(_: TrainerServer) -> None:
            for act in finishing:
                act(server)
            server.statuses.append(500)

        server.acts = [all_at_once]
        assert task().status == 3
        assert task().status == 0
        assert server.created == ["TrainingRuntime", "TrainJob"] and bucket.keys == []

    @pytest.mark.slow
    def test_waits_for_a_job_that_is_on_its_way_out(
        self, server: TrainerServer, task: Callable[[], Told], finishing: list[Any]
    ) -> None:
        server.acts = [*finishing[:1], lambda _: server.statuses.append(500)]
        task()
        for entry in server.objects.values():
            entry["metadata"]["deletionTimestamp"] = "2026-11-28T12:00:00Z"
        name = name_of(server)
        server.acts = [
            lambda _: None,
            lambda _: [server._delete(kind, name) for kind in ("trainingruntimes", "trainjobs")],
        ]
        server.acts += finishing
        assert task().status == 0
        assert server.created == ["TrainingRuntime", "TrainJob"] * 2

    @pytest.mark.slow
    def test_other_seeds_and_runs_have_jobs_of_their_own(
        self, server: TrainerServer, task: Callable[[], Told], finishing: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names: list[str] = []
        server.on_job = lambda made: names.append(made["metadata"]["name"])
        for run in (RUN, RUN, "77777777-5d6e-4f80-9a1b-5d6e4f809a1b"):
            monkeypatch.setenv("DAGNN_PIPELINE_RUN", run)
            server.acts = [*finishing[:1], lambda _: server.set_condition("Failed", "no")]
            assert task().status == 3
        assert names[0] == names[1] != names[2]

    @pytest.mark.slow
    def test_cancel_ends_the_job(
        self, server: TrainerServer, task: Callable[[], Told], finishing: list[Any], bucket: Bucket
    ) -> None:
        def cancel(_: TrainerServer) -> None:
            threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()

        server.acts = [*finishing[:1], cancel]
        before = signal.getsignal(signal.SIGTERM)
        done = task()
        assert (done.status, done.last) == (143, "[train] the task was told to end, and ends its training")
        assert server.objects == {} and bucket.keys == []
        assert signal.getsignal(signal.SIGTERM) is before

    @pytest.mark.slow
    def test_the_exit_handler_ends_what_a_killed_task_left(
        self,
        server: TrainerServer,
        task: Callable[[], Told],
        finishing: list[Any],
        bucket: Bucket,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """On a cluster, SIGTERM ends Kubeflow's launcher first, and the pod with it: the task may have no time left."""
        server.acts = [*finishing[:1], lambda _: server.statuses.append(500)]
        task()
        name = name_of(server)
        assert bucket.keys
        job.end_trainings("77777777-5d6e-4f80-9a1b-5d6e4f809a1b")
        assert name_of(server) == name, "another run's"
        job.end_trainings(RUN)
        assert server.objects == {} and bucket.keys == []
        assert capsys.readouterr().out == f"[train] TrainJob {name} was left by its task, and is ended\n"
        server.rights = set()
        job.end_trainings(RUN)
        words = "[train] whether a TrainJob is left is not known: Kubernetes does not let the account of this task"
        assert capsys.readouterr().out.startswith(words)

    def test_bears_an_api_that_is_away(
        self,
        server: TrainerServer,
        task: Callable[[], Told],
        finishing: list[Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("components.services.storage.patience.FIRST_PAUSE", 0.02)
        monkeypatch.setenv("DAGNN_BACKEND_PATIENCE", "30")
        server.acts = [finishing[0], lambda _: server.statuses.extend([503] * 5), *finishing[1:]]
        done = task()
        assert done.status == 0
        assert any("is not available (it answers 503); trying again" in line for line in done.lines)


def fail(server: TrainerServer, message: str = "jobset failed due to reaching max number of restarts") -> None:
    server.set_condition("Failed", message)


def crashes(server: TrainerServer) -> None:
    first, second = server.pods.values()
    first.write("[train] BackendError: another process of this training has ended, or cannot be reached; correct it")
    first.end(1)
    second.write("[train] BackendError: s3://dagnn: the store cannot be reached (refused); check network and endpoint")
    second.end(1)
    fail(server)


def runs_out_of_memory(server: TrainerServer) -> None:
    _, second = server.pods.values()
    second.end(137, reason="OOMKilled")
    fail(server)


def cannot_fetch(server: TrainerServer) -> None:
    first, _ = server.pods.values()
    first.write("error: s3://dagnn/checkpoints: the store does not permit this (403); check the key", "features")
    first.end(3, "features")
    fail(server)


def says_no(server: TrainerServer) -> None:
    first, _ = server.pods.values()
    first.write("[train] InputError: the loss is not finite in epoch 2, step 1; lower train.lr")


def is_deleted(server: TrainerServer) -> None:
    server._delete("trainjobs", name_of(server))


AGAIN = "`dagnn retry` resumes from its last checkpoint"
JOB = "BackendError: TrainJob NAME"
OUT_OF_MEMORY = "node of node 1 ended (OOMKilled, exit status 137)"
NO_INPUTS = (
    "features of node 0 ended (Error, exit status 3): s3://dagnn/checkpoints: the store does not permit this (403); "
    "check the key"
)
RESTARTED = "jobset failed due to reaching max number of restarts"


@pytest.mark.parametrize(
    ("act", "status", "line"),
    [
        (crashes, 3, "BackendError: s3://dagnn: the store cannot be reached (refused); check network and endpoint"),
        (says_no, 2, "InputError: the loss is not finite in epoch 2, step 1; lower train.lr"),
        pytest.param(
            runs_out_of_memory,
            3,
            f"{JOB} failed: {OUT_OF_MEMORY}; its lines are above; {AGAIN}",
            marks=pytest.mark.slow,
        ),
        (cannot_fetch, 3, f"{JOB} failed: {NO_INPUTS}; its lines are above; {AGAIN}"),
        pytest.param(fail, 3, f"{JOB} failed: {RESTARTED}; its lines are above; {AGAIN}", marks=pytest.mark.slow),
        pytest.param(is_deleted, 3, f"{JOB} was deleted while it ran; {AGAIN}", marks=pytest.mark.slow),
    ],
)
def test_a_job_that_does_not_end_well(
    *,
    server: TrainerServer,
    task: Callable[[], Told],
    bucket: Bucket,
    act: Callable[[TrainerServer], None],
    status: int,
    line: str,
) -> None:
    names: list[str] = []
    server.on_job = lambda made: names.append(made["metadata"]["name"])
    server.acts = [lambda server: [server.add_pods()], act]
    done = task()
    assert (done.status, done.last) == (status, f"[train] {line.replace('NAME', names[0])}")
    assert [found for found in done.lines if "Traceback" in found] == []
    assert server.objects == {} and bucket.keys == [], "nothing is left"


def not_installed(server: TrainerServer) -> None:
    server.installed = False


def without_rights(server: TrainerServer) -> None:
    server.rights = set()


def without_pods(server: TrainerServer) -> None:
    server.rights -= {("pods", "list")}


def with_a_strict_webhook(server: TrainerServer) -> None:
    server.denial = "no queue"


def that_is_away(server: TrainerServer) -> None:
    server.statuses = [503] * 20


FORBIDDEN = r"Kubernetes does not let the account of this task do"


@pytest.mark.parametrize(
    ("arrange", "status", "line"),
    [
        (
            not_installed,
            3,
            r"BackendError: Kubernetes at https://\S+ knows no trainingruntimes; install Kubeflow Trainer .*",
        ),
        (without_rights, 3, rf"BackendError: {FORBIDDEN} GET trainjobs in namespace team \(403: .*\); apply infra/.*"),
        (
            without_pods,
            3,
            rf"BackendError: {FORBIDDEN} GET pods in namespace team \(403: pods is forbidden.*\); apply .*",
        ),
        (
            with_a_strict_webhook,
            2,
            r"InputError: Kubernetes refuses the training \(403: .* no queue\); correct what .*",
        ),
        (that_is_away, 3, r"BackendError: Kubernetes at https://\S+ answers 503 to GET trainjobs: of this .*"),
    ],
)
def test_an_api_that_does_not_do_it(
    *,
    server: TrainerServer,
    task: Callable[[], Told],
    bucket: Bucket,
    arrange: Callable[[TrainerServer], None],
    status: int,
    line: str,
) -> None:
    arrange(server)
    done = task()
    assert done.status == status and re.fullmatch(rf"\[train\] {line}", done.last), done.lines
    assert server.objects == {} and bucket.keys == [], "nothing is left"


def test_an_api_that_cannot_be_reached(
    server: TrainerServer, task: Callable[[], Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "9")
    done = task()
    assert done.status == 3 and "Kubernetes at https://127.0.0.1:9 cannot be reached" in done.last
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    done = task()
    assert done.status == 2 and "begins in a pod with a token for Kubernetes' API, and this is none" in done.last

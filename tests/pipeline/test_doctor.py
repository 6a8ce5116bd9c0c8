"""`dagnn doctor`: each check against a real server of its kind, sound and broken.

Kubeflow and Kubernetes are HTTP servers that keep to the descriptions of the two APIs, not clusters; MLflow, S3 and DVC
are real.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest

from components.services.tracking.mlflow import Tracking
from dagnn_core.errors import InputError
from pipeline.cluster import Note, _account_of_kubeflow, cluster_checks, require_named
from pipeline.doctor import APART, Diagnosis, checks_of, look, look_at_all
from pipeline.kubeflow.client import Kubeflow
from pipeline.target import CaConfigMap, Gpu, Resources, Scratch, Target, TrainResources
from tests.components.fault_proxy import Fault, FaultProxy
from tests.components.services.registry.test_server import mlflow_server
from tests.fixtures.s3 import Bucket
from tests.pipeline.kfp_server import KubeflowServer
from tests.pipeline.kubernetes_server import Kubernetes
from tests.pipeline.recorded import recorded
from tests.pipeline.trainer_server import rights_of_role

TARGET = Target(mlflow_uri="http://mlflow:5000", s3_secret="s3-credentials", gpu=Gpu(count=1))
pytestmark = [
    pytest.mark.usefixtures("no_cluster"),
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
]
IMAGE = "registry.example/dagnn@sha256:" + "1" * 64


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template")
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    (root / ".dvc").mkdir()  # as `dvc init` leaves it
    (root / ".dvc/config").touch()
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    """A checkout with images and without a remote."""
    root = tmp_path / "project"
    shutil.copytree(template, root)
    (root / "infra").mkdir()
    (root / "infra/images.json").write_text(json.dumps({"cpu": IMAGE}))
    return root


def set_remote(project: Path, url: str, endpoint: str = "") -> None:
    text = f"[core]\n    remote = storage\n['remote \"storage\"']\n    url = {url}\n"
    (project / ".dvc/config").write_text(text + (f"    endpointurl = {endpoint}\n" if endpoint else ""))


@pytest.fixture
def found(project: Path) -> Callable[..., Diagnosis]:
    """Do one check."""

    def do(
        name: str,
        *,
        kubeflow: Kubeflow | None = None,
        namespace: str = "team",
        mlflow: str = "none",
        target: Target = TARGET,
    ) -> Diagnosis:
        checks = checks_of(
            kubeflow=kubeflow,
            namespace=namespace,
            tracking=Tracking(uri=mlflow),
            project=project,
            target=target,
        )
        return look(name, checks[name])

    return do


Found = Callable[..., Diagnosis]


def test_versions_here(found: Found) -> None:
    check = found("python")
    assert check.status == "ok" and "kfp 2.17." in check.what and "mlflow 3." in check.what


class TestKubeflow:
    def test_sound(self, server: KubeflowServer, found: Found) -> None:
        server.page = True
        check = found("kubeflow", kubeflow=Kubeflow(host=server.url))
        assert check == (
            *("kubeflow", "ok", f"{server.url} is Kubeflow Pipelines 2.17.0, and takes the credentials (one user)"),
            "",
        )
        server.multi_user = True
        check = found("kubeflow", kubeflow=Kubeflow(host=server.url, namespace="team"))
        assert "(many users, namespace team)" in check.what
        assert server.created == []

    def test_the_port_of_the_api_has_no_page(self, server: KubeflowServer, found: Found) -> None:
        check = found("kubeflow", kubeflow=Kubeflow(host=server.url))
        assert check.status == "warning" and check.what.endswith(", but has no page")
        assert "`ml-pipeline-ui` (port 80)" in check.remedy and "KF_PIPELINES_UI_ENDPOINT" in check.remedy
        elsewhere = Kubeflow(host=server.url, ui_host="https://kubeflow.example.org")
        assert found("kubeflow", kubeflow=elsewhere).status == "ok"

    def test_without_a_server(self, found: Found) -> None:
        assert found("kubeflow").status == "skipped"

    def test_that_does_not_say_its_version(self, server: KubeflowServer, found: Found) -> None:
        server.tag_name = "unknown"
        check = found("kubeflow", kubeflow=Kubeflow(host=server.url))
        assert (check.status, check.remedy) == ("warning", "see yourself that it is 2.17 or later")

    def test_broken(self, server: KubeflowServer, found: Found) -> None:
        kubeflow = Kubeflow(host=server.url, pause=0.0)
        server.tag_name = "2.16.0"
        assert "upgrade the server, or pin" in found("kubeflow", kubeflow=kubeflow).remedy
        server.tag_name, server.token = "2.17.0", "token"
        check = found("kubeflow", kubeflow=kubeflow)
        assert check.status == "failed" and "wants a token" in check.what and check.remedy.startswith("give a token")
        check = found("kubeflow", kubeflow=Kubeflow(host="http://127.0.0.1:1", pause=0.0))
        assert check.status == "failed" and check.remedy.startswith("check the network")


class TestMlflow:
    @pytest.mark.slow
    def test_a_server(self, found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with (
            mlflow_server(f"sqlite:///{tmp_path}/mlflow.db", tmp_path) as uri,
            FaultProxy(uri) as proxy,
        ):
            what = f"{proxy.url} is MLflow {version('mlflow')}, and takes the credentials"
            assert found("mlflow", mlflow=proxy.url) == ("mlflow", "ok", what, "")
            proxy.plan = lambda request: Fault(kind="error", status=403) if "experiments" in request.path else None
            check = found("mlflow", mlflow=proxy.url)
            assert check.status == "failed" and "does not permit this" in check.what
            assert check.remedy.startswith("set MLFLOW_TRACKING_USERNAME")
            proxy.plan = lambda request: Fault(kind="error", status=404) if request.path == "/version" else None
            assert "cannot be used: 404 Client Error" in found("mlflow", mlflow=proxy.url).what
            proxy.plan = lambda request: None
            monkeypatch.setattr("pipeline.doctor.version", lambda package: "4.0.0")
            check = found("mlflow", mlflow=proxy.url)
            assert check.status == "failed" and check.remedy == "upgrade the older one"

    def test_no_answer(self, found: Found) -> None:
        check = found("mlflow", mlflow="http://127.0.0.1:1")
        assert check.status == "failed" and check.remedy.startswith("start the server or correct MLFLOW_TRACKING_URI")

    def test_a_database_is_for_this_machine_alone(self, found: Found, tmp_path: Path) -> None:
        check = found("mlflow", mlflow=f"sqlite:///{tmp_path}/mlflow.db")
        assert (check.status, check.remedy) == ("warning", "set MLFLOW_TRACKING_URI: tasks on a cluster need one")
        assert not (tmp_path / "mlflow.db").exists()


class TestRemote:
    def test_sound(self, project: Path, found: Found, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
        set_remote(project, f"{bucket.uri}/dvc", bucket.endpoint)
        check = found("dvc remote")
        assert check.status == "ok" and "AWS_REQUEST_CHECKSUM_CALCULATION=when_required" in check.what
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        assert "CHECKSUM" not in found("dvc remote").what

    def test_none(self, project: Path, found: Found) -> None:
        assert found("dvc remote").status == "skipped"
        shutil.rmtree(project / ".dvc")
        check = found("dvc remote")
        assert check.status == "failed" and check.remedy == "go to one, or mend .dvc/config"

    def test_broken(self, project: Path, found: Found, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
        set_remote(project, "s3://no-such-bucket/dvc", bucket.endpoint)
        check = found("dvc remote")
        assert check.status == "failed" and "the bucket of s3://no-such-bucket does not exist" in check.what
        set_remote(project, "/mnt/dvc")
        assert "is not in S3, expected s3://bucket/prefix" in found("dvc remote").what
        set_remote(project, f"{bucket.uri}/dvc", bucket.endpoint)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        check = found("dvc remote")
        assert check.status == "failed" and check.remedy.startswith("set AWS_ACCESS_KEY_ID")


def test_checkpoints(found: Found, bucket: Bucket) -> None:
    assert found("checkpoints").status == "skipped"
    there = replace(TARGET, checkpoints=f"{bucket.uri}/checkpoints", s3_endpoint_url=bucket.endpoint)
    assert found("checkpoints", target=there).status == "ok"
    check = found("checkpoints", target=replace(there, checkpoints="s3://no-such-bucket/checkpoints"))
    assert check.status == "failed" and "the bucket of s3://no-such-bucket does not exist" in check.what
    check = found("checkpoints", target=replace(there, s3_endpoint_url="http://127.0.0.1:9"))
    assert (check.status, check.remedy) == ("warning", "see that tasks reach it: this machine need not")


@pytest.mark.parametrize(
    ("content", "status", "remedy"),
    [
        (json.dumps({"cpu": IMAGE}), "ok", ""),
        (json.dumps({"cpu": IMAGE[:-64] + "0" * 64}), "failed", "run `make images REGISTRY=...`"),
        (json.dumps({"cpu": "sha256:" + "1" * 64}), "failed", "`make images REGISTRY=...` pushes images"),
        (json.dumps({"cpu": "dagnn:latest"}), "failed", ""),
        ("[]", "failed", "`make images` writes it again"),
        (None, "failed", "`make images` builds the images"),
    ],
)
def test_images(project: Path, found: Found, content: str | None, status: str, remedy: str) -> None:
    file = project / "infra/images.json"
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    check = found("images")
    assert check.status == status and check.remedy.startswith(remedy)


class TestKubernetes:
    def test_a_secret_is_there_and_stays_there(self, kubernetes: Kubernetes, found: Found) -> None:
        kubernetes.secrets = ["s3-credentials"]
        assert found("secret s3-credentials") == ("secret s3-credentials", "ok", "is in namespace team", "")
        assert all("as=PartialObjectMetadata" in accept for accept in kubernetes.accepted)

    def test_a_secret_is_missing(self, kubernetes: Kubernetes, found: Found) -> None:
        check = found("secret s3-credentials")
        assert check.status == "failed"
        assert re.fullmatch(r"secret s3-credentials in namespace team of http://\S+ does not exist", check.what)
        with pytest.raises(
            InputError, match=r"s3-credentials in namespace team of .* does not exist; infra/kubernetes"
        ):
            require_named("team", TARGET)
        kubernetes.secrets = ["s3-credentials"]
        require_named("team", TARGET)
        assert check.remedy == "infra/kubernetes/secrets.example.yaml says how to make it"

    def test_every_secret_that_the_target_names_is_looked_for(self, kubernetes: Kubernetes, found: Found) -> None:
        target = replace(TARGET, image_pull_secrets=("registry",), secret_env=("HF_TOKEN=hugging-face/token",))
        check = found("secret registry", target=target)
        assert (check.status, check.remedy) == ("failed", "`kubectl create secret docker-registry registry` makes it")
        check = found("secret hugging-face", target=target)
        assert (check.status, check.remedy) == ("failed", "`kubectl create secret generic hugging-face` makes it")
        kubernetes.secrets = ["s3-credentials", "registry", "hugging-face"]
        require_named("team", target)

    def test_gpus(self, kubernetes: Kubernetes, found: Found) -> None:
        check = found("gpu")
        assert check.status == "failed" and "offer 0 nvidia.com/gpu, expected 1 for a training" in check.what
        kubernetes.gpus = ["4", "2"]
        assert found("gpu") == ("gpu", "ok", "6 nvidia.com/gpu on the cluster's nodes, some of which may be in use", "")
        many = replace(TARGET, checkpoints="s3://dagnn/checkpoints", train=TrainResources(nodes=7))
        check = found("gpu", target=many)
        assert "offer 6 nvidia.com/gpu, expected 7" in check.what and check.remedy.endswith("or train.nodes")

    @pytest.mark.parametrize("name", ["secret s3-credentials", "gpu"])
    @pytest.mark.parametrize(("status", "outcome"), [(403, "skipped"), (401, "skipped"), (500, "failed")])
    def test_a_server_that_refuses(
        self, kubernetes: Kubernetes, found: Found, name: str, status: int, outcome: str
    ) -> None:
        kubernetes.status = status
        check = found(name)
        assert check.status == outcome and str(status) in check.what

    @pytest.mark.parametrize("name", ["secret s3-credentials", "gpu"])
    def test_no_server(self, found: Found, name: str, name_cluster: Callable[[str], None]) -> None:
        assert found(name) == (name, "skipped", "no cluster is named: kubectl has no configuration here", "")
        name_cluster("http://127.0.0.1:1")
        check = found(name)
        assert check.status == "failed" and "cannot be reached" in check.what

    @pytest.mark.parametrize("content", ["{", "text", "- 1", "\t"])
    def test_a_damaged_configuration(
        self, found: Found, tmp_path: Path, name_cluster: Callable[[str], None], content: str
    ) -> None:
        name_cluster("http://127.0.0.1:1")
        (tmp_path / "kubeconfig").write_text(content)
        check = found("gpu")
        assert check.status == "failed" and check.remedy == "`kubectl config view` says where"

    def test_no_namespace(self, kubernetes: Kubernetes, found: Found, caplog: pytest.LogCaptureFixture) -> None:
        assert found("secret s3-credentials", namespace="").status == "skipped"
        require_named("", TARGET)
        (message,) = caplog.messages
        assert message.startswith("secret s3-credentials was not looked for: no namespace is named: --namespace, or")


CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n"
CA = CaConfigMap(name="company-ca", key="bundle.pem")


class TestCertificates:
    target = replace(TARGET, ca_config_map=CA)

    def test_sound(self, kubernetes: Kubernetes, found: Found) -> None:
        kubernetes.config_maps = {"company-ca": {"bundle.pem": CERTIFICATE * 140}}
        assert found("config map company-ca", target=self.target)[1:] == ("ok", "has 140 certificates", "")

    def test_without_the_public_ones(self, kubernetes: Kubernetes, found: Found) -> None:
        kubernetes.config_maps = {"company-ca": {"bundle.pem": CERTIFICATE}}
        check = found("config map company-ca", target=self.target)
        assert (check.status, check.what) == ("warning", "has 1 certificates, which replace the public ones")
        assert check.remedy.startswith("add the public ones, unless tasks reach no server beyond the cluster")

    def test_missing(self, kubernetes: Kubernetes, found: Found) -> None:
        check = found("config map company-ca", target=self.target)
        assert check.status == "failed" and "config map company-ca in namespace team of http" in check.what
        kubernetes.config_maps = {"company-ca": {"ca.crt": CERTIFICATE}}
        check = found("config map company-ca", target=self.target)
        assert check.what.endswith("has no certificates in its key bundle.pem (its keys: ca.crt)")
        kubernetes.secrets = ["s3-credentials"]
        with pytest.raises(InputError, match=r"no certificates in its key bundle\.pem .*; correct ca_config_map\.key"):
            require_named("team", self.target)


class TestScratch:
    def test_of_a_class(self, kubernetes: Kubernetes, found: Found) -> None:
        target = replace(TARGET, scratch=Scratch(size="9Gi", storage_class="fast"))
        check = found("scratch", target=target)
        assert check.status == "failed" and re.match(r"storage class fast of http\S+ does not exist", check.what)
        kubernetes.storage_classes = {"fast": False}
        assert found("scratch", target=target) == ("scratch", "ok", "9Gi of the storage class fast", "")

    def test_of_the_default_class(self, kubernetes: Kubernetes, found: Found) -> None:
        target = replace(TARGET, scratch=Scratch(size="9Gi"))
        kubernetes.storage_classes = {"slow": False}
        check = found("scratch", target=target)
        assert check.status == "failed" and check.remedy == "name one in scratch.storage_class"
        kubernetes.storage_classes = {"slow": False, "fast": True}
        assert found("scratch", target=target).what == "9Gi of the default storage class fast"


class TestTrainer:
    target = replace(TARGET, checkpoints="s3://dagnn/checkpoints", train=TrainResources(nodes=2))

    def test_is_not_looked_for_where_one_process_trains(self) -> None:
        alone = replace(self.target, train=TrainResources())
        assert not {"trainer", "trainer rights"} & set(cluster_checks("team", alone))
        assert {"trainer", "trainer rights"} <= set(cluster_checks("team", replace(alone, gpu=Gpu(count=2))))

    def test_is_there(self, kubernetes: Kubernetes, found: Found) -> None:
        kubernetes.trainer, kubernetes.rights = True, {"default-editor": rights_of_role()}
        check = found("trainer", target=self.target)
        assert check.status == "ok" and check.what.endswith("knows TrainJobs")
        check = found("trainer rights", target=self.target)
        what = "the account default-editor in namespace team may start and follow TrainJobs"
        assert check == ("trainer rights", "ok", what, "")

    def test_is_missing(self, kubernetes: Kubernetes, found: Found) -> None:
        kubernetes.secrets = ["s3-credentials"]
        check = found("trainer", target=self.target)
        assert check.status == "failed" and re.match(r"Kubeflow Trainer is not installed on http\S+, which", check.what)
        with pytest.raises(InputError, match=r"Kubeflow Trainer is not installed on .*; install version 2\.1 or later"):
            require_named("team", self.target)

    @pytest.mark.parametrize("right", sorted(rights_of_role()))
    def test_every_right_is_looked_for(self, kubernetes: Kubernetes, right: tuple[str, str]) -> None:
        kubernetes.trainer, kubernetes.rights = True, {"tasks": rights_of_role() - {right}}
        kubernetes.secrets = ["s3-credentials"]
        message = (
            rf"the account tasks in namespace team must not {right[1]} {right[0]}; apply infra/kubernetes/training"
        )
        with pytest.raises(InputError, match=message):
            require_named("team", self.target, "tasks")

    def test_rights_that_one_may_not_ask_for(self, kubernetes: Kubernetes, found: Found) -> None:
        kubernetes.status = 403
        check = found("trainer rights", target=self.target)
        assert check.status == "skipped" and "does not let you see the rights of default-editor (403)" in check.what

    def test_the_account_is_kubeflows_own(self) -> None:
        assert [_account_of_kubeflow(name) for name in ("kubeflow", "team")] == ["pipeline-runner", "default-editor"]


def node(
    *, labels: Mapping[str, str] | None = None, taints: Sequence[str] = (), memory: str = "64Gi", gpus: str = "0"
) -> dict[str, Any]:
    """A node as Kubernetes lists it; taints as `key:effect`."""
    keys = [dict(zip(("key", "effect"), taint.split(":"), strict=True)) for taint in taints]
    resources = {"cpu": "8", "memory": memory, "nvidia.com/gpu": gpus}
    return {"metadata": {"labels": labels or {}}, "spec": {"taints": keys}, "status": {"allocatable": resources}}


class TestNodes:
    general, memory = node(), node(labels={"pool": "memory"}, taints=("dedicated:NoSchedule", "old:PreferNoSchedule"))
    gpus = node(taints=("nvidia.com/gpu:NoSchedule",), gpus="1")
    heavy = Resources(memory_request="16Gi", node_selector=("pool=memory",), tolerations=("dedicated",))
    target = replace(TARGET, heavy=heavy, gpu=Gpu(count=1, toleration="nvidia.com/gpu"))

    def test_each_size_has_one(self, kubernetes: Kubernetes, found: Found) -> None:
        kubernetes.nodes = [self.general, self.memory, self.gpus]
        check = found("nodes", target=self.target)
        what = "of 3 nodes, 1 can run light tasks, 1 can run heavy tasks, 1 can run train tasks"
        assert check == ("nodes", "ok", what, "")

    @pytest.mark.parametrize(
        ("lacking", "size"),
        [
            (node(labels={"pool": "other"}, taints=("dedicated:NoSchedule",)), "heavy"),
            (node(labels={"pool": "memory"}, taints=("reserved:NoSchedule",)), "heavy"),
            (node(labels={"pool": "memory"}, taints=("dedicated:NoSchedule",), memory="15Gi"), "heavy"),
            ({**memory, "spec": {"unschedulable": True}}, "heavy"),
            (None, "train"),
        ],
    )
    def test_a_size_has_none(
        self, kubernetes: Kubernetes, found: Found, lacking: dict[str, Any] | None, size: str
    ) -> None:
        kubernetes.nodes = [self.general, self.gpus, lacking] if lacking else [self.general, self.memory]
        check = found("nodes", target=self.target)
        assert check.status == "warning" and f"0 can run {size} tasks" in check.what
        assert check.remedy.startswith(
            f"correct {size}.node_selector, tolerations and requests, unless the cluster adds"
        )


class TestKubeflowsMlflow:
    target = replace(TARGET, experiment="dagnn")

    @pytest.fixture
    def look(self, server: KubeflowServer, found: Found) -> Callable[..., Diagnosis]:
        kubeflow = Kubeflow(host=server.url)
        server.experiments["1"] = {"experiment_id": "1", "namespace": "", "display_name": "dagnn"}

        def do(*runs: dict[str, Any], target: Target = self.target) -> Diagnosis:
            for number, run in enumerate(runs):
                facts = {"run_id": f"r{number}", "experiment_id": "1", "created_at": f"2026-11-28T00:00:0{number}Z"}
                server.runs[facts["run_id"]] = {**facts, "state": "SUCCEEDED", **run}
            return found("kubeflow mlflow", kubeflow=kubeflow, target=target)

        return do

    def test_is_on(self, look: Callable[..., Diagnosis]) -> None:
        """The newest run that was not told to do without shows it, as recorded."""
        output = recorded("from_cache_with_mlflow_plugin")["plugins_output"]
        told = {"plugins_input": {"mlflow": {"disabled": True}}}
        check = look({}, {"plugins_output": output}, told)
        assert (check.status, check.what) == ("warning", "on: run r1 is in the MLflow experiment 'kfp-default'")
        assert check.remedy == "submit with this target, which sends runs to 'dagnn'"
        assert look(target=replace(self.target, experiment="kfp-default")).status == "ok"

    def test_is_off(self, look: Callable[..., Diagnosis], found: Found) -> None:
        assert look().status == "skipped" and found("kubeflow mlflow").status == "skipped"
        check = look({})
        assert (check.status, check.what) == ("ok", "off: run r0 has no MLflow run of Kubeflow's own")
        assert "turns it off" in look(target=replace(self.target, kubeflow_mlflow=False)).what

    def test_is_no_second_fault_of_a_server_that_does_not_answer(self, found: Found) -> None:
        check = found("kubeflow mlflow", kubeflow=Kubeflow(host="http://127.0.0.1:1", pause=0.0))
        assert (check.status, check.what) == ("skipped", "its runs cannot be read: see the check `kubeflow`")

    def test_has_failed(self, look: Callable[..., Diagnosis]) -> None:
        failed = {"state": "PLUGIN_FAILED", "state_message": "MLflow answers 403"}
        check = look({"plugins_output": {"mlflow": failed}})
        assert (check.status, check.what) == ("warning", "on, but failed for run r0: MLflow answers 403")


def test_the_root_of_the_artifacts(found: Found, bucket: Bucket) -> None:
    assert found("pipeline root").status == "skipped"
    there = replace(TARGET, pipeline_root=f"{bucket.uri}/runs", s3_endpoint_url=bucket.endpoint)
    assert found("pipeline root", target=there).status == "ok"
    check = found("pipeline root", target=replace(there, pipeline_root="s3://no-such-bucket"))
    assert check.status == "failed" and "the bucket of s3://no-such-bucket does not exist" in check.what
    assert found("pipeline root", target=replace(there, pipeline_root="minio://mlpipeline")).status == "skipped"


class TestAllAtOnce:
    def test_side_by_side_in_the_order_of_the_checks(self) -> None:
        together = Barrier(3)

        def check(name: str) -> Note:
            return Note(f"{name} {together.wait(timeout=30) >= 0}")  # breaks where they come one after the other

        names = ["kubeflow", "images", "gpu"]
        found = list(look_at_all({name: partial(check, name) for name in names}))
        assert found == [Diagnosis(name, "ok", f"{name} True") for name in names]

    def test_each_result_comes_when_those_before_it_are_there(self) -> None:
        release = Event()
        checks = {"python": lambda: Note("first"), "gpu": lambda: Note(f"released {release.wait(30)}")}
        found = look_at_all(checks)
        assert next(found).what == "first"
        release.set()
        assert next(found).what == "released True"

    def test_a_check_that_hangs_does_not_keep_the_others(self) -> None:
        release = Event()
        checks = {"kubeflow": lambda: Note(str(release.wait(30))), "gpu": lambda: Note("2 GPUs")}
        hung, sound = look_at_all(checks, seconds=0.2)
        release.set()
        assert hung == ("kubeflow", "failed", "no result within 0.2 s", "check its address and the network")
        assert sound == ("gpu", "ok", "2 GPUs", "")

    def test_a_mistake_of_ours_is_not_a_finding(self) -> None:
        def wrong() -> Note:
            raise KeyError("wrong")

        with pytest.raises(KeyError, match="wrong"):
            list(look_at_all({"gpu": wrong}))

    @pytest.mark.slow
    def test_mlflow_is_imported_in_another_process(self) -> None:
        program = (
            "import sys\n"
            "from functools import partial\n"
            "from components.services.tracking.mlflow import Tracking\n"
            "from pipeline.doctor import _mlflow, look_at_all\n"
            "if __name__ == '__main__':\n"
            "    check = partial(_mlflow, Tracking(uri='http://127.0.0.1:1'))\n"
            "    (check,) = look_at_all({'mlflow': check}, seconds=100)\n"
            "    print(check.status, check.remedy, 'mlflow' in sys.modules)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert re.fullmatch(r"failed start the server or correct .* False\n", done.stdout), done.stderr

    def test_a_process_that_dies(self) -> None:
        name, _ = sorted(APART)
        (check,) = look_at_all({name: partial(os._exit, 7)}, seconds=100)
        assert check.status == "failed" and check.what == "the process of this check ended with exit status 7"

"""What a target says of a real cluster, in the pods of the compiled pipeline: each key where Kubernetes reads it."""

import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from components.params_file import load_params
from components.services.storage.s3 import Storage
from components.services.tracking.mlflow import Tracking
from dagnn_core.errors import BackendError, causes
from pipeline.compiling import write_pipeline
from pipeline.graph import PipelineOptions, RawDataVersion
from pipeline.images import Images
from pipeline.outcome import RunServer
from pipeline.pods import pod_request
from pipeline.promotion import write_promotion
from pipeline.step_table import STEPS
from pipeline.target import FOLDER, VARIABLES, Gpu, Scratch, Target, plugins_input, read_target
from tests.pipeline.specs import Spec, kubernetes_of, pod_of, read_specs

ROOT = Path(__file__).parents[2]
IMAGES = Images("registry.example/cpu@sha256:" + "0" * 64, "registry.example/gpu@sha256:" + "0" * 64)
WHOLE = PipelineOptions(
    raw=RawDataVersion(uri="s3://images/raw"), seeds=(7, 8), promote=True, check=True, champion_dataset="s3://runs/data"
)
CLUSTERS = sorted(path.stem for path in (ROOT / FOLDER).glob("*.yaml"))
KUBERNETES = "1.36"
# of Kubeflow's own volumes in the pods of tasks
KUBEFLOW_VOLUMES = {
    "kfp-launcher",
    "ca-secret",
    "ca-configmap",
    *(f"{name}-scratch" for name in ("gcs", "s3", "minio")),
}
KUBEFLOW_VOLUMES |= {f"dot-{name}-scratch" for name in ("local", "cache", "config")}


def shipped(name: str) -> Target:
    return read_target(str(ROOT / FOLDER / f"{name}.yaml"))


def pods_of(target: Target, folder: Path) -> dict[str, Spec]:
    """Name of a step -> its pod."""
    out = folder / "pipeline.yaml"
    params = load_params(ROOT / "params.yaml")
    params |= {"features": replace(params["features"], shards=2)}
    write_pipeline(out, images=IMAGES, params=params, target=target, options=WHOLE)
    pipeline, platform = read_specs(out)
    return {name: pod_of(pipeline, platform, f"exec-{name.replace('_', '-')}") for name in STEPS if name != "tune"}


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Spec]:
    return pods_of(shipped("private-cluster"), tmp_path_factory.mktemp("compiled"))


def main(pod: Spec) -> Spec:
    (container,) = pod["spec"]["containers"]
    return container  # type: ignore[no-any-return]


def values(pod: Spec) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in main(pod)["env"] if "value" in entry}


def entries(pod: Spec) -> dict[str, tuple[str, str]]:
    """Variable -> secret and key."""
    references = {entry["name"]: entry.get("valueFrom", {}).get("secretKeyRef") for entry in main(pod)["env"]}
    return {name: (found["name"], found["key"]) for name, found in references.items() if found}


def test_every_key_is_in_use() -> None:
    """The target that these tests compile differs from the defaults in every key that pods or runs show."""
    target, default = shipped("private-cluster"), Target(mlflow_uri="http://mlflow")
    same = {key for key in Target.__pydantic_fields__ if getattr(target, key) == getattr(default, key)}  # type: ignore[attr-defined]
    times = {"light_seconds", "heavy_seconds", "train_seconds", "backend_patience"}
    assert same == {"mlflow_direct_s3", "kubeflow_url", "kubeflow_mlflow", *times}


@pytest.mark.parametrize("name", CLUSTERS)
def test_kubernetes_takes_every_pod(name: str, tmp_path: Path) -> None:
    schemas = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed: make setup")
    for pod in pods_of(shipped(name), tmp_path).values():
        schemas.validate(pod, KUBERNETES, strict=True)


def test_a_schema_refuses_what_is_no_pod(pods: dict[str, Spec]) -> None:
    schemas = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed: make setup")
    broken = {**pods["train"], "spec": {**pods["train"]["spec"], "tolerations": [{"keys": "gpu"}]}}
    with pytest.raises(schemas.ValidationError):
        schemas.validate(broken, KUBERNETES, strict=True)


def test_all_pods_are_pulled_with_the_secret_and_carry_labels_and_annotations(pods: dict[str, Spec]) -> None:
    for pod in pods.values():
        assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["metadata"]["labels"] == {"cost-centre": "4711", "sidecar.istio.io/inject": "false"}
        assert pod["metadata"]["annotations"] == {"example.org/owner": "images"}


def test_each_size_goes_to_its_nodes(pods: dict[str, Spec]) -> None:
    selectors = {"light": {"pool": "general"}, "heavy": {"pool": "memory"}}
    dedicated = {"key": "dedicated", "operator": "Equal", "value": "images", "effect": "NoSchedule"}
    tolerations = {"light": [], "heavy": [dedicated]}
    for name, step in STEPS.items():
        if step.size != "train":
            assert pods[name]["spec"]["nodeSelector"] == selectors[step.size], name
            assert pods[name]["spec"]["tolerations"] == tolerations[step.size], name
    assert pods["train"]["spec"]["nodeSelector"] == {"pool": "gpu", "nvidia.com/mig.strategy": "mixed"}
    assert pods["train"]["spec"]["tolerations"] == [
        dedicated,
        {"key": "spot", "operator": "Exists"},
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    ]


def test_the_training_gets_a_slice_of_a_gpu(pods: dict[str, Spec]) -> None:
    for name, pod in pods.items():
        assert main(pod)["resources"]["limits"].get("nvidia.com/mig-3g.40gb") == ("1" if name == "train" else None)


def test_without_gpus_the_training_keeps_the_nodes_of_its_size(tmp_path: Path) -> None:
    target = replace(shipped("private-cluster"), gpu=Gpu(count=0, node_selector=("gpu=h100",), toleration="gpu"))
    train = pods_of(target, tmp_path)["train"]["spec"]
    assert train["nodeSelector"] == {"pool": "gpu"}
    assert [entry["key"] for entry in train["tolerations"]] == ["dedicated", "spot"]


def test_all_tasks_have_the_variables(pods: dict[str, Spec]) -> None:
    for pod in pods.values():
        assert values(pod)["HTTPS_PROXY"] == "http://proxy.example.org:3128"
        assert values(pod)["NO_PROXY"] == ".svc,.cluster.local,ml-pipeline.kubeflow,.example.org"
        assert entries(pod)["HF_TOKEN"] == ("hugging-face", "token")
        names = [entry["name"] for entry in main(pod)["env"]]
        assert len(names) == len(set(names))


def test_two_variables_may_take_one_entry_of_a_secret(tmp_path: Path) -> None:
    target = replace(
        shipped("private-cluster"), secret_env=("A=s3-credentials/access-key", "B=s3-credentials/access-key")
    )
    found = entries(pods_of(target, tmp_path)["train"])
    assert {found[name] for name in ("A", "B", "AWS_ACCESS_KEY_ID")} == {("s3-credentials", "access-key")}


def test_one_bundle_of_certificates_serves_every_client(pods: dict[str, Spec]) -> None:
    for pod in pods.values():
        (volume,) = (entry for entry in pod["spec"]["volumes"] if "configMap" in entry)
        assert volume["configMap"] == {"name": "company-ca", "optional": False}
        (mount,) = (entry for entry in main(pod)["volumeMounts"] if entry["name"] == volume["name"])
        bundle = f"{mount['mountPath']}/ca-bundle.crt"
        clients = {"requests": "REQUESTS_CA_BUNDLE", "boto3": "AWS_CA_BUNDLE", "curl": "CURL_CA_BUNDLE"}
        for variable in (*clients.values(), "SSL_CERT_FILE"):
            assert values(pod)[variable] == bundle


def test_what_tasks_write_goes_to_a_volume_of_its_own(pods: dict[str, Spec], tmp_path: Path) -> None:
    for pod in pods.values():
        (volume,) = (entry for entry in pod["spec"]["volumes"] if "ephemeral" in entry)
        assert volume["ephemeral"]["volumeClaimTemplate"]["spec"] == {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "200Gi"}},
            "storageClassName": "fast-disks",
        }
        (mount,) = (entry for entry in main(pod)["volumeMounts"] if entry["name"] == volume["name"])
        assert mount["mountPath"] == "/tmp"  # the home of the images' user, and where their temporary files go
    target = replace(shipped("private-cluster"), scratch=Scratch(size="9Gi"))
    out = tmp_path / "pipeline.yaml"
    params = load_params(ROOT / "params.yaml")
    params |= {"features": replace(params["features"], shards=2)}
    write_pipeline(out, images=IMAGES, params=params, target=target, options=WHOLE)
    pipeline, platform = read_specs(out)
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    assert {parameters[key]["defaultValue"] for key in ("cache", "work")} == {"/tmp/dagnn/cache", "/tmp/dagnn/work"}
    (volume,) = kubernetes_of(platform)["exec-train"]["genericEphemeralVolume"]
    assert volume["defaultStorageClass"] is True and "storageClassName" not in volume


def test_no_volume_has_a_name_or_place_of_another(pods: dict[str, Spec]) -> None:
    for pod in pods.values():
        names = [entry["name"] for entry in pod["spec"]["volumes"]]
        places = [entry["mountPath"] for entry in main(pod)["volumeMounts"]]
        assert len({*names, *KUBEFLOW_VOLUMES}) == len(names) + len(KUBEFLOW_VOLUMES)
        assert len(set(places)) == len(places)


@pytest.mark.parametrize(("root", "compiled"), [("s3://images/runs", "s3://images/runs"), ("", None)])
def test_runs_store_their_artifacts_below_the_root(root: str, compiled: str | None, tmp_path: Path) -> None:
    target = replace(shipped("private-cluster"), pipeline_root=root)
    write_pipeline(tmp_path / "p.yaml", images=IMAGES, params=load_params(ROOT / "params.yaml"), target=target)
    write_promotion(tmp_path / "q.yaml", images=IMAGES, target=target)
    for file in ("p.yaml", "q.yaml"):
        pipeline, _ = read_specs(tmp_path / file)
        assert pipeline.get("defaultPipelineRoot") == compiled


def test_the_integration_of_kubeflow_is_told_the_experiment() -> None:
    target = shipped("private-cluster")
    assert plugins_input(target) == {"mlflow": {"experiment_name": "images"}}
    assert plugins_input(replace(target, kubeflow_mlflow=False)) == {"mlflow": {"disabled": True}}


def test_every_variable_that_the_target_sets_is_known_as_its_own() -> None:
    """What `env` must not set is a table: here it is compared with what pods get."""
    target = replace(shipped("private-cluster"), env=(), secret_env=())
    requests = [pod_request(name, target) for name in STEPS]
    variables = {name for request in requests for name in (*request.env, *request.secret_env)}
    assert variables == set(VARIABLES) - {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"}


def test_compiled_bytes_of_a_target_without_these_keys_have_none_of_them(tmp_path: Path) -> None:
    for pod in pods_of(shipped("kind"), tmp_path).values():
        assert "labels" not in pod["metadata"] and pod["spec"]["imagePullSecrets"] == []
        assert {next(iter(set(volume) - {"name"})) for volume in pod["spec"]["volumes"]} <= {"emptyDir"}


@pytest.fixture
def https(certificates: tuple[Path, Path]) -> Iterator[str]:
    """A server that answers everything with an empty JSON object."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(b"{}")

        do_HEAD = do_POST = do_GET

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates[1])
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"https://127.0.0.1:{listener.server_address[1]}"
    listener.shutdown()
    listener.server_close()


@pytest.mark.parametrize("trusted", [True, False])
def test_every_client_of_the_tasks_goes_by_the_variables(
    https: str, certificates: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, *, trusted: bool
) -> None:
    """S3, MLflow, the webhook, Kubeflow's API and Python's own client, each against a server of the private CA."""
    env = pod_request("train", shipped("private-cluster")).env
    for name in (name for name, value in env.items() if value.endswith("ca-bundle.crt")):
        monkeypatch.setenv(name, str(certificates[0])) if trusted else monkeypatch.delenv(name, raising=False)
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "eu-1"}.items():
        monkeypatch.setenv(name, value)
    clients: dict[str, Callable[[], object]] = {
        "S3": lambda: Storage(endpoint_url=https, attempts=1).check_bucket("s3://images"),
        "MLflow": lambda: Tracking(uri=https).client,
        "webhook": lambda: requests.post(https, json={}, timeout=5),
        "Kubeflow": lambda: RunServer(url=https).run("1"),
        # `urlopen` would take the opener of an earlier call, which knows the certificates of then
        "Python": lambda: urllib.request.build_opener().open(https, timeout=5).close(),
    }
    for name, ask in clients.items():
        if trusted:
            ask()
        else:
            with pytest.raises((BackendError, requests.ConnectionError, OSError)) as refused:
                ask()
            assert "certificate verify failed" in " ".join(map(str, causes(refused.value))).lower(), name

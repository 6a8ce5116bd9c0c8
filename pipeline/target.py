"""What differs from cluster to cluster: addresses, names of secrets, kinds of nodes; read from a YAML file."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from dagnn_core.errors import InputError

FOLDER = Path("configs/clusters")

_CORES = re.compile(r"\d+(\.\d+)?|\d+m")
_BYTES = re.compile(r"\d+([KMGT]i?)?")


def _require(condition: bool, key: str, expected: str, got: object) -> None:
    if not condition:
        raise InputError(f"{key} must be {expected}, got {got!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What a pod asks for, and what it gets at most, in Kubernetes' notation."""

    cpu_request: str = "500m"
    """Cores."""
    cpu_limit: str = "2"
    """Cores."""
    memory_request: str = "1Gi"
    """Bytes."""
    memory_limit: str = "4Gi"
    """Bytes; more ends the pod."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """The GPUs of the training."""

    count: int = 0
    """0: trains without."""
    type: str = "nvidia.com/gpu"
    """The resource that Kubernetes counts."""
    node_selector: tuple[str, ...] = ()
    """Labels of the nodes to train on, as `key=value`."""
    toleration: str = ""
    """Key of the taint that keeps other pods off these nodes; empty: none."""

    def __post_init__(self) -> None:
        _require(self.count >= 0, "gpu.count", ">= 0", self.count)
        for label in self.node_selector:
            _require(re.fullmatch(r"[^=]+=[^=]*", label) is not None, "gpu.node_selector", "key=value", label)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A cluster; secrets are known by their names alone."""

    mlflow_uri: str = ""
    """The tracking server, as tasks reach it; it must be said."""
    namespace: str = ""
    """That the tasks run in, where no other is named; empty: not known, so that their secrets are not looked for."""
    experiment: str = "dagnn"
    """MLflow experiment of the trainings."""
    mlflow_secret: str = ""
    """Secret with the keys `username` and `password` of an MLflow account; empty: the server asks for none."""
    mlflow_direct_s3: bool = False
    """Whether tasks move MLflow's large files past its server, by addresses of the store that it names."""
    s3_endpoint_url: str = ""
    """The S3 store, as tasks reach it; empty: AWS."""
    data_endpoint_url: str = ""
    """The store of the raw data, as tasks reach it, where it is another; empty: the same."""
    s3_region: str = "us-east-1"
    """Its region."""
    s3_secret: str = ""
    """Secret with the keys `access-key` and `secret-key`; empty: the pods' service account has the right itself."""
    checkpoints: str = ""
    """`s3://bucket/prefix` where a training that is started again finds its checkpoints; empty: nowhere."""
    kubeflow_url: str = "http://ml-pipeline.kubeflow:8888"
    """API of Kubeflow Pipelines, as tasks reach it: the exit handler asks it how the tasks ended; empty: it is not."""
    webhook_secret: str = ""
    """Secret with the key `url` of a webhook that gets the outcome of each run; empty: none."""
    light: Resources = Resources()
    """Of tasks that hardly compute: fetching, registering, promoting."""
    heavy: Resources = Resources(cpu_request="1", cpu_limit="4", memory_request="4Gi", memory_limit="16Gi")
    """Of tasks that compute: data set, features, label graph, evaluation."""
    train: Resources = Resources(cpu_request="2", cpu_limit="8", memory_request="8Gi", memory_limit="32Gi")
    """Of the training."""
    gpu: Gpu = Gpu()
    """Of the training."""
    shared_memory: str = "2Gi"
    """Size of /dev/shm, a part of the pod's memory, in tasks that compute."""
    light_seconds: int = 7200
    """Time after which each attempt at a task that hardly computes is ended."""
    heavy_seconds: int = 86400
    """The same of a task that computes."""
    train_seconds: int = 86400
    """The same of a training."""
    backend_patience: int = 600
    """Seconds for which a task waits for S3, MLflow or the webhook that does not answer; 0: it fails soon."""

    def __post_init__(self) -> None:
        is_http = self.mlflow_uri.startswith(("http://", "https://"))
        _require(is_http, "mlflow_uri", "a server's URL (a local file would vanish with its pod)", self.mlflow_uri)
        _require("@" not in self.mlflow_uri, "mlflow_uri", "without credentials: name mlflow_secret", "one with @")
        is_http = not self.kubeflow_url or bool(re.fullmatch(r"https?://[^@?#\s]+", self.kubeflow_url))
        got = "one with @" if "@" in self.kubeflow_url else self.kubeflow_url
        _require(is_http, "kubeflow_url", "a server's URL without credentials", got)
        is_label = re.fullmatch(r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?", self.namespace)
        _require(bool(is_label), "namespace", "the name of a Kubernetes namespace, as 'kubeflow'", self.namespace)
        for key in ("s3_endpoint_url", "data_endpoint_url"):
            url = getattr(self, key)
            is_url = not url or url.startswith(("http://", "https://"))
            _require(is_url, key, "a URL, as https://s3.example.org", url)
        is_s3 = not self.checkpoints or re.fullmatch(r"s3://[^/]+/.+", self.checkpoints)
        _require(bool(is_s3), "checkpoints", "s3://bucket/prefix", self.checkpoints)
        for size in ("light", "heavy", "train"):
            for key in ("cpu_request", "cpu_limit"):
                cores = getattr(getattr(self, size), key)
                _require(bool(_CORES.fullmatch(cores)), f"{size}.{key}", "a number of cores, as '2' or '500m'", cores)
            for key in ("memory_request", "memory_limit"):
                memory = getattr(getattr(self, size), key)
                _require(bool(_BYTES.fullmatch(memory)), f"{size}.{key}", "a size, as '4Gi'", memory)
        _require(bool(_BYTES.fullmatch(self.shared_memory)), "shared_memory", "a size, as '2Gi'", self.shared_memory)
        _require(self.backend_patience >= 0, "backend_patience", ">= 0", self.backend_patience)
        for size in ("light", "heavy", "train"):
            seconds = getattr(self, f"{size}_seconds")
            _require(seconds > 0, f"{size}_seconds", "> 0", seconds)
            # a task may wait for one backend after the other
            least = 2 * self.backend_patience
            _require(seconds > least, f"{size}_seconds", f"> 2 * backend_patience = {least}", seconds)


def is_loopback(url: str) -> bool:
    """Whether a URL leads to the machine, or the pod, that uses it."""
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # no URL at all
        return False
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def secrets_of(target: Target) -> list[str]:
    """Names of the secrets that the tasks take something from."""
    return [name for name in (target.s3_secret, target.mlflow_secret, target.webhook_secret) if name]


def read_target(name: str) -> Target:
    """A cluster by the name of a file in `configs/clusters`, or by the path of a YAML file.

    Raises:
        InputError: there is no such file, or a key or value in it is wrong.
    """
    from components.params import load_spec

    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml"))) or f"none, {FOLDER} has no YAML file"
        raise InputError(f"{path} does not exist, expected a cluster ({known}) or the path of a YAML file")
    target = load_spec(path, Target)
    for key in ("mlflow_uri", "s3_endpoint_url", "data_endpoint_url"):
        if is_loopback(url := getattr(target, key)):
            raise InputError(
                f"{path}: {key} must be an address that tasks reach, got {url!r}, which in a pod is the pod itself; "
                "give the name that the cluster has for the server, as http://s3.dagnn:8333"
            )
    return target

"""What differs from cluster to cluster: addresses, names of secrets, kinds of nodes; read from a YAML file."""

import re
from dataclasses import dataclass
from pathlib import Path

from dagnn_core.errors import InputError
from pipeline.shipped import CONFIGS, find_configs

FOLDER = CONFIGS / "clusters"

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
    experiment: str = "dagnn"
    """MLflow experiment of the trainings."""
    mlflow_secret: str = ""
    """Secret with the keys `username` and `password` of an MLflow account; empty: the server asks for none."""
    s3_endpoint_url: str = ""
    """The S3 store; empty: AWS."""
    s3_region: str = "us-east-1"
    """Its region."""
    s3_secret: str = ""
    """Secret with the keys `access-key` and `secret-key`; empty: the pods' service account has the right itself."""
    checkpoints: str = ""
    """`s3://bucket/prefix` where a training that is started again finds its checkpoints; empty: nowhere."""
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
    train_seconds: int = 86400
    """Time after which a training is ended."""

    def __post_init__(self) -> None:
        is_http = self.mlflow_uri.startswith(("http://", "https://"))
        _require(is_http, "mlflow_uri", "a server's URL (a local file would vanish with its pod)", self.mlflow_uri)
        _require("@" not in self.mlflow_uri, "mlflow_uri", "without credentials: name mlflow_secret", "one with @")
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
        _require(self.train_seconds > 0, "train_seconds", "> 0", self.train_seconds)


def secrets_of(target: Target) -> list[str]:
    """Names of the secrets that the tasks take something from."""
    return [name for name in (target.s3_secret, target.mlflow_secret, target.webhook_secret) if name]


def read_target(name: str) -> Target:
    """A cluster by the name of a file in `configs/clusters`, the shipped ones included, or by the path of a YAML file.

    Raises:
        InputError: there is no such file, or a key or value in it is wrong.
    """
    from components.params import load_spec

    known = find_configs("clusters")
    path = Path(name) if name.endswith((".yaml", ".yml")) else known.get(name, FOLDER / f"{name}.yaml")
    if not path.is_file():
        names = ", ".join(sorted(known))
        raise InputError(f"{path} does not exist, expected a cluster ({names}) or the path of a YAML file")
    return load_spec(path, Target)

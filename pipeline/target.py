"""What differs from cluster to cluster: addresses, names of secrets, kinds of nodes; read from a YAML file."""

import re
from dataclasses import asdict
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field

from dagnn_core.config.section import Expected, require, section
from dagnn_core.errors import InputError
from dagnn_core.redaction import without_credentials
from pipeline.placeholders import refuse_placeholders
from pipeline.shipped import CONFIGS, find_configs

FOLDER = CONFIGS / "clusters"

Cores = Annotated[str, Field(pattern=r"^(\d+(\.\d+)?|\d+m)$"), Expected("a number of cores, as '2' or '500m'")]
Bytes = Annotated[str, Field(pattern=r"^\d+([KMGT]i?)?$"), Expected("a size, as '4Gi'")]
Namespace = Annotated[
    str,
    Field(pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$"),
    Expected("the name of a Kubernetes namespace, as 'kubeflow'"),
]
Url = Annotated[str, Field(pattern=r"^(https?://.*)?$"), Expected("a URL, as https://s3.example.org")]
Prefix = Annotated[str, Field(pattern=r"^(s3://[^/]+/.+)?$"), Expected("s3://bucket/prefix")]
Seconds = Annotated[int, Field(gt=0)]

# address -> the setting that names what it is reached with
_SECRETS = {"mlflow_uri": "mlflow_secret", "s3_endpoint_url": "s3_secret", "data_endpoint_url": "s3_secret"}


@section
class Resources:
    """What a pod asks for, and what it gets at most, in Kubernetes' notation."""

    cpu_request: Cores = "500m"
    """Cores."""
    cpu_limit: Cores = "2"
    """Cores."""
    memory_request: Bytes = "1Gi"
    """Bytes."""
    memory_limit: Bytes = "4Gi"
    """Bytes; more ends the pod."""


@section
class Gpu:
    """The GPUs of the training."""

    count: Annotated[int, Field(ge=0)] = 0
    """0: trains without."""
    type: str = "nvidia.com/gpu"
    """The resource that Kubernetes counts."""
    node_selector: tuple[str, ...] = ()
    """Labels of the nodes to train on, as `key=value`."""
    toleration: str = ""
    """Key of the taint that keeps other pods off these nodes; empty: none."""

    def __post_init__(self) -> None:
        for label in self.node_selector:
            require(re.fullmatch(r"[^=]+=[^=]*", label) is not None, "gpu.node_selector", "key=value", label)


@section
class Target:
    """A cluster; secrets are known by their names alone."""

    mlflow_uri: str = ""
    """The tracking server, as tasks reach it; it must be said."""
    namespace: Namespace = ""
    """That the tasks run in, where no other is named; empty: not known, so that their secrets are not looked for."""
    experiment: str = "dagnn"
    """MLflow experiment of the trainings."""
    mlflow_secret: str = ""
    """Secret with the keys `username` and `password` of an MLflow account; empty: the server asks for none."""
    mlflow_direct_s3: bool = False
    """Whether tasks move MLflow's large files past its server, by addresses of the store that it names."""
    s3_endpoint_url: Url = ""
    """The S3 store, as tasks reach it; empty: AWS."""
    data_endpoint_url: Url = ""
    """The store of the raw data, as tasks reach it, where it is another; empty: the same."""
    s3_region: str = "us-east-1"
    """Its region."""
    s3_secret: str = ""
    """Secret with the keys `access-key` and `secret-key`; empty: the pods' service account has the right itself."""
    checkpoints: Prefix = ""
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
    shared_memory: Bytes = "2Gi"
    """Size of /dev/shm, a part of the pod's memory, in tasks that compute."""
    light_seconds: Seconds = 7200
    """Time after which each attempt at a task that hardly computes is ended."""
    heavy_seconds: Seconds = 86400
    """The same of a task that computes."""
    train_seconds: Seconds = 86400
    """The same of a training."""
    backend_patience: Annotated[int, Field(ge=0)] = 600
    """Seconds for which a task waits for S3, MLflow or the webhook that does not answer; 0: it fails soon."""

    def __post_init__(self) -> None:
        is_http = self.mlflow_uri.startswith(("http://", "https://"))
        require(is_http, "mlflow_uri", "a server's URL (a local file would vanish with its pod)", self.mlflow_uri)
        for name, secret in _SECRETS.items():
            url = getattr(self, name)
            is_clean = "@" not in url and without_credentials(url) == url
            require(is_clean, name, f"without credentials: name {secret}", "one with credentials")
        is_http = not self.kubeflow_url or bool(re.fullmatch(r"https?://[^@?#\s]+", self.kubeflow_url))
        got = "one with @" if "@" in self.kubeflow_url else self.kubeflow_url
        require(is_http, "kubeflow_url", "a server's URL without credentials", got)
        for size in ("light", "heavy", "train"):
            seconds = getattr(self, f"{size}_seconds")
            # a task may wait for one backend after the other
            least = 2 * self.backend_patience
            require(seconds > least, f"{size}_seconds", f"> 2 * backend_patience = {least}", seconds)


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
    target = load_spec(path, Target)
    refuse_placeholders(asdict(target), where=path)
    for key in ("mlflow_uri", "s3_endpoint_url", "data_endpoint_url"):
        if is_loopback(url := getattr(target, key)):
            raise InputError(
                f"{path}: {key} must be an address that tasks reach, got {url!r}, which in a pod is the pod itself",
                "give the name that the cluster has for the server, as http://s3.dagnn:8333",
            )
    return target

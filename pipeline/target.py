"""What differs from cluster to cluster: addresses, names of secrets, kinds of nodes; read from a YAML file."""

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field

from dagnn_core.config.section import Expected, parse_section, require, section
from dagnn_core.errors import InputError
from dagnn_core.redaction import without_credentials
from pipeline.notation import (
    read_annotations,
    read_labels,
    read_names,
    read_pod_labels,
    read_secret_variables,
    read_tolerations,
    read_variables,
)
from pipeline.placeholders import refuse_placeholders
from pipeline.shipped import CONFIGS, find_configs

FOLDER = CONFIGS / "clusters"

Cores = Annotated[str, Field(pattern=r"^(\d+(\.\d+)?|\d+m)$"), Expected("a number of cores, as '2' or '500m'")]
Bytes = Annotated[str, Field(pattern=r"^\d+([KMGT]i?)?$"), Expected("a size, as '4Gi'")]
OptionalBytes = Annotated[str, Field(pattern=r"^(\d+([KMGT]i?)?)?$"), Expected("a size, as '200Gi', or empty")]
Namespace = Annotated[
    str,
    Field(pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$"),
    Expected("the name of a Kubernetes namespace, as 'kubeflow'"),
]
ObjectName = Annotated[
    str,
    Field(pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$"),
    Expected("the name of a Kubernetes object, as 'fast-disks'"),
]
VolumeName = Annotated[
    str,
    Field(pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$"),
    Expected("a name of at most 63 lower-case letters, digits and '-', which its volume gets too"),
]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$"), Expected("a key of a config map, as 'ca.crt'")]
ResourceName = Annotated[
    str,
    Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"),
    Expected("the name of a resource, as 'nvidia.com/gpu' or 'nvidia.com/mig-1g.10gb'"),
]
Root = Annotated[
    str,
    Field(pattern=r"^((s3|minio|gs)://[^/?#@\s]+(/[^?#\s]+)?)?$"),
    Expected("s3://bucket/prefix, or the same with minio:// or gs://"),
]
Url = Annotated[str, Field(pattern=r"^(https?://.*)?$"), Expected("a URL, as https://s3.example.org")]
Prefix = Annotated[str, Field(pattern=r"^(s3://[^/]+/.+)?$"), Expected("s3://bucket/prefix")]
Seconds = Annotated[int, Field(gt=0)]

# what Kubeflow Pipelines does not pass on to pods -> what to do instead
_NOT_IN_KUBEFLOW = {
    "priority_class": "have Argo set it for all pods (docs/cluster.md, `podSpecPatch`)",
    "runtime_class": "have Argo set it for all pods (docs/cluster.md, `podSpecPatch`)",
    "ephemeral_storage": "use `scratch`, a volume of its own for what tasks write",
}
# variable -> the key of a target that sets it
VARIABLES = {
    "MLFLOW_TRACKING_URI": "mlflow_uri",
    "MLFLOW_EXPERIMENT_NAME": "experiment",
    "MLFLOW_EXPERIMENT_ID": "kubeflow_mlflow",
    "MLFLOW_RUN_ID": "kubeflow_mlflow",
    "MLFLOW_TRACKING_USERNAME": "mlflow_secret",
    "MLFLOW_TRACKING_PASSWORD": "mlflow_secret",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "mlflow_direct_s3",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "mlflow_direct_s3",
    "AWS_DEFAULT_REGION": "s3_region",
    "AWS_ENDPOINT_URL_S3": "s3_endpoint_url",
    "AWS_REQUEST_CHECKSUM_CALCULATION": "s3_endpoint_url",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "s3_endpoint_url",
    "AWS_ACCESS_KEY_ID": "s3_secret",
    "AWS_SECRET_ACCESS_KEY": "s3_secret",
    "REQUESTS_CA_BUNDLE": "ca_config_map",
    "AWS_CA_BUNDLE": "ca_config_map",
    "CURL_CA_BUNDLE": "ca_config_map",
    "SSL_CERT_FILE": "ca_config_map",
    "DAGNN_BACKEND_PATIENCE": "backend_patience",
    "DAGNN_KUBEFLOW_URL": "kubeflow_url",
    "DAGNN_WEBHOOK_URL": "webhook_secret",
    "DAGNN_TUNE_STORAGE": "tune_secret",
}
"""Variables of tasks that keys of a target set; `env` and `secret_env` may not."""
_OWN_VARIABLES = ("DAGNN_", "KFP_")  # of the program, and of Kubeflow

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
    node_selector: tuple[str, ...] = ()
    """Labels that a node must have, as `zone=eu-1`."""
    tolerations: tuple[str, ...] = ()
    """Taints of nodes to use all the same, as `dedicated=ml:NoSchedule`, `dedicated:NoSchedule` or `dedicated`."""


@section
class TrainResources(Resources):
    """The same of the training, and how many pods it has."""

    nodes: Annotated[int, Field(ge=1)] = 1
    """Pods that train one model together, as a job of Kubeflow Trainer, where they or their GPUs are more than one."""


@section
class Gpu:
    """The GPUs of the training."""

    count: Annotated[int, Field(ge=0)] = 0
    """Of each pod, with a process for each; 0: trains without."""
    type: ResourceName = "nvidia.com/gpu"
    """The resource that Kubernetes counts: whole GPUs, or slices of them, as `nvidia.com/mig-1g.10gb`."""
    node_selector: tuple[str, ...] = ()
    """Labels of the nodes to train on, as `key=value`."""
    toleration: str = ""
    """Key of the taint that keeps other pods off these nodes; empty: none."""

    def __post_init__(self) -> None:
        read_labels(self.node_selector, "gpu.node_selector")
        require(not self.toleration or "=" not in self.toleration, "gpu.toleration", "a key alone", self.toleration)


@section
class Scratch:
    """A volume of its own for what tasks write: caches, unpacked data, unfinished work."""

    size: OptionalBytes = ""
    """Bytes; empty: tasks write to the disk of their node."""
    storage_class: ObjectName = ""
    """The kind of disk; empty: the cluster's default."""


@section
class CaConfigMap:
    """A config map with the certificates that tasks trust, instead of the public ones of their image."""

    name: VolumeName = ""
    """Empty: the public ones."""
    key: FileName = "ca.crt"
    """Its entry with all certificates as PEM."""


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
    """`s3://bucket/prefix` where a training that is started again finds its checkpoints, and several nodes what they
    read and write; empty: nowhere."""
    kubeflow_url: str = "http://ml-pipeline.kubeflow:8888"
    """API of Kubeflow Pipelines, as tasks reach it: the exit handler asks it how the tasks ended; empty: it is not."""
    webhook_secret: str = ""
    """Secret with the key `url` of a webhook that gets the outcome of each run; empty: none."""
    tune_secret: str = ""
    """Secret with the key `url` of the database that the workers of a search share; empty: there are no searches."""
    light: Resources = Resources()
    """Of tasks that hardly compute: fetching, registering, promoting."""
    heavy: Resources = Resources(cpu_request="1", cpu_limit="4", memory_request="4Gi", memory_limit="16Gi")
    """Of tasks that compute: data set, features, label graph, evaluation."""
    train: TrainResources = TrainResources(cpu_request="2", cpu_limit="8", memory_request="8Gi", memory_limit="32Gi")
    """Of each pod of the training."""
    gpu: Gpu = Gpu()
    """Of the training."""
    image_pull_secrets: tuple[str, ...] = ()
    """Secrets that the registry of the images wants."""
    pod_labels: tuple[str, ...] = ()
    """Labels of all pods of tasks, as `cost-centre=4711`."""
    pod_annotations: tuple[str, ...] = ()
    """Annotations of the same, as `example.org/owner=images`."""
    env: tuple[str, ...] = ()
    """Variables of all tasks, as `HTTPS_PROXY=http://proxy:3128`."""
    secret_env: tuple[str, ...] = ()
    """Variables that take an entry of a secret, as `HF_TOKEN=hugging-face/token`."""
    ca_config_map: CaConfigMap = CaConfigMap()
    """For S3, MLflow, the webhook, and whatever else a task asks."""
    pipeline_root: Root = ""
    """Where a run stores its artifacts; empty: where Kubeflow's configuration says."""
    scratch: Scratch = Scratch()
    """Of each task."""
    kubeflow_mlflow: bool = True
    """Whether Kubeflow's own MLflow integration, where the server has it, opens runs, in `experiment`."""
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

    @property
    def num_processes(self) -> int:
        """How many processes train together; more than one do so as a job of Kubeflow Trainer."""
        return self.train.nodes * max(1, self.gpu.count)

    @property
    def has_artifacts_in_s3(self) -> bool:
        """Whether runs store artifacts in S3 by the target's own word, so that tasks can read a part of one."""
        return self.pipeline_root.startswith("s3://")

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
        self._check_notation()

    def _check_notation(self) -> None:
        for size in ("light", "heavy", "train"):
            resources: Resources = getattr(self, size)
            read_labels(resources.node_selector, f"{size}.node_selector")
            read_tolerations(resources.tolerations, f"{size}.tolerations")
        both = (*self.train.node_selector, *self.gpu.node_selector)
        read_labels(tuple(dict.fromkeys(both)), "train.node_selector and gpu.node_selector")
        read_names(self.image_pull_secrets, "image_pull_secrets")
        read_pod_labels(self.pod_labels, "pod_labels")
        read_annotations(self.pod_annotations, "pod_annotations")
        plain, secret = read_variables(self.env, "env"), read_secret_variables(self.secret_env, "secret_env")
        for key, names in (("env", plain), ("secret_env", secret)):
            for name in names:
                owner = VARIABLES.get(name, "the program" if name.startswith(_OWN_VARIABLES) else "")
                require(not owner, key, f"without what {owner} sets", name)
        require(not set(plain) & set(secret), "env and secret_env", "about different variables", [*plain])
        is_free = re.fullmatch(r"kfp-launcher|shared-memory|(.*-)?scratch", self.ca_config_map.name) is None
        require(is_free, "ca_config_map.name", "a name that no other volume has", self.ca_config_map.name)
        require(bool(self.scratch.size) or not self.scratch.storage_class, "scratch.size", "a size, as '200Gi'", "")


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
    """Names of the secrets that the tasks, or the pull of their images, take something from."""
    entries = read_secret_variables(target.secret_env, "secret_env").values()
    own = (target.s3_secret, target.mlflow_secret, target.webhook_secret, target.tune_secret)
    names = (*own, *target.image_pull_secrets)
    return list(dict.fromkeys(name for name in (*names, *(entry.secret for entry in entries)) if name))


def plugins_input(target: Target) -> dict[str, dict[str, object]]:
    """What Kubeflow's own MLflow integration is told with each run; a server without it ignores this."""
    return {"mlflow": {"experiment_name": target.experiment} if target.kubeflow_mlflow else {"disabled": True}}


def read_target(name: str) -> Target:
    """A cluster by the name of a file in `configs/clusters`, the shipped ones included, or by the path of a YAML file.

    Raises:
        InputError: there is no such file, or a key or value in it is wrong.
    """
    from components.params import located

    known = find_configs("clusters")
    path = Path(name) if name.endswith((".yaml", ".yml")) else known.get(name, FOLDER / f"{name}.yaml")
    if not path.is_file():
        names = ", ".join(sorted(known))
        raise InputError(f"{path} does not exist, expected a cluster ({names}) or the path of a YAML file")
    target = located(path, lambda values: parse_section(Target, _without_ignored(values), path.stem))
    refuse_placeholders(asdict(target), where=path)
    for key in ("mlflow_uri", "s3_endpoint_url", "data_endpoint_url"):
        if is_loopback(url := getattr(target, key)):
            raise InputError(
                f"{path}: {key} must be an address that tasks reach, got {url!r}, which in a pod is the pod itself",
                "give the name that the cluster has for the server, as http://s3.dagnn:8333",
            )
    return target


def with_nodes(target: Target, nodes: int | None) -> Target:
    """The same cluster with another number of nodes for the training.

    Args:
        target: the cluster.
        nodes: of the option `--nodes`; None: the target's.

    Raises:
        InputError: it is not above 0.
    """
    if nodes is None:
        return target
    require(nodes >= 1, "--nodes", ">= 1", nodes)
    return replace(target, train=replace(target.train, nodes=nodes))


def _without_ignored(values: Any) -> Any:
    """The values of a file, none of which is a key that Kubeflow would ignore.

    Raises:
        InputError: there is one.
    """
    sections = {"": values, **values} if isinstance(values, Mapping) else {}
    for name, entries in sections.items():
        for key, instead in _NOT_IN_KUBEFLOW.items():
            if isinstance(entries, Mapping) and key in entries:
                path = f"{name}.{key}" if name else key
                raise InputError(f"{path}: Kubeflow Pipelines 2.17 passes it on to no pod", instead)
    return values

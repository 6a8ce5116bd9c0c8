"""What the pod of a step asks a cluster for: resources, nodes, volumes and variables, from the step and the target."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from components.services.storage.patience import ENVIRONMENT as PATIENCE
from components.services.tracking.mlflow import DIRECT_TRANSFER
from pipeline.notation import (
    SecretKey,
    Toleration,
    read_annotations,
    read_labels,
    read_pod_labels,
    read_secret_variables,
    read_tolerations,
    read_variables,
)
from pipeline.step_table import STEPS
from pipeline.target import CaConfigMap, Resources, Scratch, Target

CA_FOLDER = "/etc/dagnn/ca"
"""Where a pod finds the certificates of the target."""
WRITABLE = "/tmp"  # noqa: S108  # a pod's own
"""Below it lies all that tasks write but their artifacts: caches, unfinished work, temporary files, the home."""

_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


@dataclass(frozen=True, kw_only=True, slots=True)
class PodRequest:
    """What a pod asks for; empty where it asks for nothing."""

    resources: Resources
    gpus: tuple[str, int] | None
    """Name of the resource, and how many; None: the pod has none."""
    seconds: int
    """After which an attempt is ended."""
    node_selector: Mapping[str, str]
    tolerations: tuple[Toleration, ...]
    shared_memory: str
    """Size of /dev/shm."""
    scratch: Scratch
    """The volume at `WRITABLE`."""
    ca: CaConfigMap
    """The config map at `CA_FOLDER`."""
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    image_pull_secrets: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, SecretKey] = field(default_factory=dict)


def pod_request(name: str, target: Target) -> PodRequest:
    """What the pods that do a step's work ask for: the pod of its task, or those of a training on several nodes.

    Args:
        name: of the step.
        target: the cluster.
    """
    return _request(name, target, STEPS[name].size)


def task_request(name: str, target: Target) -> PodRequest:
    """What the pod of a step's task asks for; one that follows a training on several nodes hardly computes.

    Args:
        name: of the step.
        target: the cluster.
    """
    if name == "train" and target.num_processes > 1:
        return replace(_request(name, target, "light"), seconds=target.train_seconds)
    return pod_request(name, target)


def _request(name: str, target: Target, size: str) -> PodRequest:
    resources: Resources = getattr(target, size)
    node_selector = read_labels(resources.node_selector, f"{size}.node_selector")
    tolerations = read_tolerations(resources.tolerations, f"{size}.tolerations")
    has_gpus = size == "train" and bool(target.gpu.count)
    if has_gpus:
        node_selector |= read_labels(target.gpu.node_selector, "gpu.node_selector")
        if target.gpu.toleration:
            tolerations += (Toleration(target.gpu.toleration, None, "NoSchedule"),)
    return PodRequest(
        resources=resources,
        gpus=(target.gpu.type, target.gpu.count) if has_gpus else None,
        seconds=getattr(target, f"{size}_seconds"),
        node_selector=node_selector,
        tolerations=tolerations,
        # processes that decode images hand them over in shared memory
        shared_memory=target.shared_memory if size != "light" else "",
        scratch=target.scratch,
        ca=target.ca_config_map,
        labels=read_pod_labels(target.pod_labels, "pod_labels"),
        annotations=read_annotations(target.pod_annotations, "pod_annotations"),
        image_pull_secrets=target.image_pull_secrets,
        env=_variables(name, target),
        secret_env=_secret_variables(name, target),
    )


def _variables(name: str, target: Target) -> dict[str, str]:
    needs = STEPS[name]
    env = read_variables(target.env, "env")
    if target.ca_config_map.name:
        env |= dict.fromkeys(_CA_VARIABLES, f"{CA_FOLDER}/{target.ca_config_map.key}")
    if needs.mlflow:
        env |= {"MLFLOW_TRACKING_URI": target.mlflow_uri, "MLFLOW_EXPERIMENT_NAME": target.experiment}
        env |= dict.fromkeys(DIRECT_TRANSFER, str(target.mlflow_direct_s3).lower())
    if _uses_s3(name, target):
        env["AWS_DEFAULT_REGION"] = target.s3_region
        if target.s3_endpoint_url:
            env["AWS_ENDPOINT_URL_S3"] = target.s3_endpoint_url
            # other stores refuse AWS's newer checksums
            env |= {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"}
            env |= {"AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required"}
    if needs.mlflow or _uses_s3(name, target):
        env[PATIENCE] = str(target.backend_patience)
    if name == "record_outcome":
        env["DAGNN_KUBEFLOW_URL"] = target.kubeflow_url
    return env


def _uses_s3(name: str, target: Target) -> bool:
    """Whether a step needs the S3 store itself; the exit handler does where it ends trainings on several nodes."""
    needs = STEPS[name]
    ends_trainings = name == "record_outcome" and target.num_processes > 1
    return needs.s3 or (needs.by_range and target.has_artifacts_in_s3) or ends_trainings


def _secret_variables(name: str, target: Target) -> dict[str, SecretKey]:
    needs = STEPS[name]
    env = read_secret_variables(target.secret_env, "secret_env")
    if needs.mlflow and target.mlflow_secret:
        env["MLFLOW_TRACKING_USERNAME"] = SecretKey(target.mlflow_secret, "username")
        env["MLFLOW_TRACKING_PASSWORD"] = SecretKey(target.mlflow_secret, "password")
    if _uses_s3(name, target) and target.s3_secret:
        env["AWS_ACCESS_KEY_ID"] = SecretKey(target.s3_secret, "access-key")
        env["AWS_SECRET_ACCESS_KEY"] = SecretKey(target.s3_secret, "secret-key")
    if name == "tune" and target.tune_secret:
        env["DAGNN_TUNE_STORAGE"] = SecretKey(target.tune_secret, "url")
    if name in ("promote", "record_outcome") and target.webhook_secret:
        env["DAGNN_WEBHOOK_URL"] = SecretKey(target.webhook_secret, "url")
    return env

"""What Kubeflow Trainer is given: a TrainingRuntime, made of what the target says of pods, and its TrainJob.

Trainer's own runtimes know nothing of a target, and the fields by which a job changes a runtime differ from one version
of Trainer to the next. So each training brings its runtime along, and both go together.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dagnn_core.config.section import require
from dagnn_core.config.train import TrainConfig
from dagnn_core.errors import InputError
from pipeline.pods import CA_FOLDER, WRITABLE, PodRequest, pod_request
from pipeline.target import Resources, Target

GROUP = "trainer.kubeflow.org"
API_VERSION = f"{GROUP}/v1alpha1"
RIGHTS = (
    (GROUP, "trainjobs", ("create", "get", "patch", "delete")),
    (GROUP, "trainingruntimes", ("create", "get", "list", "patch", "delete")),
    ("", "pods", ("list",)),
    ("", "pods/log", ("get",)),
)
"""What the account of the tasks must be allowed to do in its namespace: group, resource and verbs."""

TEMPLATE = "DAGNN_TRAIN_JOB"
"""Variable of the task `train` that trains on several nodes: what `write_template` has made of the target."""
NODES = "DAGNN_TRAIN_NODES"
"""Variable of the exit handler where the run trains on several nodes: how many."""
POD, POD_UID = "DAGNN_POD", "DAGNN_POD_UID"
"""Variables with the name and the uid of the task's pod."""

RUN_LABEL = "dagnn/pipeline-run"
"""Label of runtime and job: the run of the pipeline."""
PLACE_ANNOTATION = "dagnn/place"
"""Annotation of the same: URI of what the nodes read, and of the model."""
CONTAINER = "node"
"""The container that trains: Trainer looks for this name."""
SCRATCH = f"{WRITABLE}/dagnn"
"""Where a pod writes."""
INPUTS = f"{SCRATCH}/inputs"
"""Where it finds features and label graph."""
NUM_RESTARTS = 3
"""Times that all nodes begin again, from the last checkpoint, after one was lost."""

_USER = 10001  # of the images
_UNPRIVILEGED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


class Owner(NamedTuple):
    """The pod with which runtime and job go."""

    name: str
    uid: str


class Manifests(NamedTuple):
    """What is made for one training, in this order: Trainer refuses a job whose runtime does not exist."""

    runtime: dict[str, Any]
    job: dict[str, Any]


def check_nodes(target: Target, train: TrainConfig) -> None:
    """See that a target can train with all the processes that it asks for.

    Args:
        target: the cluster.
        train: the section of `params.yaml`.

    Raises:
        InputError: it has no GPUs for them, or no place in S3 where nodes find what they read.
    """
    if target.num_processes == 1:
        return
    asked = f"train.nodes is {target.train.nodes} and gpu.count {target.gpu.count}"
    if not target.gpu.count and train.device != "cpu":
        raise InputError(
            f"{asked}, expected a GPU for each node",
            "set gpu.count in the target, or train.device to cpu in params.yaml to train on processors",
        )
    require(bool(target.checkpoints), "checkpoints", f"s3://bucket/prefix, where {asked}", "")


def write_template(target: Target) -> str:
    """What a target says of the nodes of a training, as JSON; `fill` makes manifests of it."""
    return json.dumps(
        {
            "nodes": target.train.nodes,
            "processes": max(1, target.gpu.count),
            "seconds": target.train_seconds,
            "pod": _pod(pod_request("train", target), target.light),
        },
        sort_keys=True,
    )


def fill(
    template: str,
    *,
    name: str,
    image: str,
    owner: Owner,
    run_id: str,
    place: str,
    inputs: Mapping[str, str],
    arguments: Sequence[str],
    env: Mapping[str, str],
) -> Manifests:
    """The manifests of one training.

    Args:
        template: as `write_template` has made it.
        name: of runtime and job.
        image: reference of the container image.
        owner: the pod of the task; what it owns is deleted with it.
        run_id: of the run of the pipeline.
        place: URI below which inputs and model lie in S3.
        inputs: name of a folder below `INPUTS` -> URI of its content in S3.
        arguments: of `pipeline.trainer.node`.
        env: variables of this run.
    """
    parts = json.loads(template)
    pod = parts["pod"]
    fetch, main = pod["spec"]["initContainers"][0], pod["spec"]["containers"][0]
    for container in (fetch, main):
        container["image"] = image
        container["env"] += [{"name": variable, "value": _literal(value)} for variable, value in env.items()]
    wait = f"--rdzv-conf=timeout={parts['seconds']}"  # of a node for the others, which may wait for GPUs
    main["command"] = ["torchrun", wait, "-m", "pipeline.trainer.node", *map(_literal, arguments)]
    pod["spec"]["initContainers"] = [
        {
            **fetch,
            "name": folder.replace("_", "-"),
            "command": [
                *("python", "-m", "components.steps.fetch_dataset"),
                *(f"--raw-out={INPUTS}/{folder}", f"--uri={_literal(uri)}"),
            ],
        }
        for folder, uri in inputs.items()
    ]
    node = {
        "name": "node",
        "template": {
            "metadata": {"labels": {f"{GROUP}/trainjob-ancestor-step": "trainer"}},
            "spec": {"backoffLimit": 0, "template": pod},  # what one pod lacks, all must begin again for
        },
    }
    labels = {RUN_LABEL: run_id}
    metadata: dict[str, Any] = {
        "name": name,
        "labels": labels,
        "annotations": {PLACE_ANNOTATION: place},
        "ownerReferences": [owner_reference(owner)],
    }
    runtime = {
        "apiVersion": API_VERSION,
        "kind": "TrainingRuntime",
        "metadata": {**metadata, "labels": {**labels, f"{GROUP}/framework": "torch"}},
        "spec": {
            "mlPolicy": {"numNodes": parts["nodes"], "torch": {}},
            "template": {"spec": {"failurePolicy": {"maxRestarts": NUM_RESTARTS}, "replicatedJobs": [node]}},
        },
    }
    job = {
        "apiVersion": API_VERSION,
        "kind": "TrainJob",
        "metadata": metadata,
        "spec": {
            "runtimeRef": {"apiGroup": GROUP, "kind": "TrainingRuntime", "name": name},
            "trainer": {"numNodes": parts["nodes"], "numProcPerNode": parts["processes"]},
        },
    }
    return Manifests(runtime, job)


def owner_reference(owner: Owner) -> dict[str, str]:
    """The entry of `ownerReferences`: Kubernetes deletes what a pod owns when the pod is gone."""
    return {"apiVersion": "v1", "kind": "Pod", "name": owner.name, "uid": owner.uid}


def _pod(request: PodRequest, fetching: Resources) -> dict[str, Any]:
    """The pod of a node, but for images, commands, and variables of a run; all containers that fetch are like one."""
    mounts, volumes = _volumes(request)
    shared = {
        "env": [
            *({"name": name, "value": value} for name, value in request.env.items()),
            *(
                {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
                for name, (secret, key) in request.secret_env.items()
            ),
        ],
        "securityContext": _UNPRIVILEGED,
        "volumeMounts": mounts,
    }
    gpus = {request.gpus[0]: str(request.gpus[1])} if request.gpus else {}
    return {
        "metadata": {
            # a proxy in the pod would come between the nodes, and outlive the training
            "labels": {"app.kubernetes.io/name": "training", "sidecar.istio.io/inject": "false", **request.labels},
            "annotations": dict(request.annotations),
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "nodeSelector": dict(request.node_selector),
            "tolerations": [_toleration(*toleration) for toleration in request.tolerations],
            "imagePullSecrets": [{"name": name} for name in request.image_pull_secrets],
            "initContainers": [{**shared, "resources": _resources(fetching, {})}],
            "containers": [{**shared, "name": CONTAINER, "resources": _resources(request.resources, gpus)}],
            "volumes": volumes,
        },
    }


def _resources(resources: Resources, gpus: Mapping[str, str]) -> dict[str, Any]:
    return {
        "requests": {"cpu": resources.cpu_request, "memory": resources.memory_request, **gpus},
        "limits": {"cpu": resources.cpu_limit, "memory": resources.memory_limit, **gpus},
    }


def _toleration(key: str, value: str | None, effect: str) -> dict[str, str]:
    found = {"key": key, "operator": "Exists"} if value is None else {"key": key, "operator": "Equal", "value": value}
    return found | ({"effect": effect} if effect else {})


def _volumes(request: PodRequest) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    """Where the volumes of a pod are mounted, and what they are."""
    claim: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": request.scratch.size}},
    }
    if request.scratch.storage_class:
        claim["storageClassName"] = request.scratch.storage_class
    scratch: dict[str, Any] = (
        {"ephemeral": {"volumeClaimTemplate": {"spec": claim}}} if request.scratch.size else {"emptyDir": {}}
    )
    memory: dict[str, Any] = {"emptyDir": {"medium": "Memory", "sizeLimit": request.shared_memory}}
    found = {"scratch": (WRITABLE, scratch), "shared-memory": ("/dev/shm", memory)}  # noqa: S108  # a pod's own
    if request.ca.name:
        found[request.ca.name] = (CA_FOLDER, {"configMap": {"name": request.ca.name}})
    mounts = [{"name": name, "mountPath": path} for name, (path, _) in found.items()]
    return mounts, [{"name": name, **source} for name, (_, source) in found.items()]


def _literal(text: str) -> str:
    """A text that a container gets as it is: Kubernetes makes $ of $$, and a variable's value of $(NAME)."""
    return text.replace("$", "$$")

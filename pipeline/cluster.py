"""What a Kubernetes cluster has of what a target names, looked at without a change: secrets, nodes, Trainer, rights."""

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from dagnn_core.errors import BackendError, InputError
from pipeline.pods import PodRequest, pod_request
from pipeline.target import CaConfigMap, Gpu, Scratch, Target, secrets_of
from pipeline.trainer.manifests import API_VERSION, RIGHTS

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

log = logging.getLogger(__name__)

_SECONDS = 10
_JSON = "application/json"
_METADATA_ALONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_STEPS = {"light": "register", "heavy": "evaluate", "train": "train"}  # one of each size
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_MIN_PUBLIC = 50  # certificates; public bundles have more than a hundred


class Note(NamedTuple):
    """What a check found that did not fail; a warning where it has a remedy."""

    what: str
    remedy: str = ""


class SkippedError(Exception):
    """There is nothing to look at; the message says why."""


def cluster_checks(namespace: str, target: Target, account: str = "") -> dict[str, Callable[[], Note]]:
    """What there is to look at on the cluster that kubectl's configuration names, by name.

    Args:
        namespace: that the tasks run in.
        target: the cluster.
        account: the service account of the tasks; empty: the one that Kubeflow gives them.
    """
    return {
        **_named_checks(namespace, target, account),
        "nodes": lambda: _nodes(target),
        "gpu": lambda: _gpu(target.gpu, target.train.nodes),
    }


def require_named(namespace: str, target: Target, account: str = "") -> None:
    """See that what tasks cannot start without is there, as far as this can be seen from here.

    Args:
        namespace: that the tasks run in.
        target: the cluster.
        account: the service account of the tasks; empty: the one that Kubeflow gives them.

    Raises:
        InputError: a secret, the certificates or the storage class are missing; or Kubeflow Trainer or the right to use
            it, where the target trains on several nodes.
        BackendError: the cluster that kubectl's configuration names cannot be reached.
    """
    for name, check in _named_checks(namespace, target, account).items():
        try:
            check()
        except SkippedError as reason:
            log.warning("%s was not looked for: %s", name, reason)


def _named_checks(namespace: str, target: Target, account: str) -> dict[str, Callable[[], Note]]:
    checks: dict[str, Callable[[], Note]] = {}
    for name in secrets_of(target):
        checks[f"secret {name}"] = partial(_secret, namespace, name, _how_to_make(name, target))
    if target.ca_config_map.name:
        checks[f"config map {target.ca_config_map.name}"] = partial(_certificates, namespace, target.ca_config_map)
    if target.scratch.size:
        checks["scratch"] = partial(_scratch, target.scratch)
    if target.num_processes > 1:
        checks["trainer"] = _trainer
        checks["trainer rights"] = partial(_trainer_rights, namespace, account or _account_of_kubeflow(namespace))
    return checks


def _how_to_make(secret: str, target: Target) -> str:
    if secret in target.image_pull_secrets:
        return f"`kubectl create secret docker-registry {secret}` makes it"
    if secret in (target.s3_secret, target.mlflow_secret, target.webhook_secret):
        return "infra/kubernetes/secrets.example.yaml says how to make it"
    return f"`kubectl create secret generic {secret}` makes it"


def _secret(namespace: str, name: str, remedy: str) -> Note:
    """Whether a secret is there; what is in it stays on the server."""
    api, path = _kubernetes(), f"{_namespace_path(namespace)}/secrets/{quote(name, safe='')}"
    where = f"secret {name} in namespace {namespace} of {api.configuration.host}"
    if _get(api, path, _METADATA_ALONE, where) is None:
        raise InputError(f"{where} does not exist", remedy)
    return Note(f"is in namespace {namespace}")


def _certificates(namespace: str, ca: CaConfigMap) -> Note:
    """Whether the config map has certificates, the public ones among them."""
    api, path = _kubernetes(), f"{_namespace_path(namespace)}/configmaps/{quote(ca.name, safe='')}"
    where = f"config map {ca.name} in namespace {namespace} of {api.configuration.host}"
    found = _get(api, path, _JSON, where)
    if found is None:
        raise InputError(f"{where} does not exist", "make it of all certificates, as docs/cluster.md says")
    data = found.get("data") or {}
    count = str(data.get(ca.key, "")).count(_CERTIFICATE)
    if not count:
        keys = ", ".join(sorted(data)) or "none"
        raise InputError(
            f"{where} has no certificates in its key {ca.key} (its keys: {keys})", "correct ca_config_map.key"
        )
    if count < _MIN_PUBLIC:
        return Note(
            f"has {count} certificates, which replace the public ones",
            "add the public ones, unless tasks reach no server beyond the cluster (docs/cluster.md)",
        )
    return Note(f"has {count} certificates")


def _scratch(scratch: Scratch) -> Note:
    """Whether the cluster makes volumes of the class."""
    api, path = _kubernetes(), "/apis/storage.k8s.io/v1/storageclasses"
    if scratch.storage_class:
        where = f"storage class {scratch.storage_class} of {api.configuration.host}"
        if _get(api, f"{path}/{quote(scratch.storage_class, safe='')}", _JSON, where) is None:
            raise InputError(f"{where} does not exist", "correct scratch.storage_class; `kubectl get storageclass`")
        return Note(f"{scratch.size} of the storage class {scratch.storage_class}")
    classes = (_get(api, path, _JSON, "list of storage classes") or {}).get("items", [])
    names = [entry["metadata"]["name"] for entry in classes if _annotation(entry, _DEFAULT_CLASS) == "true"]
    if not names:
        raise InputError(f"{api.configuration.host} has no default storage class", "name one in scratch.storage_class")
    return Note(f"{scratch.size} of the default storage class {names[0]}")


def _trainer() -> Note:
    """Whether the cluster knows the objects of Kubeflow Trainer."""
    api = _kubernetes()
    found = _get(api, f"/apis/{API_VERSION}", _JSON, f"resources of {API_VERSION}") or {}
    if "trainjobs" not in {entry["name"] for entry in found.get("resources") or []}:
        raise InputError(
            f"Kubeflow Trainer is not installed on {api.configuration.host}, which knows no TrainJobs",
            "install version 2.1 or later (docs/cluster.md), or set train.nodes and gpu.count to 1",
        )
    return Note(f"{api.configuration.host} knows TrainJobs")


def _trainer_rights(namespace: str, account: str) -> Note:
    """Whether the account of the tasks may do what a training on several nodes takes."""
    _namespace_path(namespace)
    api, path = _kubernetes(), "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    for group, resource, verbs in RIGHTS:
        for verb in verbs:
            kind, _, part = resource.partition("/")
            asked = {"namespace": namespace, "group": group, "resource": kind, "subresource": part, "verb": verb}
            review = {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {"user": f"system:serviceaccount:{namespace}:{account}", "resourceAttributes": asked},
            }
            answer = _ask(api, "POST", path, _JSON, f"rights of {account}", body=review)
            if not (answer or {}).get("status", {}).get("allowed"):
                raise InputError(
                    f"the account {account} in namespace {namespace} must not {verb} {resource}",
                    "apply infra/kubernetes/training for its namespace, or name the tasks' account (--service-account)",
                )
    return Note(f"the account {account} in namespace {namespace} may start and follow TrainJobs")


def _account_of_kubeflow(namespace: str) -> str:
    """What Kubeflow runs tasks as, unless it is told otherwise: with one user, and with many."""
    return "pipeline-runner" if namespace == "kubeflow" else "default-editor"


def _nodes(target: Target) -> Note:
    """Whether each size of task has a node that it may run on."""
    api = _kubernetes()
    nodes = (_get(api, "/api/v1/nodes", _JSON, "list of nodes") or {}).get("items", [])
    requests = {size: pod_request(step, target) for size, step in _STEPS.items()}
    counts = {size: sum(_may_run(request, node) for node in nodes) for size, request in requests.items()}
    what = f"of {len(nodes)} nodes, {', '.join(f'{count} can run {size} tasks' for size, count in counts.items())}"
    without = [size for size, count in counts.items() if not count]
    if without:
        keys = ", ".join(f"{size}.node_selector, tolerations and requests" for size in without)
        return Note(what, f"correct {keys}, unless the cluster adds such nodes when pods ask for them")
    return Note(what)


def _may_run(request: PodRequest, node: Mapping[str, Any]) -> bool:
    from kubernetes.utils import parse_quantity

    labels = node.get("metadata", {}).get("labels") or {}
    spec = node.get("spec") or {}
    allocatable = node.get("status", {}).get("allocatable") or {}
    wanted = {"cpu": request.resources.cpu_request, "memory": request.resources.memory_request}
    if request.gpus:
        wanted[request.gpus[0]] = str(request.gpus[1])
    return (
        not spec.get("unschedulable")
        and request.node_selector.items() <= labels.items()
        and all(any(toleration.tolerates(*taint) for toleration in request.tolerations) for taint in _taints(spec))
        and all(parse_quantity(allocatable.get(name, "0")) >= parse_quantity(text) for name, text in wanted.items())
    )


def _taints(spec: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Those that keep pods away."""
    for taint in spec.get("taints") or []:
        if taint["effect"] != "PreferNoSchedule":
            yield taint["key"], taint.get("value") or "", taint["effect"]


def _gpu(gpu: Gpu, num_pods: int) -> Note:
    if not gpu.count:
        raise SkippedError("the cluster's configuration trains without")
    nodes = _get(_kubernetes(), "/api/v1/nodes", _JSON, "list of nodes")
    count = sum(int(node["status"].get("allocatable", {}).get(gpu.type, 0)) for node in (nodes or {}).get("items", []))
    if count < gpu.count * num_pods:
        raise InputError(
            f"the cluster's nodes offer {count} {gpu.type}, expected {gpu.count * num_pods} for a training",
            f"install the device plugin, add nodes, or lower gpu.count{' or train.nodes' if num_pods > 1 else ''}",
        )
    return Note(f"{count} {gpu.type} on the cluster's nodes, some of which may be in use")


def _annotation(entry: Mapping[str, Any], name: str) -> str:
    return str((entry["metadata"].get("annotations") or {}).get(name, ""))


def _namespace_path(namespace: str) -> str:
    if not namespace:
        raise SkippedError("no namespace is named: --namespace, or `namespace` in the cluster's file")
    return f"/api/v1/namespaces/{quote(namespace, safe='')}"


def _kubernetes() -> "ApiClient":
    """A client of the cluster that kubectl's configuration, or the pod that this runs in, names."""
    import yaml
    from kubernetes import client, config

    try:
        return config.new_client_from_config()
    except config.ConfigException:
        pass
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise InputError("kubectl's configuration is damaged", "`kubectl config view` says where") from error
    try:
        configuration = client.Configuration()
        config.load_incluster_config(configuration)
        return client.ApiClient(configuration)
    except config.ConfigException as error:
        raise SkippedError("no cluster is named: kubectl has no configuration here") from error


def _get(api: "ApiClient", path: str, accept: str, what: str) -> Any:
    """What Kubernetes has; None where there is no such thing."""
    return _ask(api, "GET", path, accept, what)


def _ask(api: "ApiClient", method: str, path: str, accept: str, what: str, *, body: object = None) -> Any:
    """The answer to a request of Kubernetes; None where there is no such thing."""
    import urllib3
    from kubernetes.client import ApiException

    host = api.configuration.host
    try:
        answer = api.call_api(
            path,
            method,
            header_params={"Accept": accept} | ({"Content-Type": _JSON} if body else {}),
            body=body,
            response_type="object",
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _request_timeout=_SECONDS,
        )
    except ApiException as error:
        if error.status == 404:
            return None
        if error.status in (401, 403):
            raise SkippedError(f"Kubernetes at {host} does not let you see the {what} ({error.status})") from error
        raise BackendError(f"Kubernetes at {host} answers {error.status} for the {what}", "try later") from error
    except urllib3.exceptions.HTTPError as error:
        reason = getattr(error, "reason", None) or error
        raise BackendError(
            f"Kubernetes at {host} cannot be reached ({type(reason).__name__})",
            "check the network and kubectl's context",
        ) from error
    return answer

"""What a run on a cluster stands on, looked at without changing it: versions, servers, stores, images, secrets."""

import logging
import multiprocessing
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote

from components.services.data_versions.repository import default_remote
from components.services.storage.s3 import Storage
from components.services.tracking.files import check_direct_way, check_store, find_small_file, read
from components.services.tracking.mlflow import Tracking
from dagnn_core.errors import BackendError, DagnnError, InputError
from pipeline.images import IMAGES_FILE, pullable, read_images
from pipeline.kubeflow.client import Kubeflow
from pipeline.submit import connect
from pipeline.target import Gpu, Target, secrets_of

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

log = logging.getLogger(__name__)

LOOK_SECONDS = 20.0
APART = frozenset({"mlflow", "mlflow files"})
"""Checks that import MLflow. That takes longer than all the rest, and while one thread imports, no other can."""

_SECONDS = 10
_METADATA_ALONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

Status = Literal["ok", "warning", "failed", "skipped"]


class Diagnosis(NamedTuple):
    """What one look has found."""

    name: str
    status: Status
    what: str
    remedy: str = ""


class Note(NamedTuple):
    """What a check found that did not fail; a warning where it has a remedy."""

    what: str
    remedy: str = ""


class _SkippedError(Exception):
    """There is nothing to look at; the message says why."""


def checks_of(
    *,
    kubeflow: Kubeflow | None,
    namespace: str,
    tracking: Tracking,
    project: Path = Path(),
    target: Target,
) -> dict[str, Callable[[], Note]]:
    """What there is to look at, by name; `look` does one, and nothing is changed.

    Args:
        kubeflow: the server; None where none is named.
        namespace: that the tasks run in.
        tracking: the MLflow server that is used here.
        project: root of the checkout.
        target: the cluster; its secrets and GPUs are looked for.
    """
    return {
        "python": _python,
        "kubeflow": lambda: _kubeflow(kubeflow),
        "mlflow": partial(_mlflow, tracking),
        "mlflow files": partial(_mlflow_files, tracking, target),
        "dvc remote": lambda: _remote(project),
        "checkpoints": lambda: _checkpoints(target),
        "images": lambda: _images(project / IMAGES_FILE),
        **{f"secret {name}": lambda name=name: _secret(namespace, name) for name in secrets_of(target)},  # type: ignore[misc]
        "gpu": lambda: _gpu(target.gpu),
    }


def look(name: str, check: Callable[[], Note]) -> Diagnosis:
    """Do one check; what fails in it is its result."""
    try:
        found = check()
    except _SkippedError as reason:
        return Diagnosis(name, "skipped", str(reason))
    except ModuleNotFoundError as error:
        return Diagnosis(name, "skipped", f"this check needs {error.name}, which is not installed")
    except DagnnError as error:
        return Diagnosis(name, "failed", error.what, error.remedy)
    return Diagnosis(name, "warning" if found.remedy else "ok", *found)


def look_at_all(checks: Mapping[str, Callable[[], Note]], *, seconds: float = LOOK_SECONDS) -> Iterator[Diagnosis]:
    """Do all checks at once, those in `APART` in a process of their own; give the results in the order of `checks`.

    Args:
        checks: what to look at, by name; those in `APART` can be pickled.
        seconds: time after which a check that is not done counts as failed.
    """
    results: dict[str, Future[Diagnosis]] = {name: Future() for name in checks}
    apart = {name: check for name, check in checks.items() if name in APART}
    # daemons: a check that hangs does not keep the command from ending
    if apart:
        Thread(target=_look_apart, args=(apart, results), daemon=True).start()
    for name, check in checks.items():
        if name not in apart:
            Thread(target=_look_here, args=(name, check, results[name]), daemon=True).start()
    end = time.monotonic() + seconds
    for name, result in results.items():
        try:
            yield result.result(timeout=max(0.0, end - time.monotonic()))
        except TimeoutError:
            yield Diagnosis(name, "failed", f"no result within {seconds:g} s", "check its address and the network")


def _look_here(name: str, check: Callable[[], Note], result: "Future[Diagnosis]") -> None:
    try:
        result.set_result(look(name, check))
    except Exception as error:  # a mistake of ours, which the main thread shows
        result.set_exception(error)


def _look_apart(checks: Mapping[str, Callable[[], Note]], results: "Mapping[str, Future[Diagnosis]]") -> None:
    """Do checks one after the other in another process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: Ctrl-C is for this process to answer
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_results, args=(sender, checks), daemon=True)
    process.start()
    sender.close()
    for name in checks:
        try:
            results[name].set_result(receiver.recv())
        except EOFError:
            process.join()
            what = f"the process of this check ended with exit status {process.exitcode}"
            results[name].set_result(Diagnosis(name, "failed", what, "see what it wrote above"))


def _send_results(sender: Connection, checks: Mapping[str, Callable[[], Note]]) -> None:
    for name, check in checks.items():
        sender.send(look(name, check))


def _python() -> Note:
    return Note(f"Python {platform.python_version()}, kfp {version('kfp')}, mlflow {version('mlflow')}")


def _kubeflow(kubeflow: Kubeflow | None) -> Note:
    if kubeflow is None:
        raise _SkippedError("no server is named: --host or KF_PIPELINES_ENDPOINT")
    kubeflow = replace(kubeflow, connect_timeout=3, read_timeout=3)  # its four tries end before LOOK_SECONDS
    health = kubeflow.health()
    connect(kubeflow)
    users = f"many users, namespace {kubeflow.namespace}" if health.multi_user else "one user"
    if not health.version:
        return Note(
            f"{kubeflow.address} takes the credentials ({users}), but does not say its version",
            f"see yourself that it is {version('kfp').rpartition('.')[0]} or later",
        )
    what = f"{kubeflow.address} is Kubeflow Pipelines {health.version}, and takes the credentials ({users})"
    if not kubeflow.page(""):
        return Note(
            f"{what}, but has no page",
            "use the user interface's service, `ml-pipeline-ui` (port 80), which serves page and API, "
            "or name the page in KF_PIPELINES_UI_ENDPOINT",
        )
    return Note(what)


def _mlflow(tracking: Tracking) -> Note:
    if not tracking.uri.startswith(("http://", "https://")):
        return Note(f"{tracking.address} is no server", "set MLFLOW_TRACKING_URI: tasks on a cluster need one")
    server, here = tracking.server_version(), version("mlflow")
    what = f"{tracking.address} is MLflow {server}, and takes the credentials"
    if server.split(".")[0] != here.split(".")[0]:
        raise BackendError(f"{what}, but {here} is used here and in the images", "upgrade the older one")
    return Note(what)


def _mlflow_files(tracking: Tracking, target: Target) -> Note:
    """Whether a file can be fetched the way clients fetch it, from here and, as far as this can be seen, by tasks."""
    if not tracking.uri.startswith(("http://", "https://")):
        raise _SkippedError(f"{tracking.address} is no server")
    with tracking.answering():
        file = find_small_file(tracking)
        if file is None:
            raise _SkippedError("the server has no files yet that could be read")
        if target.mlflow_direct_s3:
            try:
                check_store(tracking, file.repository, file.path)
            except BackendError as error:  # its name may be known in the cluster alone
                return Note(error.what, "see that tasks reach it, or unset mlflow_direct_s3")
        check_direct_way(tracking, file.repository, file.path)
        size = read(file)
    if size != file.size:
        raise BackendError(
            f"{file.path} of {file.owner} has {size} bytes, expected {file.size}", "check the store of MLflow's files"
        )
    return Note(f"{file.path} of {file.owner} can be read ({size} bytes)")


def _remote(project: Path) -> Note:
    remote = default_remote(project)
    if not remote.url:
        raise _SkippedError("no default remote: fine while no data is under DVC, else `dvc remote add --default`")
    if not remote.url.startswith("s3://"):
        raise InputError(
            f"{remote.url} is not in S3, expected s3://bucket/prefix, from which tasks fetch", "set another"
        )
    _store(remote.endpoint_url, attempts=2).check_bucket(remote.url)
    endpoint = remote.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    advice = ""
    if endpoint and not os.environ.get("AWS_REQUEST_CHECKSUM_CALCULATION"):
        advice = " (should it refuse uploads: AWS_REQUEST_CHECKSUM_CALCULATION=when_required)"
    return Note(f"the bucket of {remote.url} is there, and the credentials reach it{advice}")


def _store(endpoint_url: str, *, attempts: int) -> Storage:
    return Storage(endpoint_url=endpoint_url, attempts=attempts, connect_timeout=2, read_timeout=5)


def _checkpoints(target: Target) -> Note:
    if not target.checkpoints:
        raise _SkippedError("the cluster's configuration names no place for them: a training that is lost starts over")
    try:
        _store(target.s3_endpoint_url, attempts=1).check_bucket(target.checkpoints)
    except BackendError as error:  # its name may be known in the cluster alone, its keys may be the tasks' alone
        return Note(error.what, "see that tasks reach it: this machine need not")
    return Note(f"the bucket of {target.checkpoints} is there")


def _images(file: Path) -> Note:
    images = pullable(read_images(file))
    for image in images:
        if image.endswith("0" * 64):
            raise InputError(f"image {image} has a placeholder for a digest", "run `make images REGISTRY=...`")
    return Note(", ".join(sorted(set(images))))


def require_secrets(namespace: str, target: Target) -> None:
    """See that the secrets of the tasks are there, as far as this can be seen from here.

    Raises:
        InputError: one is not.
        BackendError: the cluster that kubectl's configuration names cannot be reached.
    """
    for name in secrets_of(target):
        try:
            _secret(namespace, name)
        except _SkippedError as reason:
            log.warning("secret %s was not looked for: %s", name, reason)


def _secret(namespace: str, name: str) -> Note:
    """Whether a secret is there; what is in it stays on the server."""
    if not namespace:
        raise _SkippedError("no namespace is named: --namespace, or `namespace` in the cluster's file")
    api = _kubernetes()
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/secrets/{quote(name, safe='')}"
    where = f"secret {name} in namespace {namespace} of {api.configuration.host}"
    if _get(api, path, _METADATA_ALONE, where) is None:
        raise InputError(f"{where} does not exist", "infra/kubernetes/secrets.example.yaml says how to make it")
    return Note(f"is in namespace {namespace}")


def _gpu(gpu: Gpu) -> Note:
    if not gpu.count:
        raise _SkippedError("the cluster's configuration trains without")
    nodes = _get(_kubernetes(), "/api/v1/nodes", "application/json", "list of nodes")
    count = sum(int(node["status"].get("allocatable", {}).get(gpu.type, 0)) for node in (nodes or {}).get("items", []))
    if count < gpu.count:
        raise InputError(
            f"the cluster's nodes offer {count} {gpu.type}, expected {gpu.count} for a training",
            "install the device plugin, add nodes, or lower gpu.count",
        )
    return Note(f"{count} {gpu.type} on the cluster's nodes, some of which may be in use")


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
        raise _SkippedError("no cluster is named: kubectl has no configuration here") from error


def _get(api: "ApiClient", path: str, accept: str, what: str) -> Any:
    """The answer to a request of Kubernetes; None where there is no such thing."""
    import urllib3
    from kubernetes.client import ApiException

    host = api.configuration.host
    try:
        answer = api.call_api(
            path,
            "GET",
            header_params={"Accept": accept},
            response_type="object",
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _request_timeout=_SECONDS,
        )
    except ApiException as error:
        if error.status == 404:
            return None
        if error.status in (401, 403):
            raise _SkippedError(f"Kubernetes at {host} does not let you see the {what} ({error.status})") from error
        raise BackendError(f"Kubernetes at {host} answers {error.status} for the {what}", "try later") from error
    except urllib3.exceptions.HTTPError as error:
        reason = getattr(error, "reason", None) or error
        raise BackendError(
            f"Kubernetes at {host} cannot be reached ({type(reason).__name__})",
            "check the network and kubectl's context",
        ) from error
    return answer

"""What a run on a cluster stands on, looked at without changing it: versions, servers, stores, images, secrets."""

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
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any, Literal, NamedTuple

from components.services.data_versions.repository import default_remote
from components.services.storage.s3 import Storage
from components.services.tracking.files import check_direct_way, check_store, find_small_file, read
from components.services.tracking.mlflow import Tracking
from dagnn_core.errors import BackendError, DagnnError, InputError
from dagnn_core.text import one_line
from pipeline.cluster import Note, SkippedError, cluster_checks
from pipeline.images import IMAGES_FILE, pullable, read_images
from pipeline.kubeflow.client import Kubeflow
from pipeline.submit import connect
from pipeline.target import Target

LOOK_SECONDS = 20.0
APART = frozenset({"mlflow", "mlflow files"})
"""Checks that import MLflow. That takes longer than all the rest, and while one thread imports, no other can."""

_NUM_RUNS = 10  # newest ones, among which one is looked for that tells of MLflow

Status = Literal["ok", "warning", "failed", "skipped"]


class Diagnosis(NamedTuple):
    """What one look has found."""

    name: str
    status: Status
    what: str
    remedy: str = ""


def checks_of(
    *,
    kubeflow: Kubeflow | None,
    namespace: str,
    tracking: Tracking,
    project: Path = Path(),
    target: Target,
    account: str = "",
) -> dict[str, Callable[[], Note]]:
    """What there is to look at, by name; `look` does one, and nothing is changed.

    Args:
        kubeflow: the server; None where none is named.
        namespace: that the tasks run in.
        tracking: the MLflow server that is used here.
        project: root of the checkout.
        target: the cluster; what it names is looked for.
        account: the service account of the tasks; empty: the one that Kubeflow gives them.
    """
    return {
        "python": _python,
        "kubeflow": lambda: _kubeflow(kubeflow),
        "mlflow": partial(_mlflow, tracking),
        "mlflow files": partial(_mlflow_files, tracking, target),
        "dvc remote": lambda: _remote(project),
        "checkpoints": lambda: _checkpoints(target),
        "pipeline root": lambda: _pipeline_root(target),
        "images": lambda: _images(project / IMAGES_FILE),
        "kubeflow mlflow": lambda: _kubeflow_mlflow(kubeflow, target),
        **cluster_checks(namespace, target, account),
    }


def look(name: str, check: Callable[[], Note]) -> Diagnosis:
    """Do one check; what fails in it is its result."""
    try:
        found = check()
    except SkippedError as reason:
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
        raise SkippedError("no server is named: --host or KF_PIPELINES_ENDPOINT")
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


def _kubeflow_mlflow(kubeflow: Kubeflow | None, target: Target) -> Note:
    """Whether Kubeflow opens MLflow runs of its own, as its newest run shows: its API does not say it otherwise."""
    if kubeflow is None:
        raise SkippedError("no server is named: --host or KF_PIPELINES_ENDPOINT")
    if not target.kubeflow_mlflow:
        raise SkippedError("the cluster's configuration turns it off for its runs (kubeflow_mlflow)")
    try:
        runs = list(islice(connect(replace(kubeflow, connect_timeout=3, read_timeout=3)).list_runs(None), _NUM_RUNS))
    except DagnnError as error:
        raise SkippedError("its runs cannot be read: see the check `kubeflow`") from error
    run = next((run for run in runs if not _mlflow_part(run, "input").get("disabled")), None)
    if run is None:
        raise SkippedError("the server has no run yet that would show it")
    output = _mlflow_part(run, "output")
    if not output:
        return Note(f"off: run {run['run_id']} has no MLflow run of Kubeflow's own")
    if output.get("state") == "PLUGIN_FAILED":
        return Note(
            f"on, but failed for run {run['run_id']}: {one_line(output.get('state_message') or 'it does not say why')}",
            "correct `plugins.mlflow` in the configuration of Kubeflow's API server",
        )
    name = str(((output.get("entries") or {}).get("experiment_name") or {}).get("value", ""))
    what = f"on: run {run['run_id']} is in the MLflow experiment {name!r}"
    if name != target.experiment:
        return Note(what, f"submit with this target, which sends runs to {target.experiment!r}")
    return Note(what)


def _mlflow_part(run: Mapping[str, Any], direction: str) -> Mapping[str, Any]:
    return (run.get(f"plugins_{direction}") or {}).get("mlflow") or {}


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
        raise SkippedError(f"{tracking.address} is no server")
    with tracking.answering():
        file = find_small_file(tracking)
        if file is None:
            raise SkippedError("the server has no files yet that could be read")
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
        raise SkippedError("no default remote: fine while no data is under DVC, else `dvc remote add --default`")
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
        raise SkippedError("the cluster's configuration names no place for them: a training that is lost starts over")
    return _bucket(target, target.checkpoints)


def _pipeline_root(target: Target) -> Note:
    if not target.pipeline_root:
        raise SkippedError("the cluster's configuration names none: Kubeflow's own decides")
    if not target.has_artifacts_in_s3:
        raise SkippedError(f"{target.pipeline_root} is in no S3 that this program reaches")
    return _bucket(target, target.pipeline_root)


def _bucket(target: Target, uri: str) -> Note:
    try:
        _store(target.s3_endpoint_url, attempts=1).check_bucket(uri)
    except BackendError as error:  # its name may be known in the cluster alone, its keys may be the tasks' alone
        return Note(error.what, "see that tasks reach it: this machine need not")
    return Note(f"the bucket of {uri} is there")


def _images(file: Path) -> Note:
    images = pullable(read_images(file))
    for image in images:
        if image.endswith("0" * 64):
            raise InputError(f"image {image} has a placeholder for a digest", "run `make images REGISTRY=...`")
    return Note(", ".join(sorted(set(images))))

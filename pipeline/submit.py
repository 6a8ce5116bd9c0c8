"""Submit the compiled pipeline to a Kubeflow server, and follow the run.

Everything is checked before the first thing is made. What is made comes in an order in which each step is whole:
pipeline, version, experiment, run; after a failure in between, the same command takes up what is there already.
"""

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dagnn_core.errors import CheckRefusedError, DagnnError, InputError, SurroundingsError, name_first
from pipeline.kubeflow.client import Kubeflow, NewRun, RunState, check_versions
from pipeline.kubeflow.errors import ServerFailedError

log = logging.getLogger(__name__)

PIPELINE = "dagnn"
DESCRIPTION = "From raw pictures and sentences to a registered model"
NUM_COMMIT = 12  # digits of a commit in a version's name
NUM_DIGEST = 8  # and of the compiled pipeline's digest


class FollowInterruptedError(DagnnError):
    """Ctrl-C while a run is followed: the run goes on. Exit status 130."""

    exit_status = 130


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to submit."""

    package: Path
    """The compiled pipeline."""
    version: str
    """Name of the pipeline's version, as `version_name` makes it."""
    experiment: str
    run: str
    """Name of the run, or of the recurring run."""
    arguments: Mapping[str, str]
    """Of the pipeline; the others keep their defaults."""
    cron: str | None = None
    """With six fields; a recurring run instead of one now."""
    service_account: str | None = None
    """Of the tasks' pods; None: Kubeflow's."""


class Submitted(NamedTuple):
    """What is on the server now; None where it is not there, after a dry run."""

    pipeline_id: str | None
    version_id: str | None
    experiment_id: str | None
    run_id: str | None
    """Of the run, or of the recurring run."""


class Pace(NamedTuple):
    """How often to ask how a run is, in seconds."""

    first: float = 2.0
    longest: float = 30.0
    patience: float = 900.0
    """How long a server may fail before the run is no longer followed."""


def version_name(package: Path, git: Mapping[str, Any]) -> str:
    """Name of a pipeline's version: semantic version, commit, and digest of the compiled pipeline.

    Equal names have equal content, so that what was uploaded is not uploaded again.

    Args:
        package: the compiled pipeline.
        git: commit of the checkout, and whether it is dirty.
    """
    digest = hashlib.sha256(package.read_bytes()).hexdigest()[:NUM_DIGEST]
    dirty = ".dirty" if git["dirty"] else ""
    return f"{version('dagnn')}+{str(git['commit'])[:NUM_COMMIT]}{dirty}.{digest}"


def check_clean(git: Mapping[str, Any]) -> None:
    """See that the checkout is that of a commit: images are built from commits.

    Raises:
        InputError: files differ from the commit, or there is none.
    """
    if git["dirty"]:
        raise InputError(
            f"the checkout is not what its commit {str(git['commit'])[:NUM_COMMIT]} has, which images are built from; "
            "commit and build the images again, or add --allow-dirty"
        )


def disable_caching(package: Path) -> None:
    """Have every task of a compiled pipeline run, whatever ran before.

    kfp's own switch works for runs without a version alone: of a version, the server takes what was compiled.
    """
    documents = list(yaml.safe_load_all(package.read_text(encoding="utf-8")))
    for level in (documents[0]["root"], *documents[0]["components"].values()):
        for task in level.get("dag", {}).get("tasks", {}).values():
            task["cachingOptions"] = {}
    package.write_text(yaml.safe_dump_all(documents, sort_keys=True), encoding="utf-8")


def connect(kubeflow: Kubeflow) -> Kubeflow:
    """See that the server answers, understands this SDK, and takes the credentials.

    Returns:
        The same server; without the namespace, where it has one user and would refuse any.

    Raises:
        InputError: it is no Kubeflow, or a namespace is missing.
        SurroundingsError: it cannot be reached, is too old, or refuses.
    """
    health = kubeflow.health()
    check_versions(version("kfp"), health.version)
    if health.multi_user and not kubeflow.namespace:
        raise InputError(f"Kubeflow at {kubeflow.address} has many users; name your namespace with --namespace")
    if not health.multi_user:
        kubeflow = replace(kubeflow, namespace="")
    kubeflow.check_access()
    return kubeflow


def submit(kubeflow: Kubeflow, job: Job, *, dry_run: bool = False) -> Submitted:
    """Make what is missing of pipeline, version and experiment, and start the run or the schedule.

    Args:
        kubeflow: the server, which `connect` has checked.
        job: what to submit.
        dry_run: look only.

    Raises:
        InputError: the same schedule is there already, or the server refuses something.
        SurroundingsError: the server failed; the message says what was made before.
    """
    pipeline_id = kubeflow.find_pipeline(PIPELINE)
    version_id = kubeflow.find_version(pipeline_id, job.version) if pipeline_id else None
    experiment_id = kubeflow.find_experiment(job.experiment)
    scheduled = kubeflow.find_recurring_run(experiment_id, job.run) if job.cron and experiment_id else None
    if scheduled:
        page = kubeflow.page(f"recurringrun/details/{scheduled}")
        raise InputError(
            f"the recurring run {job.run!r} is there already, and would run twice; disable it first: {page}"
        )
    if dry_run:
        return Submitted(pipeline_id, version_id, experiment_id, None)
    made: list[str] = []
    starting = False
    try:
        if pipeline_id is None:
            pipeline_id = kubeflow.create_pipeline(PIPELINE, DESCRIPTION)
            made.append(f"the pipeline {PIPELINE}")
        if version_id is None:
            version_id = kubeflow.upload_version(pipeline_id, job.package, job.version)
            made.append(f"the version {job.version}")
        if experiment_id is None:
            experiment_id = kubeflow.create_experiment(job.experiment)
            made.append(f"the experiment {job.experiment}")
        run = NewRun(job.run, experiment_id, pipeline_id, version_id, job.arguments, job.service_account)
        starting = True
        run_id = kubeflow.create_recurring_run(run, job.cron) if job.cron else kubeflow.create_run(run)
    except DagnnError as error:
        # a request that got no answer may have been carried out all the same
        unsure = starting and isinstance(error, ServerFailedError)
        parts = [f"{'nobody knows whether the run was started' if unsure else 'the run was not started'}: {error}"]
        if made:
            parts.append(f"{' and '.join(made)} will be used again")
        if unsure:
            parts.append(f"look for {job.run!r} at {kubeflow.page('runs')} before you submit again")
        raise type(error)("; ".join(parts)) from error
    return Submitted(pipeline_id, version_id, experiment_id, run_id)


def follow(kubeflow: Kubeflow, run_id: str, pace: Pace = Pace()) -> RunState:  # noqa: B008  # immutable
    """Tell how a run and its tasks change, until it is finished.

    A server that fails is asked again for a while.

    Returns:
        The run's last state.

    Raises:
        CheckRefusedError: the run failed or was cancelled; the message names the tasks.
        InputError: there is no such run.
        SurroundingsError: the server failed for too long, or refuses; the run goes on.
        FollowInterruptedError: Ctrl-C; the run goes on.
    """
    try:
        run = _until_finished(kubeflow, run_id, pace)
    except KeyboardInterrupt as error:
        raise FollowInterruptedError(f"interrupted; the run goes on, {_again(run_id)}") from error
    except SurroundingsError as error:
        raise SurroundingsError(f"{error}; the run may go on, {_again(run_id)}") from error
    if run.state in ("FAILED", "CANCELED"):
        raise CheckRefusedError(f"run {run_id} {_outcome(run)}; {kubeflow.page(f'runs/details/{run_id}')} has the logs")
    return run


def _until_finished(kubeflow: Kubeflow, run_id: str, pace: Pace) -> RunState:
    seen: dict[str, str] = {}
    pause = pace.first
    failing_since: float | None = None
    while True:
        try:
            run = kubeflow.run_state(run_id)
            failing_since = None
        except ServerFailedError as error:
            now = time.monotonic()
            if failing_since is None:
                failing_since = now
                log.warning("%s", error)
            if now - failing_since > pace.patience:
                raise
        else:
            changed = _tell(run, seen)
            if run.finished:
                return run
            pause = pace.first if changed else pause
        time.sleep(pause)
        pause = min(pace.longest, pause * 1.5)


def _tell(run: RunState, seen: dict[str, str]) -> bool:
    """Log what is new, and remember it; whether anything was."""
    states = {task_id: (task.name, task.state) for task_id, task in run.tasks.items()} | {"": ("run", run.state)}
    changed = False
    for task_id, (name, state) in states.items():
        if seen.get(task_id) != state:
            log.info("[%s] %s", name, state.lower())
            seen[task_id] = state
            changed = True
    return changed


def _outcome(run: RunState) -> str:
    failed = [
        f"{task.name}: {task.message}" if task.message else task.name
        for task in run.tasks.values()
        if task.state == "FAILED"
    ]
    if run.state == "CANCELED":
        return "was cancelled"
    return f"failed ({name_first(failed) or run.message or 'no task says why'})"


def _again(run_id: str) -> str:
    return f"`dagnn follow {run_id}` shows it again"

"""Submit the compiled pipeline to a Kubeflow server.

Everything is checked before the first thing is made. What is made comes in an order in which each step is whole:
pipeline, version, experiment, run; after a failure in between, the same command takes up what is there already.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from components.git import check_trusted
from dagnn_core.errors import DagnnError, InputError
from pipeline.kubeflow.client import Kubeflow, NewRun, check_versions
from pipeline.kubeflow.errors import AlreadyThereError, ServerFailedError

PIPELINE = "dagnn"
DESCRIPTION = "From raw images and texts to a registered model"
NUM_COMMIT = 12  # digits of a commit in a version's name
NUM_DIGEST = 8  # and of the compiled pipeline's digest


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to submit."""

    package: Path
    """The compiled pipeline."""
    pipeline: str = PIPELINE
    """Name of the pipeline."""
    description: str = DESCRIPTION
    """Of the pipeline, where it is new."""
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
    pipeline_root: str = ""
    """Where the artifacts go; empty: where the server's configuration says."""
    plugins_input: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """What the server's plugins are told, by their names."""


class Submitted(NamedTuple):
    """What is on the server now; None where it is not there, after a dry run."""

    pipeline_id: str | None
    version_id: str | None
    experiment_id: str | None
    run_id: str | None
    """Of the run, or of the recurring run."""


def version_name(package: Path, git: Mapping[str, Any]) -> str:
    """Name of a pipeline's version: semantic version, commit, and digest of the compiled pipeline.

    Equal names have equal content, so that what was uploaded is not uploaded again. They have lower-case letters,
    digits, `-` and `.` alone, as names in Kubernetes.

    Args:
        package: the compiled pipeline.
        git: commit of the checkout, and whether it is dirty.
    """
    digest = hashlib.sha256(package.read_bytes()).hexdigest()[:NUM_DIGEST]
    commit = str(git["commit"])[:NUM_COMMIT]
    return "-".join((version("dagnn"), commit, *(["dirty"] if git["dirty"] else []), digest))


def former_version_name(name: str) -> str:
    """The name that earlier releases gave to a version: as 0.1.0+c0ffeec0ffee.0dd871a4."""
    release, *parts = name.split("-")
    return f"{release}+{'.'.join(parts)}"


def check_clean(git: Mapping[str, Any]) -> None:
    """See that the checkout is that of a commit: images are built from commits.

    Raises:
        InputError: files differ from the commit, or there is none.
    """
    if git["commit"] == "unknown":
        check_trusted(Path(__file__).parent)
        raise InputError(
            "this program runs in no git checkout with a commit, which images are built from",
            "run it in one, or add --allow-dirty",
        )
    if git["dirty"]:
        raise InputError(
            f"the checkout is not what its commit {str(git['commit'])[:NUM_COMMIT]} has, which images are built from",
            "commit and build the images again, or add --allow-dirty",
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
        BackendError: it cannot be reached, is too old, or refuses.
    """
    health = kubeflow.health()
    check_versions(version("kfp"), health.version)
    if health.multi_user and not kubeflow.namespace:
        raise InputError(f"Kubeflow at {kubeflow.address} has many users", "name your namespace with --namespace")
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
        BackendError: the server failed; the message says what was made before.
    """
    pipeline_id = kubeflow.find_pipeline(job.pipeline)
    version_id = _find_version(kubeflow, pipeline_id, job.version) if pipeline_id else None
    experiment_id = kubeflow.find_experiment(job.experiment)
    if job.cron and pipeline_id and experiment_id:
        scheduled = kubeflow.find_recurring_run(experiment_id, pipeline_id, job.run)
    else:
        scheduled = None
    if scheduled:
        raise InputError(
            f"the schedule {job.run!r} is there already, and would run twice",
            f"`dagnn schedules delete {scheduled}` deletes it",
        )
    if dry_run:
        return Submitted(pipeline_id, version_id, experiment_id, None)
    made: list[str] = []
    starting = False
    try:
        if pipeline_id is None:
            pipeline_id = _make(
                lambda: kubeflow.create_pipeline(job.pipeline, job.description),
                lambda: kubeflow.find_pipeline(job.pipeline),
            )
            made.append(f"the pipeline {job.pipeline}")
        if version_id is None:
            owner = pipeline_id
            version_id = _make(
                lambda: kubeflow.upload_version(owner, job.package, job.version),
                lambda: _find_version(kubeflow, owner, job.version),
            )
            made.append(f"the version {job.version}")
        if experiment_id is None:
            experiment_id = _make(
                lambda: kubeflow.create_experiment(job.experiment), lambda: kubeflow.find_experiment(job.experiment)
            )
            made.append(f"the experiment {job.experiment}")
        run = NewRun(
            name=job.run,
            experiment_id=experiment_id,
            pipeline_id=pipeline_id,
            version_id=version_id,
            arguments=job.arguments,
            service_account=job.service_account,
            pipeline_root=job.pipeline_root,
            plugins_input=job.plugins_input,
        )
        starting = True
        run_id = kubeflow.create_recurring_run(run, job.cron) if job.cron else kubeflow.create_run(run)
    except DagnnError as error:
        # a request that got no answer may have been carried out all the same
        unsure = starting and isinstance(error, ServerFailedError)
        parts = [f"{'could not confirm whether the run started' if unsure else 'the run was not started'}: {error}"]
        if made:
            parts.append(f"{' and '.join(made)} will be used again")
        if unsure:
            page = kubeflow.page("runs")
            parts.append(f"look for {job.run!r}{f' at {page}' if page else ''} before you submit again")
        raise type(error)("; ".join(parts)) from error
    return Submitted(pipeline_id, version_id, experiment_id, run_id)


def _find_version(kubeflow: Kubeflow, pipeline_id: str, name: str) -> str | None:
    """Id of a version, by its name or its former one: the same content is not uploaded twice."""
    return kubeflow.find_version(pipeline_id, name) or kubeflow.find_version(pipeline_id, former_version_name(name))


def _make(make: Callable[[], str], find: Callable[[], str | None]) -> str:
    """Make something; where another submission was faster, its id."""
    try:
        return make()
    except AlreadyThereError:
        found = find()
        if found is None:
            raise
        return found

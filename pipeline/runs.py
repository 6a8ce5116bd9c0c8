"""The runs on a Kubeflow server: list them, cancel one, try one again."""

import time
from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from dagnn_core.errors import BackendError, InputError
from pipeline.follow import FollowInterruptedError, RunProgress, read_run, spec_of
from pipeline.kubeflow.client import Kubeflow
from pipeline.kubeflow.errors import is_missing
from pipeline.kubeflow.runs import Task, read_time, state_of
from pipeline.submit import PIPELINE

_CANCEL_SECONDS = 60.0  # for the tasks under way to stop
_PAUSE = 2.0
_UNDER_WAY = ("PENDING", "RUNNING")


class RunSummary(NamedTuple):
    """A run in a list."""

    run_id: str
    name: str
    version: str
    """Name of the pipeline's version; empty where it was deleted."""
    state: str
    started: datetime | None
    finished: datetime | None
    page: str
    """URL; empty where the server has no pages."""


class Canceled(NamedTuple):
    """What became of a run that was canceled."""

    run: RunProgress
    tasks: list[Task]
    """Those that were under way, as they are now."""


def list_runs(kubeflow: Kubeflow, *, experiment: str = "", limit: int) -> list[RunSummary]:
    """The last runs of our pipeline that are not archived, newest first.

    Args:
        kubeflow: the server, which `connect` has checked.
        experiment: whose runs; empty: those of all experiments.
        limit: number of runs, at most.

    Raises:
        InputError: there is no such experiment.
        BackendError: the server failed or refuses.
    """
    experiment_id = kubeflow.find_experiment(experiment) if experiment else None
    if experiment and experiment_id is None:
        raise InputError(
            f"Kubeflow at {kubeflow.address} has no experiment {experiment!r}", "leave --experiment out to see all runs"
        )
    pipeline_id = kubeflow.find_pipeline(PIPELINE)
    if pipeline_id is None:
        return []
    versions = VersionNames(kubeflow)
    ours = (run for run in kubeflow.list_runs(experiment_id) if pipeline_of(run) == pipeline_id)
    return [
        RunSummary(
            run_id=run["run_id"],
            name=run["display_name"],
            version=versions.of(run),
            state=state_of(run),
            started=read_time(run, "created_at"),
            finished=read_time(run, "finished_at"),
            page=kubeflow.page(f"runs/details/{run['run_id']}"),
        )
        for run in islice(ours, limit)
    ]


def find_under_way(kubeflow: Kubeflow, argument: str, value: str) -> str | None:
    """Id of the newest run of our pipeline that has not ended and has an argument of this value; None: there is none.

    Raises:
        BackendError: the server failed or refuses.
    """
    pipeline_id = kubeflow.find_pipeline(PIPELINE)
    if pipeline_id is None:
        return None
    for run in kubeflow.list_runs(None):
        arguments = (run.get("runtime_config") or {}).get("parameters") or {}
        if pipeline_of(run) == pipeline_id and state_of(run) in _UNDER_WAY and arguments.get(argument) == value:
            return str(run["run_id"])
    return None


def cancel(kubeflow: Kubeflow, run_id: str) -> Canceled:
    """Have the server end a run, and wait a minute at most for the tasks under way.

    Args:
        kubeflow: the server, which `connect` has checked.
        run_id: of the run.

    Raises:
        InputError: there is no such run, or it has ended already.
        BackendError: the server failed or refuses; after the request, the message says so.
        FollowInterruptedError: Ctrl-C after the request; the run ends all the same.
    """
    run = read(kubeflow, run_id)
    if run.is_finished:
        raise InputError(f"run {run_id} has ended already: {run.state.lower()}", "`dagnn runs` lists all runs")
    labels = {task.label for task in run.tasks if task.state in _UNDER_WAY}
    if run.state != "CANCELING":
        kubeflow.terminate_run(run_id)
    asked = f"the server was asked to end the run, `dagnn follow {run_id}` shows how it ends"
    end = time.monotonic() + _CANCEL_SECONDS
    try:
        while True:
            run = read(kubeflow, run_id)
            tasks = [task for task in run.tasks if task.label in labels]
            ended = run.is_finished or not any(task.state in _UNDER_WAY for task in tasks)
            if ended or time.monotonic() > end:
                return Canceled(run, tasks)
            time.sleep(_PAUSE)
    except KeyboardInterrupt as error:
        raise FollowInterruptedError("interrupted", asked) from error
    except BackendError as error:
        raise BackendError(f"{error}", asked) from error


def retry(kubeflow: Kubeflow, run_id: str) -> None:
    """Have the server run again what failed in a run; what succeeded is kept.

    Args:
        kubeflow: the server, which `connect` has checked.
        run_id: of the run.

    Raises:
        InputError: there is no such run, or it neither failed nor was canceled.
        BackendError: the server failed or refuses.
    """
    run = read(kubeflow, run_id)
    if not run.is_finished:
        raise InputError(
            f"run {run_id} has not ended: {run.state.lower()}",
            f"`dagnn follow {run_id}` shows it, `dagnn cancel {run_id}` ends it",
        )
    if run.state not in ("FAILED", "CANCELED"):
        raise InputError(
            f"run {run_id} has {run.state.lower()}, nothing is left to retry", "`dagnn submit` starts a run"
        )
    kubeflow.retry_run(run_id)


def read(kubeflow: Kubeflow, run_id: str) -> RunProgress:
    """A run and its tasks, as the server sees them now.

    Raises:
        InputError: there is no such run.
        BackendError: the server failed or refuses.
    """
    try:
        answer = kubeflow.get_run(run_id)
    except InputError as error:
        if not is_missing(error):
            raise
        raise InputError(f"Kubeflow at {kubeflow.address} has no run {run_id!r}", "`dagnn runs` lists them") from error
    return read_run(answer, spec_of(kubeflow, answer))


def pipeline_of(entry: Mapping[str, Any]) -> str:
    """Id of the pipeline of a run or recurring run; empty where it has none."""
    return str((entry.get("pipeline_version_reference") or {}).get("pipeline_id") or "")


class VersionNames:
    """Names of the versions of pipelines, each asked for once."""

    def __init__(self, kubeflow: Kubeflow) -> None:
        self._kubeflow = kubeflow
        self._known: dict[str, str] = {}

    def of(self, entry: Mapping[str, Any]) -> str:
        """Of a run or recurring run; empty where the version was deleted."""
        version_id = (entry.get("pipeline_version_reference") or {}).get("pipeline_version_id") or ""
        if version_id and version_id not in self._known:
            self._known[version_id] = self._kubeflow.find_version_name(pipeline_of(entry), version_id) or ""
        return self._known.get(version_id, "")

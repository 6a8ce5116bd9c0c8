"""Follow a run on a Kubeflow server: what its tasks do, and what its failure was."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from dagnn_core.errors import BackendError, CheckFailedError, DagnnError, InputError
from dagnn_core.text import name_first, one_line
from pipeline.kubeflow.client import Kubeflow
from pipeline.kubeflow.errors import ServerFailedError
from pipeline.kubeflow.runs import Task, fold, read_time, state_of, whole_spec
from pipeline.task import last_words

log = logging.getLogger(__name__)

FINISHED = frozenset({"SUCCEEDED", "CACHED", "SKIPPED", "FAILED", "CANCELED"})


class FollowInterruptedError(DagnnError):
    """Ctrl-C while a run is followed: the run continues. Exit status 130."""

    exit_status = 130


class Pace(NamedTuple):
    """How often to ask how a run is, in seconds."""

    first: float = 2.0
    longest: float = 30.0
    patience: float = 900.0
    """How long a server may fail before the run is no longer followed."""


class RunProgress(NamedTuple):
    """A run, as the server sees it now."""

    id: str
    state: str
    tasks: Sequence[Task]
    message: str
    """Why it failed, as far as the server says it."""
    started: datetime | None
    finished: datetime | None

    @property
    def is_finished(self) -> bool:
        """Whether it will not change any more."""
        return self.state in FINISHED


class Lines:
    """Shows a run as it changes: one line per task and change, in the log."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, int]] = {}

    def __call__(self, run: RunProgress) -> bool:
        """Show what is new; whether anything was."""
        entries = [(task.label, task.state, max(1, len(task.attempts)), describe(task)) for task in run.tasks]
        whole = ("run", run.state, 0, describe_run(run))
        entries = [*entries, whole] if run.is_finished else [whole, *entries]  # its end is the last line
        changed = False
        for label, state, num_attempts, text in entries:
            if self._seen.get(label) != (state, num_attempts):
                log.info("%s: %s", label, text)
                self._seen[label] = (state, num_attempts)
                changed = True
        return changed


def describe(task: Task) -> str:
    """Attempt, its reason, state and duration of a task, as `attempt 2 after the pod was lost, running`."""
    parts = (task.note, _ended(task.state, task.started, task.finished))
    return ", ".join(filter(None, parts if task.attempts[1:] else reversed(parts)))


def elapsed(entry: Task | RunProgress) -> str:
    """How long a task or a run took, or has taken so far."""
    has_run = entry.state not in ("CACHED", "SKIPPED")
    return duration(entry.started, entry.finished or datetime.now(tz=UTC)) if has_run else ""


def describe_run(run: RunProgress) -> str:
    """State and duration of a run."""
    return _ended(run.state, run.started, run.finished) if run.is_finished else run.state.lower()


def duration(started: datetime | None, finished: datetime | None) -> str:
    """Time between two moments, as `4 min 27 s`; empty where one is not known."""
    if not started or not finished:
        return ""
    minutes, seconds = divmod(round((finished - started).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def follow(
    kubeflow: Kubeflow,
    run_id: str,
    pace: Pace = Pace(),  # noqa: B008  # immutable
    show: Callable[[RunProgress], bool] | None = None,
) -> RunProgress:
    """Show how a run and its tasks change, until it is finished.

    A server that fails is asked again for a while.

    Args:
        kubeflow: the server.
        run_id: of the run.
        pace: how often to ask.
        show: shows the run and returns whether it has changed; None: `Lines`.

    Returns:
        The run's last state.

    Raises:
        CheckFailedError: the run failed or was canceled; the message has the tasks' own last words.
        InputError: there is no such run.
        BackendError: the server failed for too long, or refuses; the run continues.
        FollowInterruptedError: Ctrl-C; the run continues.
    """
    again = f"`dagnn follow {run_id}` shows it again"
    try:
        run = _until_finished(kubeflow, run_id, pace, show or Lines())
    except KeyboardInterrupt as error:
        raise FollowInterruptedError("interrupted", f"the run continues, {again}") from error
    except BackendError as error:
        raise BackendError(f"{error}", f"the run may continue, {again}") from error
    if run.state in ("FAILED", "CANCELED"):
        raise _failure(kubeflow, run)
    return run


def read_run(run: Mapping[str, Any], spec: Mapping[str, Any]) -> RunProgress:
    """What the server answers, as a run with tasks.

    Args:
        run: the answer.
        spec: the compiled pipeline; empty where it is not known.
    """
    message = (run.get("error") or {}).get("message") or ""
    started, finished = read_time(run, "created_at"), read_time(run, "finished_at")
    return RunProgress(str(run["run_id"]), state_of(run), fold(run, spec), one_line(message), started, finished)


def spec_of(kubeflow: Kubeflow, run: Mapping[str, Any]) -> Mapping[str, Any]:
    """The compiled pipeline of a run; empty where its version was deleted."""
    reference = run.get("pipeline_version_reference") or {}
    if not reference.get("pipeline_version_id"):
        return whole_spec(run)
    try:
        return kubeflow.get_spec(reference["pipeline_id"], reference["pipeline_version_id"])
    except InputError:
        return {}


def cause_of(kubeflow: Kubeflow, run_id: str, task: Task) -> str:
    """A failed task's own last words and its exit status, as its log has them; empty where it has none."""
    if not task.attempts:
        return ""
    try:
        return last_words(task.name, read_attempt(kubeflow, run_id, task, len(task.attempts)) or "")
    except DagnnError:
        return ""  # the failure is told without its cause


def read_attempt(kubeflow: Kubeflow, run_id: str, task: Task, number: int) -> str | None:
    """Log of an attempt at a task; None where there is none yet or any more.

    Args:
        kubeflow: the server.
        run_id: of the run.
        task: with this attempt.
        number: of the attempt, from 1.
    """
    logs = (kubeflow.read_log(run_id, pod) for pod in task.attempts[number - 1].pods)
    return next((text for text in logs if text is not None), None)


class ServerOutage:
    """A server that fails while a run is followed: told once, and borne for a while.

    Args:
        patience: seconds.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: float | None = None

    def ended(self) -> None:
        """The server has answered."""
        self._since = None

    def note(self, error: ServerFailedError) -> None:
        """The server has failed.

        Raises:
            ServerFailedError: `error`, when it has failed for too long.
        """
        now = time.monotonic()
        if self._since is None:
            self._since = now
            log.warning("%s", error)
        if now - self._since > self._patience:
            raise error


def _until_finished(kubeflow: Kubeflow, run_id: str, pace: Pace, show: Callable[[RunProgress], bool]) -> RunProgress:
    spec: Mapping[str, Any] | None = None
    pause = pace.first
    outage = ServerOutage(pace.patience)
    while True:
        try:
            answer = kubeflow.get_run(run_id)
            spec = spec_of(kubeflow, answer) if spec is None else spec
            outage.ended()
        except ServerFailedError as error:
            outage.note(error)
        else:
            run = read_run(answer, spec)
            changed = show(run)
            if run.is_finished:
                return run
            pause = pace.first if changed else pause
        time.sleep(pause)
        pause = min(pace.longest, pause * 1.5)


def _failure(kubeflow: Kubeflow, run: RunProgress) -> CheckFailedError:
    """How a run failed, and where its logs are, on one line."""
    page = kubeflow.page(f"runs/details/{run.id}")
    logs = f"`dagnn logs {run.id}` shows the logs" + (f", {page} the run" if page else "")
    if run.state == "CANCELED":
        stopped = name_first([task.label for task in run.tasks if task.state == "CANCELED"])
        return CheckFailedError(f"run {run.id} was canceled{f' during {stopped}' if stopped else ''}", logs)
    causes = []
    for task in run.tasks:
        if task.state == "FAILED":
            causes.append(": ".join(filter(None, (task.failed_label, cause_of(kubeflow, run.id, task)))))
    return CheckFailedError(f"run {run.id} failed ({name_first(causes) or run.message or 'no task says why'})", logs)


def _ended(state: str, started: datetime | None, finished: datetime | None) -> str:
    how = {"SUCCEEDED": "in", "FAILED": "after", "CANCELED": "after"}.get(state)
    took = duration(started, finished)
    return f"{state.lower()} {how} {took}" if how and took else state.lower()

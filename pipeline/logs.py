"""The logs of a run's tasks on a Kubeflow server, whole or as they grow."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dagnn_core.errors import InputError
from pipeline.follow import FINISHED, FollowInterruptedError, Pace, ServerOutage, read_attempt, spec_of
from pipeline.kubeflow.client import Kubeflow
from pipeline.kubeflow.errors import ServerFailedError
from pipeline.kubeflow.runs import Task, fold, state_of, task_names

log = logging.getLogger(__name__)


class _Run:
    """A run whose logs are read."""

    def __init__(self, kubeflow: Kubeflow, run_id: str, task: str, attempt: int) -> None:
        self._kubeflow = kubeflow
        self._id = run_id
        self._attempt = attempt
        answer = kubeflow.get_run(run_id)
        self._spec = spec_of(kubeflow, answer)
        self._name = task.replace("-", "_")
        tasks = fold(answer, self._spec)
        names = list(dict.fromkeys((*(entry.name for entry in tasks), *task_names(self._spec))))
        if task and self._name not in names:
            raise InputError(
                f"run {run_id} has no task {task!r}, expected one of {', '.join(names) or 'none: it has not begun'}"
            )

    def look(self) -> tuple[list[Task], bool]:
        """The chosen tasks in order, and whether they will not change any more."""
        answer: Mapping[str, Any] = self._kubeflow.get_run(self._id)
        tasks = [task for task in fold(answer, self._spec) if not self._name or task.name == self._name]
        done = state_of(answer) in FINISHED
        return tasks, done or bool(self._name and tasks and all(task.state in FINISHED for task in tasks))

    def attempts(self, task: Task) -> Sequence[int]:
        """Numbers of the attempts to show: the chosen one, else the last."""
        number = self._attempt or len(task.attempts)
        return [number] if 1 <= number <= len(task.attempts) else []

    def read(self, task: Task, number: int) -> str | None:
        """A log; None where there is none."""
        return read_attempt(self._kubeflow, self._id, task, number)


def show_logs(
    kubeflow: Kubeflow, run_id: str, write: Callable[[str], None], *, task: str = "", tail: int = 0, attempt: int = 0
) -> None:
    """Write the logs of a run's tasks, each after a line that says whose it is where there are several.

    Args:
        kubeflow: the server.
        run_id: of the run.
        write: takes text, with the ends of its lines.
        task: name of a step; empty: all tasks. A task in a loop has one log per item.
        tail: lines at the end of each log; 0: all.
        attempt: its number, from 1; 0: the last of each task.

    Raises:
        InputError: there is no such run, task or attempt.
        BackendError: the server fails or refuses.
    """
    run = _Run(kubeflow, run_id, task, attempt)
    tasks, _ = run.look()
    if attempt and not any(run.attempts(entry) for entry in tasks):
        most = max((len(entry.attempts) for entry in tasks), default=0)
        raise InputError(f"there is no attempt {attempt}, expected at most {most}", "leave out --attempt for the last")
    if task and not tasks:
        log.warning("%s has not begun", task)
    for entry in tasks:
        numbers = run.attempts(entry)
        if not numbers:
            log.warning("%s has no log: it is %s", entry.label, entry.state.lower())
        for number in numbers:
            text = run.read(entry, number)
            if len(tasks) > 1 or len(entry.attempts) > 1:
                write(_header(entry, number))
            if text is None:
                log.warning("the log of %s is not there: its pod was deleted, or has not begun", entry.label)
            else:
                lines = text.splitlines()
                write("".join(f"{line}\n" for line in lines[-tail:]))  # -0 is all


def follow_logs(
    kubeflow: Kubeflow,
    run_id: str,
    write: Callable[[str], None],
    *,
    task: str = "",
    tail: int = 0,
    pace: Pace = Pace(),  # noqa: B008  # immutable
) -> None:
    """Write what the tasks of a run write, until they have ended; further attempts too.

    Args:
        kubeflow: the server.
        run_id: of the run.
        write: takes text, with the ends of its lines.
        task: name of a step; empty: all tasks.
        tail: lines that were written before, of each log; 0: all.
        pace: how often to ask.

    Raises:
        InputError: there is no such run or task.
        BackendError: the server failed for too long, or refuses.
        FollowInterruptedError: Ctrl-C; the run continues.
    """
    try:
        _follow_logs(_Run(kubeflow, run_id, task, 0), write, tail, pace)
    except KeyboardInterrupt as error:
        remedy = "the run continues, the same command shows its logs again"
        raise FollowInterruptedError("interrupted", remedy) from error


def _follow_logs(run: _Run, write: Callable[[str], None], tail: int, pace: Pace) -> None:
    written: dict[tuple[str, int], int] = {}  # characters of each attempt's log
    last: tuple[str, int] | None = None
    pause = pace.first
    outage = ServerOutage(pace.patience)
    while True:
        try:
            tasks, done = run.look()  # before the logs: what is written until a task has ended is read
            news = _read_news(run, tasks, written)
            outage.ended()
        except ServerFailedError as error:
            outage.note(error)
            done, news = False, []
        for task, number, text in news:
            key = (task.label, number)
            new = text[written.get(key, 0) :]
            if key not in written and tail:
                new = "".join(line + "\n" for line in new.splitlines()[-tail:])
            if key != last and (len(tasks) > 1 or number > 1):
                write(_header(task, number))
            write(new)
            written[key], last = len(text), key
        if done:
            return
        pause = pace.first if news else min(pace.longest, pause * 1.5)
        time.sleep(pause)


def _read_news(run: _Run, tasks: Sequence[Task], written: Mapping[tuple[str, int], int]) -> list[tuple[Task, int, str]]:
    """Tasks, attempts and logs of which more is there than was written."""
    news = []
    for task in tasks:
        for number in run.attempts(task):
            text = run.read(task, number)
            if text is not None and len(text) > written.get((task.label, number), 0):
                news.append((task, number, text))
    return news


def _header(task: Task, number: int) -> str:
    attempts = len(task.attempts)
    others = f", attempt {number} of {attempts} (--attempt shows another)" if attempts > 1 else ""
    return f"==> {task.label}{others}\n"

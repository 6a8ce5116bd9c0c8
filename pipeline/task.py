"""What a Kubeflow task says, and how it ends.

On a cluster the lines are the pod's log; `dagnn run` finds them in the output of kfp's local runner.
"""

import logging
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from components.command import failure_of
from components.output import LineFormatter, error_line, guarded_output, is_debugging
from dagnn_core import errors
from dagnn_core.errors import DagnnError, InputError, UnexpectedError
from dagnn_core.text import one_line

# what tasks of older images call their failures
_FORMER_NAMES = {"SurroundingsError": "BackendError", "CheckRefusedError": "CheckFailedError"}
_LINE = re.compile(r"\s*\[(?P<task>\w+)\] (?:(?P<failure>\w+Error): )?(?P<message>.*)")

NUM_LAST_LINES = 200  # at the end of a log, among which the cause of a failure is looked for


@contextmanager
def task(name: str) -> Iterator[None]:
    """Log the block's progress as lines `[name] message`; end a failure as one such line with its exit status.

    Nothing of what is said has a secret in it.

    Raises:
        SystemExit: the body raised an exception. The traceback is shown where it is none that was foreseen, and with
            DAGNN_DEBUG=1.
    """
    with guarded_output():
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(_TaskFormatter(name))
        logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)  # other packages stay at WARNING
        for package in ("components", "dagnn_core", "pipeline"):
            logging.getLogger(package).setLevel(logging.INFO)
        try:
            yield
        except Exception as error:
            failure = failure_of(error)
            if isinstance(failure, UnexpectedError) or is_debugging():
                traceback.print_exc()
            print(f"[{name}] {_class_name(failure)}: {error_line(failure)}")
            sys.exit(failure.exit_status)


def _class_name(failure: DagnnError) -> str:
    """The class by which `parse_task_line` knows a failure."""
    return next(cls.__name__ for cls in type(failure).__mro__ if cls.__module__ == errors.__name__)


def seed_of(text: str, default: int) -> int:
    """The seed that a parameter of the pipeline gives as text; empty: the default.

    Raises:
        InputError: it is no whole number of at least 0.
    """
    if not text:
        return default
    if not re.fullmatch(r"[0-9]+", text):
        raise InputError(f"seed must be a whole number of at least 0, or empty, got {text!r}", "correct the parameter")
    return int(text)


class _TaskFormatter(LineFormatter):
    """Begins every line with the task, those inside a message too."""

    def __init__(self, name: str) -> None:
        super().__init__("%(message)s")
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(f"[{self._name}] {line}" for line in super().format(record).splitlines())


class TaskLine(NamedTuple):
    """A line of a task's output; `failure` is set where it says how the task failed."""

    task: str
    message: str
    failure: DagnnError | None


def last_words(name: str, text: str) -> str:
    """How a task failed, as its log has it: exit status and message, else its last line; empty where it has none.

    Args:
        name: of the task, with which its own lines begin.
        text: the log, or its end.
    """
    lines = [line for line in text.splitlines()[-NUM_LAST_LINES:] if line.strip()]
    said = [line for line in map(parse_task_line, lines) if line and line.task == name]
    failure = next((line for line in reversed(said) if line.failure), None)
    if failure and failure.failure:
        return f"exit status {failure.failure.exit_status}: {one_line(failure.message)}"
    return one_line(said[-1].message if said else lines[-1]) if lines else ""


def parse_task_line(line: str) -> TaskLine | None:
    """Read back a line that a `task` wrote; None where something else wrote it."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    name = match["failure"] or ""
    failure = getattr(errors, _FORMER_NAMES.get(name, name), None)
    return TaskLine(
        task=match["task"],
        message=match["message"],
        failure=failure(f"{match['task']}: {match['message']}") if failure else None,
    )

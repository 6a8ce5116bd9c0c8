"""How a command ends: exit status, one clear line for a failure, logging set up once."""

import errno
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from components.output import LineFormatter, error_line, guarded_output, is_debugging
from dagnn_core.disk import disk_failure
from dagnn_core.errors import BackendError, DagnnError, InputError, UnexpectedError
from dagnn_core.text import one_line

ParamsOption = Annotated[str, typer.Option(help="The configuration file.")]
WorkOption = Annotated[Path, typer.Option(help="Folder for unfinished work, from which an interrupted run resumes.")]
INTERRUPTED = 130

_OPTIONAL = {"dvc": "dvc[s3]", "dvc_data": "dvc[s3]", "scmrepo": "dvc[s3]", "docker": "docker", "optuna": "optuna"}
"""Package that only some commands need -> what brings it."""

_PATH_ERRORS = {
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ENOENT: "there is no such file or folder; check the path",
    errno.EEXIST: "it is there already, and no folder; check the path",
    errno.ENOTDIR: "a part of the path is a file, expected a folder; check the path",
    errno.EISDIR: "it is a folder, expected a file; check the path",
    errno.ELOOP: "its links lead in a circle; check the path",
}
_PACKAGES = ("__main__", "components", "dagnn_core", "pipeline")
"""Whose log lines are shown from INFO on; those of others from WARNING on."""


def run_command(command: Callable[[], object]) -> NoReturn:
    """Run a command to its exit status: failures become one line on standard error, without a traceback.

    0 done, 1 a check said no, 2 bad input, 3 the backend or the program itself failed, 130 interrupted. With `--debug`
    among the arguments, or DAGNN_DEBUG=1, the traceback is shown too. Nothing that is shown has a secret in it.
    """
    if "--debug" in sys.argv:
        sys.argv.remove("--debug")
        os.environ["DAGNN_DEBUG"] = "1"  # so that the tasks of `dagnn run` show theirs too
    with guarded_output():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(LineFormatter("%(message)s"))
        handler.addFilter(_is_ours_or_warns)
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata; what it cannot decode, it raises
        try:
            command()
        except (KeyboardInterrupt, SystemExit) as end:
            if isinstance(end, SystemExit) and end.code != INTERRUPTED:  # typer makes an exit of an interruption
                raise
            remark = "interrupted; nothing was left half written, run the same command again to resume"
            _fail(DagnnError(remark), INTERRUPTED)
        except Exception as error:
            failure = failure_of(error)
            _fail(failure, failure.exit_status)
    sys.exit(0)


def failure_of(error: Exception) -> DagnnError:
    """What an exception that ended a command, or a task, means to the user."""
    if isinstance(error, DagnnError):
        return error
    if _is_out_of_memory(error):
        place = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        return BackendError(f"{place}not enough memory", "end other programs, or use a machine or a pod with more")
    if isinstance(error, RecursionError):
        return InputError("something in the input is nested too deeply", "add --debug to see where")
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "").partition(".")[0]
        if name in _OPTIONAL:
            return InputError(f"this needs {name}, which is not installed", f"run `pip install '{_OPTIONAL[name]}'`")
    if failure := disk_failure(error) or _path_failure(error):
        return failure
    said, kind = one_line(error), type(error).__name__
    what = said if said.startswith(kind) else f"{kind}: {said}"
    return UnexpectedError(f"unexpected failure ({what})", "add --debug to see where, and report it")


def _path_failure(error: Exception) -> InputError | None:
    if isinstance(error, OSError) and error.errno in _PATH_ERRORS and error.filename:
        return InputError(f"{error.filename}: {_PATH_ERRORS[error.errno]}")
    return None


def _is_out_of_memory(error: Exception) -> bool:
    is_refused = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or is_refused  # torch's own


def run_step(main: Callable[..., object]) -> NoReturn:
    """Run a step's `main` as a command line: `python -m components.<step> ...`."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    run_command(app)


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM, with which torchrun and clusters end a process, do what Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_ours_or_warns(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in _PACKAGES


def _fail(failure: DagnnError, status: int) -> NoReturn:
    if is_debugging():
        traceback.print_exc()
    print(f"error: {error_line(failure)}", file=sys.stderr)
    sys.exit(status)

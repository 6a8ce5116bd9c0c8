"""How a command ends: exit status, one clear line for a failure, logging set up once."""

import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from dagnn_core.disk import disk_failure
from dagnn_core.errors import DagnnError

ParamsOption = Annotated[str, typer.Option(help="The configuration file.")]
WorkOption = Annotated[Path, typer.Option(help="Folder for unfinished work, from which an interrupted run goes on.")]
INTERRUPTED = 130

_OPTIONAL = {"dvc": "dvc[s3]", "dvc_data": "dvc[s3]", "scmrepo": "dvc[s3]", "docker": "docker"}
"""Package that only some commands need -> what brings it."""


def run_command(command: Callable[[], object]) -> NoReturn:
    """Run a command to its exit status: failures become one line on standard error, without a traceback.

    0 done, 1 a check said no, 2 bad input, 3 the surroundings failed, 130 interrupted. With `--debug` among the
    arguments, or DAGNN_DEBUG=1, the traceback is shown too.
    """
    if "--debug" in sys.argv:
        sys.argv.remove("--debug")
        os.environ["DAGNN_DEBUG"] = "1"  # so that the tasks of `dagnn run` show theirs too
    debug = os.environ.get("DAGNN_DEBUG") == "1"
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for chatty in ("alembic", "botocore", "mlflow", "matplotlib", "git"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        command()
    except DagnnError as error:
        _fail(str(error), error.exit_status, debug)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:  # typer makes an exit of an interruption
            raise
        _fail("interrupted; nothing was left half written, run the same command again to go on", INTERRUPTED, debug)
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in _OPTIONAL:
            raise
        _fail(f"this needs {name}, which is not installed; run `pip install '{_OPTIONAL[name]}'`", 2, debug)
    except Exception as error:
        failure = disk_failure(error)
        if failure is None:
            raise
        _fail(str(failure), failure.exit_status, debug)
    sys.exit(0)


def run_step(main: Callable[..., object]) -> NoReturn:
    """Run a step's `main` as a command line: `python -m components.<step> ...`."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    run_command(app)


def _fail(message: str, status: int, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)

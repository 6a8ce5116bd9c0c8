"""Run the Kubeflow pipeline on this machine: every task is a local process, or with a container engine a container."""

import io
import logging
import os
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import TextIO

import psutil
from kfp import local
from kfp.local import subprocess_task_handler

from components.locations import CACHE, WORK
from dagnn_core.errors import BackendError, DagnnError
from dagnn_core.redaction import redact
from pipeline.graph import Outputs, PipelineOptions, build_pipeline
from pipeline.images import Images
from pipeline.task import parse_task_line

_WRITABLE = (WORK, CACHE)  # the pipeline's parameters `work` and `cache`
_COLOUR = re.compile(r"\x1b\[\d+m")


def run_locally(
    *,
    params: Mapping[str, object],
    root: Path,
    images: Images | None = None,
    memory: str | None = None,
    options: PipelineOptions = PipelineOptions(),  # noqa: B008  # frozen
) -> Outputs:
    """Run all tasks, in the current directory: in processes of this Python, or in containers of `images`.

    The tasks' progress goes to standard output, everything that they and kfp say to a log file beside the run's
    folder.

    Args:
        params: the sections of `params.yaml`.
        root: folder for the runs; kfp makes one folder below it for each run.
        images: run in containers of these.
        memory: limit of each container, as `4g`.
        options: what the graph has beyond the six steps.

    Raises:
        DagnnError: a task failed; the error is the task's own where it is one of `dagnn_core.errors`.
    """
    if images:
        from pipeline.containers import container_runner, reliable_containers  # needs the extra `docker`

    pipeline = build_pipeline(images=images, params=params, options=options)
    name = f"{datetime.now(tz=UTC):%Y-%m-%d-%H-%M-%S}"
    os.environ["DAGNN_PIPELINE_RUN"] = f"local/{name}"  # the tasks record it
    runner = (
        container_runner(images=images, memory=memory, root=root, writable=_WRITABLE)
        if images
        else local.SubprocessRunner(use_venv=False)
    )
    root.mkdir(parents=True, exist_ok=True)
    log_path = root / f"{name}.log"
    local.init(runner, pipeline_root=str(root))
    with log_path.open("w", encoding="utf-8") as log, warnings.catch_warnings():
        # processes run in this very environment, whatever the image is called, and display names are for clusters
        warnings.filterwarnings(
            "ignore", message="You may be .* to run a task that uses custom", category=RuntimeWarning
        )
        warnings.filterwarnings("ignore", message=r"Task .*: settings \['display_name'\] have no effect")
        logging.getLogger().setLevel(logging.WARNING)  # kfp logs to the root logger that it has cleaned up
        transcript = _Transcript(log, terminal=sys.stdout)
        try:
            with redirect_stdout(transcript), reliable_containers() if images else reliable_processes():
                outputs = pipeline().outputs
        except RuntimeError as error:
            reason = _COLOUR.sub("", str(error))
            raise transcript.failure or BackendError(f"{reason} Its output is in {log_path}.") from error
        except KeyboardInterrupt:
            _wait_for_tasks()
            raise
    return Outputs(**outputs)


@contextmanager
def reliable_processes() -> Iterator[None]:
    """Have kfp start its processes by any path of this Python, and leave their arguments as they are."""
    theirs = subprocess_task_handler.replace_python_executable
    subprocess_task_handler.replace_python_executable = _run_by
    try:
        yield
    finally:
        subprocess_task_handler.replace_python_executable = theirs


def _run_by(command: Sequence[str], executable: str) -> list[str]:
    """Put a Python into a task's command, `sh -c SCRIPT CODE ARGUMENT ...`: into the script alone, and quoted."""
    shell, option, script, *arguments = command
    return [shell, option, script.replace("python3", shlex.quote(executable)), *arguments]


class _Transcript(io.TextIOBase):
    """Standard output while kfp runs: everything goes to the log, the tasks' own lines to the terminal too."""

    def __init__(self, log: TextIO, terminal: TextIO) -> None:
        self._log = log
        self._terminal = terminal
        self._pending = ""
        self._lock = Lock()  # trainings with several seeds run in threads of kfp
        self.failure: DagnnError | None = None
        """How a task failed, as far as it could say."""

    def write(self, text: str) -> int:
        with self._lock:
            self._take(redact(text))
        return len(text)

    def _take(self, text: str) -> None:
        self._log.write(text)
        *lines, self._pending = (self._pending + text).split("\n")
        for line in lines:
            entry = parse_task_line(line)
            if entry is not None:
                self.failure = self.failure or entry.failure
                if entry.failure is None:
                    self._terminal.write(f"[{entry.task}] {entry.message}\n")
                    self._terminal.flush()


def _wait_for_tasks() -> None:
    """Let a task's processes clean up after Ctrl-C, which a terminal sends to them as well."""
    processes = psutil.Process().children(recursive=True)
    _, running = psutil.wait_procs(processes, timeout=5)
    for process in running:
        process.send_signal(signal.SIGINT)
    psutil.wait_procs(running, timeout=60)

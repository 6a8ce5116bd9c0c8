"""A small project in a folder of its own, and its steps as processes that can be limited, killed and looked into.

A step is forked from this process, which has imported torch and MLflow once: it is the real command line, without the
seconds that its imports take, in which there is little to disturb.
"""

import importlib
import json
import os
import resource
import runpy
import shutil
import signal
import sqlite3
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from dagnn_core.artifacts import read_artifact
from dagnn_core.errors import ArtifactError
from tests.fixtures.locations import ROOT

# step -> the artifact that it makes; `register` makes a version
MAKES = {
    "dataset": "dataset",
    "extract_features": "features",
    "build_label_graph": "label_graph",
    "train": "model",
    "evaluate": "report",
    "register": "",
}
READS: Mapping[str, tuple[str, ...]] = {
    "dataset": (),
    "extract_features": ("dataset",),
    "build_label_graph": ("dataset",),
    "train": ("features", "label_graph"),
    "evaluate": ("dataset", "features", "model"),
    "register": ("model", "report"),
}
_CONFIGURATION: Mapping[str, Mapping[str, object]] = {
    "dataset": {"source": "scenes.yaml", "min_label_count": 4},
    "features": {"min_word_count": 1},
    "model": {"embedding_dim": 16, "image_to_text_hidden": 16, "text_to_image_hidden": 16, "hops": 1},
    "train": {"epochs": 4, "lr": 0.001},
    "evaluate": {"num_queries": 2, "num_retrieved": 2},
}
_ENVIRONMENT = {
    "DAGNN_GIT_COMMIT": "c0ffee" * 6 + "c0de",  # no git, whose time would be part of every step's
    "MLFLOW_TRACKING_URI": "",
    "MLFLOW_RUN_ID": "",
    "DAGNN_DEBUG": "",
    "COLUMNS": "200",
}


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    """Exit status; of a signal its negative number."""
    output: str


class Running:
    """A command under way, the leader of a process group."""

    def __init__(self, pid: int, output: Path) -> None:
        self.pid = pid
        self._output = output
        self._ended: Ended | None = None

    def poll(self) -> Ended | None:
        """How it ended; None while it runs."""
        if self._ended is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._ended = Ended(os.waitstatus_to_exitcode(status), self._output.read_text(errors="replace"))
        return self._ended

    def wait(self, seconds: float = 120) -> Ended:
        """Wait for its end; one that takes too long is killed, which no invariant allows."""
        deadline = time.monotonic() + seconds
        while (ended := self.poll()) is None:
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
            time.sleep(0.01)
        return ended

    def send(self, number: int) -> None:
        """Send a signal to the whole group, as a terminal or a cluster does."""
        if self.poll() is None:
            os.killpg(self.pid, number)


class Project:
    """The project; `root` is the same for all its states, since MLflow's database holds absolute paths."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = home / "project"
        self.num_started = 0

    def create(self, *, seed: int, num_scenes: int) -> None:
        """Begin with an empty project of rendered scenes."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        yaml = YAML()
        scenes = {"num_scenes": num_scenes, "width": 96, "height": 96, "seed": seed}
        yaml.dump(scenes, self.root / "scenes.yaml")
        sections: dict[str, Any] = yaml.load(ROOT / "params.yaml")
        for name, values in _CONFIGURATION.items():
            sections[name].update(values)
        sections["register"]["gate"].update(min_map_i2t=0.0, min_map_t2i=0.0)
        yaml.dump(sections, self.root / "params.yaml")

    def create_database(self) -> None:
        """Make MLflow's tables, which takes as long as many steps."""
        from components.services.tracking.mlflow import Tracking

        def create() -> int:
            return 0 if Tracking().client.get_experiment_by_name("none") is None else 1

        assert self.fork(create).wait().status == 0

    def save(self, name: str) -> None:
        """Keep the present state under a name."""
        shutil.copytree(self.root, self.home / "states" / name, symlinks=True)

    def restore(self, name: str) -> None:
        """Go back to a state."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.home / "states" / name, self.root, symlinks=True)

    def start(
        self,
        step: str,
        *,
        limits: Mapping[int, int] | None = None,
        environment: Mapping[str, str] | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> Running:
        """Start a step.

        Args:
            step: a key of MAKES.
            limits: of `resource.setrlimit`.
            environment: variables.
                before: is called in the new process, before the step.
        """
        return self.fork(lambda: _run(*_command(step)), limits=limits, environment=environment, before=before)

    def fork(
        self,
        work: Callable[[], int],
        *,
        limits: Mapping[int, int] | None = None,
        environment: Mapping[str, str] | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> Running:
        """Start a function in a process of its own; it returns the exit status."""
        self.num_started += 1
        output = self.home / "outputs" / f"{self.num_started}.txt"
        output.parent.mkdir(exist_ok=True)
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return Running(pid, output)
        status = 1
        try:
            os.setsid()
            os.chdir(self.root)
            stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for descriptor in (1, 2):
                os.dup2(stream, descriptor)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # as a command starts: a limit of open files counts its own
            os.environ.update(_ENVIRONMENT | dict(environment or {}))
            before()
            for limit, value in (limits or {}).items():
                resource.setrlimit(limit, (value, value))
            status = work()
        finally:
            os._exit(status)

    def run(self, step: str) -> Ended:
        """Run a step undisturbed."""
        return self.start(step).wait()

    def run_first(self, step: str) -> Ended:
        """Run a step undisturbed, and import here what it has imported, so that later ones need not."""
        names = self.home / "modules.txt"

        def work() -> int:
            status = _run(*_command(step))
            names.write_text("\n".join(sorted(sys.modules)))
            return status

        ended = self.fork(work).wait()
        for name in names.read_text().split():
            with suppress(ImportError, AttributeError, ValueError):  # it was made by other means than an import
                importlib.import_module(name)
        return ended

    def artifact(self, kind: str) -> Path:
        """Where an artifact goes."""
        return self.root / "artifacts" / kind

    def digest(self, kind: str) -> str | None:
        """Digest of files and content of a whole artifact; None where there is none.

        Raises:
            ArtifactError: what is there is not whole.
        """
        if not self.artifact(kind).exists():
            return None
        artifact = read_artifact(self.artifact(kind), kind, verify=True)
        return json.dumps([artifact.content_digest, artifact.content], sort_keys=True)

    def is_whole(self, kind: str) -> bool:
        """Whether there is a whole artifact, or none."""
        try:
            self.digest(kind)
        except ArtifactError:
            return False
        return True

    def leftovers(self) -> list[str]:
        """What lies about that no step that ended well leaves."""
        found = [*self.root.rglob(".*.tmp"), *self.root.rglob(".*.old"), *self.root.rglob("*.partial")]
        found += (self.root / ".dagnn" / "work").glob("*")
        found += (self.root / ".dagnn" / "cache").rglob("*.tmp")
        return sorted(str(path.relative_to(self.root)) for path in found)

    def rows(self, query: str) -> list[Any]:
        """Rows of MLflow's database."""
        with closing(sqlite3.connect(self.root / "mlflow.db")) as connection:
            return connection.execute(query).fetchall()


def _command(step: str) -> tuple[str, list[str]]:
    reads = [part for kind in READS[step] for part in (f"--{kind.replace('_', '-')}", f"artifacts/{kind}")]
    if step == "register":
        return "pipeline.cli.main", ["register", *reads]
    return f"components.steps.{step}", [*reads, f"--{MAKES[step].replace('_', '-')}-out", f"artifacts/{MAKES[step]}"]


def _run(module: str, arguments: list[str]) -> int:
    sys.argv = [module, *arguments]
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")  # it is imported already
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0

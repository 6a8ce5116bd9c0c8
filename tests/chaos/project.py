"""A small project in a folder of its own, and its steps as processes that can be limited, killed and looked into.

A step is forked from this process, which has imported torch and MLflow once: it is the real command line, without the
seconds that its imports take, in which there is little to disturb.
"""

import importlib
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from dagnn_core.artifacts import read_artifact
from dagnn_core.errors import ArtifactError
from tests.fixtures.forked import Process, fork, run_module
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


class Project:
    """The project; `root` is the same for all its states, since MLflow's database holds absolute paths."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = home / "project"

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

        assert not self._fork(lambda: Tracking().client.get_experiment_by_name("none")).wait().returncode

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
    ) -> Process:
        """Start a step.

        Args:
            step: a key of MAKES.
            limits: of `resource.setrlimit`.
            environment: variables.
            before: is called in the new process, before the step.
        """

        def work() -> None:
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # as a command starts: a limit of open files counts its own
            before()
            for limit, value in (limits or {}).items():
                resource.setrlimit(limit, (value, value))
            run_module(*_command(step))

        return self._fork(work, environment)

    def run(self, step: str) -> subprocess.CompletedProcess[str]:
        """Run a step undisturbed."""
        return self.start(step).wait()

    def run_first(self, step: str) -> subprocess.CompletedProcess[str]:
        """Run a step undisturbed, and import here what it has imported, so that later ones need not."""
        names = self.home / "modules.txt"

        def work() -> None:
            try:
                run_module(*_command(step))
            finally:
                names.write_text("\n".join(sorted(sys.modules)))

        ended = self._fork(work).wait()
        for name in names.read_text().split():
            with suppress(ImportError, AttributeError, ValueError):  # it was made by other means than an import
                importlib.import_module(name)
        return ended

    def _fork(self, work: Callable[[], object], environment: Mapping[str, str] | None = None) -> Process:
        return fork(work, cwd=self.root, environment={**os.environ, **_ENVIRONMENT, **(environment or {})})

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


def _command(step: str) -> tuple[str, ...]:
    reads = [part for kind in READS[step] for part in (f"--{kind.replace('_', '-')}", f"artifacts/{kind}")]
    if step == "register":
        return ("pipeline.cli.main", "register", *reads)
    return (f"components.steps.{step}", *reads, f"--{MAKES[step].replace('_', '-')}-out", f"artifacts/{MAKES[step]}")

"""A copy of this checkout with a tiny demo, in which whole chains run."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.cli.bench import copy_checkout

ROOT = Path(__file__).parents[2]
TINY = {
    "dataset": {"min_label_count": 4},
    "model": {"embedding_dim": 16, "image_to_text_hidden": 16, "text_to_image_hidden": 16, "hops": 1},
    "train": {"epochs": 2, "lr": 0.001},
    "evaluate": {"num_queries": 2, "num_retrieved": 2},
}


class Checkout:
    """A project folder, and commands run in it as a user would."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "DVC_NO_ANALYTICS": "1",
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "200",
            **{f"GIT_{role}_{key}": "test" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")},
        }

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command as the leader of a process group, as a shell does, with its output in one pipe."""
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def try_run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False, timeout=300
        )

    def run(self, *command: str) -> str:
        done = self.try_run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "Test")

    def set(self, changes: dict[str, Any], file: str = "params.yaml") -> None:
        """Change keys of a YAML file and keep the rest."""
        yaml, path = YAML(), self.root / file
        values = yaml.load(path)
        for key, value in changes.items():
            if isinstance(value, dict):
                values[key].update(value)
            else:
                values[key] = value
        yaml.dump(values, path)


@pytest.fixture(scope="module")
def make_checkout(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Checkout]:
    def make() -> Checkout:
        checkout = Checkout(tmp_path_factory.mktemp("checkout") / "a project")
        copy_checkout(ROOT, checkout.root)
        checkout.set({"num_scenes": 150}, file="configs/demo_scenes.yaml")
        checkout.set(TINY)
        checkout.commit()
        return checkout

    return make

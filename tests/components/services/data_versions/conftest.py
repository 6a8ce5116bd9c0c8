"""A folder under git and DVC, and raw data."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from botocore.retries.standard import ExponentialBackoff

from components.services.data_versions.adding import add
from components.services.data_versions.raw_version import RawLineage
from components.services.storage.s3 import Storage
from tests.fixtures import forked


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)


class Project:
    """A folder under git and DVC."""

    def __init__(self, root: Path) -> None:
        self.root = root
        identity = {f"GIT_{role}_{key}": "test" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
        self.environment = os.environ | identity | {"DVC_NO_ANALYTICS": "1"}

    def run(self, *command: str) -> str:
        if command[0] == "dvc":
            done = forked.run(*command, cwd=self.root, environment=self.environment)
        else:
            done = subprocess.run(
                command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False, timeout=120
            )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def add(self, source: Path | str, name: str = "photos", storage: Storage | None = None) -> RawLineage:
        return add(name, str(source), project=self.root, storage=storage or Storage())

    def commit(self) -> str:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "--message", "Test")
        return self.run("git", "rev-parse", "HEAD").strip()

    def files(self, folder: str = "data/photos") -> dict[str, bytes]:
        return content(self.root / folder)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = Project(tmp_path_factory.mktemp("template"))
    project.run("git", "init", "--quiet")
    project.run("dvc", "init", "--quiet")
    (project.root / ".gitignore").write_text(".dagnn/\n")
    project.commit()
    return project.root


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Project:
    shutil.copytree(template, tmp_path / "project")
    return Project(tmp_path / "project")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


def make_source(source: Path) -> Path:
    (source / "images").mkdir(parents=True)
    (source / "table.csv").write_text("id,text\r\n1,one\r\n")
    for number in range(110):
        (source / "images" / f"{number}.jpg").write_bytes(b"%d" % number * 50)
    return source


KILLED = """
import importlib, os, signal, sys
from pathlib import Path

place, when, count = sys.argv.pop().split()
module, _, path = place.partition(":")
owner = importlib.import_module(module)
*owners, name = path.split(".")
for part in owners:
    owner = getattr(owner, part)
original, calls = getattr(owner, name), 0

def deadly(*arguments, **options):
    global calls
    calls += 1
    if calls == int(count) and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    answer = original(*arguments, **options)
    if calls == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return answer

setattr(owner, name, deadly)
"""


def kill_at(point: str, call: str, *arguments: str, cwd: Path) -> None:
    """Run code in a process of its own that is killed (SIGKILL) when it comes to a point.

    Args:
        point: `module:function before|after N`, the Nth call of it.
        call: the code; `arguments` are `sys.argv[1:]`.
        arguments: of the code.
        cwd: where it runs.
    """
    done = forked.run_code(KILLED + call, *arguments, point, cwd=cwd)
    assert done.returncode == -signal.SIGKILL, point

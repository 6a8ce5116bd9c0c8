"""The Pythons that the project is tested on: what the Makefile, the locks and the README say of them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
[TESTED] = re.findall(r"^TESTED := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
LOCKS = ("requirements.lock", "infra/docker/steps.lock", "infra/docker/serve.lock", "infra/docker/mlflow.lock")


@pytest.mark.parametrize("lock", LOCKS)
def test_they_get_the_same_version_of_each_package(lock: str) -> None:
    lines = (ROOT / lock).read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines]
    pinned = {python: _for_python(requirements, python) for python in TESTED.split()}
    assert {"numpy", "scipy", "torch"} & pinned["3.11"].keys()
    for package in {name for packages in pinned.values() for name in packages}:
        versions = {packages[package] for packages in pinned.values() if package in packages}
        assert len(versions) == 1, f"{package}: {versions}"


def _for_python(requirements: list[Requirement], python: str) -> dict[str, str]:
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    return {
        requirement.name: str(requirement.specifier)
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate(environment)
    }


def test_the_readme_names_them() -> None:
    *first, last = TESTED.split()
    assert f"Python {', '.join(first)} or {last} " in (ROOT / "README.md").read_text(encoding="utf-8")


PYTHON = """#!/bin/sh
# as a Python for which pip finds no wheels
case "$*" in
    *version_info\\[*) echo {version} ;;
    *version_info*) exit {is_too_old} ;;
    *venv*) mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    *pip*) echo "WARNING: a wall"; echo "ERROR: No matching distribution found for torch"; exit 1 ;;
esac
"""


# version of a Python that cannot install the packages -> what is said of it
@pytest.mark.parametrize(
    ("version", "is_too_old", "said"),
    [
        ("3.10", 1, ["error: {python} is not Python 3.11 or later; install one and run: make PYTHON=/path/to/"]),
        (TESTED.split()[-1], 0, ["WARNING: a wall", "ERROR: No matching distribution found for torch"]),
        (
            "3.99",
            0,
            [
                f"note: Python 3.99 is not among those that this project was tested on: {TESTED}",
                "ERROR: No matching distribution found for torch",
            ],
        ),
    ],
)
def test_set_up_says_in_a_line_what_is_wrong_with_a_python(
    tmp_path: Path, version: str, is_too_old: int, said: list[str]
) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    python = tmp_path / "python"
    python.write_text(PYTHON.format(version=version, is_too_old=is_too_old))
    python.chmod(0o755)
    done = subprocess.run(
        ["make", f"PYTHON={python}", "setup"],
        cwd=tmp_path,
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    lines = [line for line in done.stdout.splitlines() if not line.startswith(("make", "Making"))]
    assert len(lines) == len(said)
    for line, expected in zip(sorted(lines), sorted(said), strict=True):
        assert line.startswith(expected.format(python=python))

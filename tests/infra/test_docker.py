"""The Dockerfile and the locks that it installs from."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "infra/docker"


def lock(path: Path) -> set[str]:
    return {line.split(" ;")[0] for line in path.read_text(encoding="utf-8").splitlines()}


def test_hadolint_finds_nothing() -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed: make setup")
    done = subprocess.run([program, DOCKER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_shell_script_is_portable() -> None:
    subprocess.run(["sh", "-n", DOCKER / "base-image.sh"], check=True)


def test_tasks_and_service_have_the_versions_of_the_project() -> None:
    whole = lock(ROOT / "requirements.lock")
    assert lock(DOCKER / "steps.lock") <= whole
    assert lock(DOCKER / "serve.lock") <= whole
    kfp = [entry for entry in whole if entry.startswith("kfp==")]
    assert kfp and kfp[0] in lock(DOCKER / "steps.lock")


def test_the_server_is_of_the_clients_version() -> None:
    (mlflow,) = (entry for entry in lock(ROOT / "requirements.lock") if entry.startswith("mlflow=="))
    assert mlflow in lock(DOCKER / "mlflow.lock")


@pytest.mark.parametrize("unwanted", ["torch", "nvidia-", "triton", "pytest", "dvc", "moto", "kubernetes"])
def test_images_hold_nothing_that_they_do_not_need(unwanted: str) -> None:
    names = lock(DOCKER / "mlflow.lock")
    if unwanted != "torch":
        names |= lock(DOCKER / "steps.lock") | lock(DOCKER / "serve.lock")
    assert not [entry for entry in names if entry.startswith(unwanted)]


UNUSED = ("kfp", "mlflow==", "matplotlib", "pandas", "scikit-learn", "sqlalchemy", "playwright")


@pytest.mark.parametrize("unwanted", UNUSED)
def test_the_service_holds_nothing_of_training(unwanted: str) -> None:
    assert not [entry for entry in lock(DOCKER / "serve.lock") if entry.startswith(unwanted)]


def test_every_image_is_labelled_and_runs_as_the_same_user() -> None:
    stages = re.split(r"^FROM ", (DOCKER / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    finals = {stage.split()[2]: stage for stage in stages if stage.startswith("runtime AS")}
    assert set(finals) == {"cpu", "gpu", "serve", "mlflow"}
    for name, stage in finals.items():
        assert f'org.opencontainers.image.title="dagnn-{name}"' in stage
        assert "org.opencontainers.image.revision" in stage and "org.opencontainers.image.version" in stage
        assert "USER" not in stage
    assert "USER 10001:10001" in "".join(stages)

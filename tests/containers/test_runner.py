"""Containers end as they ended: what kfp's own runner reports wrongly, ours reports rightly."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import docker
import pytest
from kfp.local import docker_task_handler

from dagnn_core.errors import BackendError
from pipeline.containers import container_runner, reliable_containers, run_container
from pipeline.images import Images, read_images

ROOT = Path(__file__).parents[2]
SLEEP = "import time\nprint('up', flush=True)\ntry: time.sleep(100)\nfinally: print('cleaned up', flush=True)"
WAIT = ["sh", "-c", 'python -c "$0"; exit $?', SLEEP]  # as kfp does it: a shell, and Python below it


@pytest.fixture(scope="module")
def image(project: Path) -> str:
    return read_images(project / "infra/images.json").tasks


def _containers(engine: docker.DockerClient) -> list[str]:
    return [container.id for container in engine.containers.list(all=True)]


def test_every_failure_is_one(engine: docker.DockerClient, image: str, capsys: pytest.CaptureFixture[str]) -> None:
    with reliable_containers():
        for status in range(1, 21):
            command = ["sh", "-c", f"echo ending; exit {status}"]
            assert docker_task_handler.run_docker_container(engine, image, command, {}, network_mode="none") == status
    assert capsys.readouterr().out == "ending\n" * 20
    assert _containers(engine) == []


def test_kfps_own_function_is_put_back() -> None:
    theirs = docker_task_handler.run_docker_container
    with pytest.raises(ZeroDivisionError), reliable_containers():
        raise ZeroDivisionError
    assert docker_task_handler.run_docker_container is theirs


def test_every_letter_arrives_and_the_last_one_too(
    engine: docker.DockerClient, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program = "print('✓é\\n' * 20000, end='✓')"
    assert run_container(engine, image, ["python", "-c", program], {}, network_mode="none") == 0
    assert capsys.readouterr().out == "✓é\n" * 20000 + "✓"


def test_too_little_memory_is_named(
    engine: docker.DockerClient, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = {"mem_limit": "64m", "memswap_limit": "64m", "network_mode": "none"}
    assert run_container(engine, image, ["python", "-c", "b'x' * (1 << 30)"], {}, **limits) == 137
    assert "[container] BackendError: a task needed more memory than 64m" in capsys.readouterr().out


def test_an_engine_that_refuses_is_one_line(engine: docker.DockerClient, image: str) -> None:
    with pytest.raises(BackendError, match=r"Docker failed: .*no-such-program"):
        run_container(engine, image, ["no-such-program"], {}, network_mode="none")
    assert _containers(engine) == []


def test_an_image_that_cannot_be_had_is_one_line(engine: docker.DockerClient, tmp_path: Path) -> None:
    missing = "registry.invalid/dagnn@sha256:" + "0" * 64
    with pytest.raises(
        BackendError, match=r"image registry\.invalid/dagnn@.* is not on this machine and cannot be pulled"
    ):
        container_runner(images=Images(missing, missing), memory=None, root=tmp_path / "runs", writable=[])
    assert list(tmp_path.iterdir()) == []


def _start(engine: docker.DockerClient, image: str) -> tuple[subprocess.Popen[str], Any]:
    """A process that runs WAIT in a container, and the container's logs."""
    program = "import sys, docker; from pipeline.containers import reliable_containers, run_container\n"
    program += "with reliable_containers():\n"
    program += "    run_container(docker.from_env(), sys.argv[1], sys.argv[2:], {}, network_mode='none')"
    command = [sys.executable, "-c", program, image, *WAIT]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.stdout.close()
    (container,) = engine.containers.list()
    return process, container.logs(stream=True, follow=True)


def test_ctrl_c_lets_the_task_clean_up(engine: docker.DockerClient, image: str) -> None:
    process, logs = _start(engine, image)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) != 0
    assert _containers(engine) == []
    assert b"cleaned up" in b"".join(logs)


def test_no_container_outlives_a_process_that_is_ended(engine: docker.DockerClient, image: str) -> None:
    process, _ = _start(engine, image)
    process.terminate()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert _containers(engine) == []

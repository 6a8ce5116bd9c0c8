"""Run the pipeline's tasks in containers, with the limits that a cluster sets: kfp's Docker runner, made reliable.

kfp 2.17 lets the engine remove a container as soon as it ends, and takes one that is gone before its exit status was
asked for as a success: a failing task passed in 7 of 10 runs. `reliable_containers` puts `run_container`, which asks
first and removes then, in the place of kfp's function.
"""

import codecs
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from docker.types import Mount
from kfp import local
from kfp.local import docker_task_handler

from components.services.tracking.mlflow import DIRECT_TRANSFER
from dagnn_core.errors import BackendError, InputError
from dagnn_core.text import one_line
from pipeline.images import Images

# what a cluster would set in the pods: addresses and credentials of servers, never paths
_ENVIRONMENT = (
    *(f"AWS_{name}" for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "REGION", "DEFAULT_REGION")),
    *(f"AWS_{name}" for name in ("ENDPOINT_URL", "ENDPOINT_URL_S3")),
    *(f"AWS_{name}" for name in ("REQUEST_CHECKSUM_CALCULATION", "RESPONSE_CHECKSUM_VALIDATION")),
    *(f"MLFLOW_{name}" for name in ("TRACKING_URI", "TRACKING_USERNAME", "TRACKING_PASSWORD", "TRACKING_TOKEN")),
    *(f"MLFLOW_{name}" for name in ("EXPERIMENT_NAME", "RUN_ID", "S3_ENDPOINT_URL", "HTTP_REQUEST_TIMEOUT")),
    *DIRECT_TRANSFER,
    "DAGNN_DEBUG",
    "DAGNN_PIPELINE_RUN",
    "OMP_NUM_THREADS",
)
_SECONDS_TO_CLEAN_UP = 60


def container_runner(*, images: Images, memory: str | None, root: Path, writable: Sequence[Path]) -> local.DockerRunner:
    """Kfp's runner for containers without privileges, as on a cluster: no root, read-only, on the host's network.

    The tasks see the current folder, read-only, and write to `root` and the folders of `writable`.

    Args:
        images: must be on this machine, or in a registry that it reaches.
        memory: limit of each container, as `4g`.
        root: folder for the artifacts; kfp mounts it.
        writable: folders for what a restart needs, and for what is made once.

    Raises:
        BackendError: there is no engine, or an image cannot be had.
    """
    user = _prepare(images)
    for folder in (root, *writable):
        folder.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:  # the tasks do not run as root, even where root starts them
            os.chown(folder, *map(int, user.split(":")))
    here = str(Path.cwd())
    logging.getLogger("kfp.local.pip_install_manager").setLevel(logging.WARNING)  # nothing is installed
    return local.DockerRunner(
        user=user if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}",
        read_only=True,
        tmpfs={"/tmp": ""},  # noqa: S108  # the container's own
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        mem_limit=memory,
        memswap_limit=memory,  # of both together: no swap
        shm_size="2g",  # processes that decode images hand them over in shared memory
        network_mode="host",  # servers on this machine are reached by the same addresses
        mounts=[
            Mount(here, here, type="bind", read_only=True),
            *(Mount(str(folder.resolve()), str(folder.resolve()), type="bind") for folder in writable),
        ],
        working_dir=here,
        environment={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    )


@contextmanager
def reliable_containers() -> Iterator[None]:
    """Have kfp run its containers with `run_container`, and end them when this process is asked to end."""
    theirs = docker_task_handler.run_docker_container
    docker_task_handler.run_docker_container = run_container
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        docker_task_handler.run_docker_container = theirs
        signal.signal(signal.SIGTERM, before)


def _end(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


def run_container(
    client: docker.DockerClient,
    image: str,
    command: Sequence[str],
    volumes: Mapping[str, object],
    **settings: Any,  # kfp's signature: the runner's arguments
) -> int:
    """Run a command in a new container, print what it says, and return its exit status once it is known.

    After Ctrl-C the processes in the container are interrupted, and have a minute to clean up.

    Raises:
        BackendError: the engine refused or failed.
    """
    try:
        container = client.containers.create(image, command, volumes=volumes, **settings)
        try:
            container.start()
            status = _follow(container)
            container.reload()
            if container.attrs["State"]["OOMKilled"]:
                print(f"[container] BackendError: a task needed more memory than {settings.get('mem_limit')}")
            return status
        except KeyboardInterrupt:
            _interrupt(container)
            raise
        finally:
            container.remove(force=True)
    except DockerException as error:
        raise BackendError(f"Docker failed: {_reason(error)}") from error


def _follow(container: Any) -> int:
    """Print what a container says until it ends; return its exit status."""
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode  # a chunk may end inside a letter
    printed = 0
    for chunk in container.logs(stream=True, follow=True):
        print(decode(chunk), end="")
        printed += len(chunk)
    status = int(container.wait()["StatusCode"])
    print(decode(container.logs()[printed:], final=True), end="")  # the stream may end before the last line has come
    return status


def _interrupt(container: Any) -> None:
    """Send Ctrl-C to all processes of a container: its first one, a shell, would not hand it on."""
    with contextlib.suppress(DockerException):  # it has just ended
        container.exec_run(["sh", "-c", "kill -INT -1"])
        container.wait(timeout=_SECONDS_TO_CLEAN_UP)


def _prepare(images: Images) -> str:
    """Make sure of the images; return the user that they name, as `uid:gid`."""
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        raise BackendError(
            f"no Docker engine answers ({_reason(error)})", "start it, or correct DOCKER_HOST"
        ) from error
    with contextlib.closing(client):
        users = {_user(client, image) for image in images}
    return users.pop()


def _user(client: docker.DockerClient, image: str) -> str:
    try:
        try:
            found = client.images.get(image)
        except ImageNotFound:
            found = client.images.pull(image)
    except APIError as error:
        raise BackendError(f"image {image} is not on this machine and cannot be pulled: {_reason(error)}") from error
    user = str(found.attrs["Config"]["User"])
    if not user.replace(":", "").isdigit() or ":" not in user:
        raise InputError(f"image {image} names no user by numbers, got {user!r}, expected one that `make images` built")
    return user


def _reason(error: DockerException) -> str:
    return one_line(getattr(error, "explanation", None) or error)

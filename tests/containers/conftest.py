"""A container engine, the image of the commit that is checked out, and the servers that a pipeline needs.

Where no engine answers, root on Debian gets one of its own, in `build/engine`, so that a second run finds its layers.
Where no registry answers, the base image is made from Debian's packages.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import docker
import pytest
import requests
from docker.errors import DockerException
from ruamel.yaml import YAML

from pipeline.images import build_images

ROOT = Path(__file__).parents[2]
BASE_IMAGE = "python:3.11-slim-bookworm"
WHEELS_PORT = 18765  # the same in every build: the address is a part of the cached layer's key
TINY = {
    "dataset": {"min_label_count": 4},
    "model": {"embedding_dim": 16, "image_to_text_hidden": 16, "text_to_image_hidden": 16, "hops": 1},
    "train": {"epochs": 2, "lr": 0.001},
    "evaluate": {"num_queries": 2, "num_retrieved": 2},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.containers)
            # where no engine answers, docker's client leaves its socket open
            item.add_marker(pytest.mark.filterwarnings("ignore:.*<socket:pytest.PytestUnraisableExceptionWarning"))


@contextlib.contextmanager
def serving(command: list[str], url: str, **options: Any) -> Iterator[str]:
    """A server process, from the moment when it answers."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(requests.ConnectionError):
                requests.get(url, timeout=5)
                break
            assert process.poll() is None, f"{command[0]} has ended"
            assert time.monotonic() < deadline, f"{command[0]} does not answer at {url}"
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def free_port(wanted: int = 0) -> int:
    """A port that nobody listens on: the wanted one if possible."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else one just closed seems taken for a minute
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        if not _answers():
            if os.getuid() != 0 or not shutil.which("dockerd"):
                pytest.skip(
                    "no Docker engine answers, and none can be started: start one, or as root install docker.io"
                )
            folder = ROOT / "build/engine"
            folder.mkdir(parents=True, exist_ok=True)
            patch.setenv("DOCKER_HOST", f"unix://{folder}/docker.sock")
            # the engine's own client, of the same release: another one on PATH may lack BuildKit
            patch.setenv("PATH", f"{Path(shutil.which('dockerd') or '').parent}:{os.environ['PATH']}")
            stack.enter_context(_own_engine(folder))
        client = stack.enter_context(contextlib.closing(docker.from_env()))
        yield client


def _answers() -> bool:
    try:
        with contextlib.closing(docker.from_env()) as client:
            return bool(client.ping())
    except DockerException:
        return False


@contextlib.contextmanager
def _own_engine(folder: Path) -> Iterator[None]:
    command = ["dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
    command += ["--pidfile", f"{folder}/docker.pid", "--host", f"unix://{folder}/docker.sock"]
    command += ["--iptables=false", "--ip-forward=false", "--bridge=none"]  # the host's network alone
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not _answers():
            assert process.poll() is None, f"dockerd has ended; see {folder}/log"
            assert time.monotonic() < deadline, f"dockerd does not answer; see {folder}/log"
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="session")
def project(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to run a tiny pipeline in, with the image built and named in infra/images.json."""
    folder = tmp_path_factory.mktemp("containers") / "project"
    (folder / "infra").mkdir(parents=True)
    shutil.copytree(ROOT / "configs", folder / "configs")
    _write(folder / "params.yaml", ROOT / "params.yaml", TINY)
    scenes = folder / "configs/demo_scenes.yaml"
    _write(scenes, scenes, {"num_scenes": 150})
    build(engine, "cpu", folder / "infra/images.json")
    return folder


def build(engine: docker.DockerClient, target: str, out: Path) -> str:
    """Build an image of the commit that is checked out; return its id."""
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.chdir(ROOT)
        options = ["--network", "host", "--build-arg", f"BASE_IMAGE={_base_image(engine)}", *_wheels(stack)]
        return build_images(targets=[target], registry=None, options=options, out=out)[target]


def _base_image(engine: docker.DockerClient) -> str:
    own = f"localhost/{BASE_IMAGE}"
    if any(own in image.tags for image in engine.images.list()):
        return own
    try:
        engine.images.pull(BASE_IMAGE)
    except DockerException:
        if os.getuid() != 0 or not shutil.which("debootstrap"):
            pytest.skip("no registry answers, and debootstrap, as root, is not there to make a base image")
        subprocess.run([ROOT / "infra/docker/base-image.sh", own], check=True)
        return own
    return BASE_IMAGE


def _wheels(stack: contextlib.ExitStack) -> list[str]:
    """Options of the build that show it the folder of wheels that this machine's pip is set to, if any."""
    folder = os.environ.get("PIP_FIND_LINKS", "")
    if not Path(folder).is_dir() or not folder:
        return []
    port = free_port(WHEELS_PORT)
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", folder]
    url = stack.enter_context(serving(command, f"http://127.0.0.1:{port}/"))
    settings = {"PIP_FIND_LINKS": url, "PIP_TRUSTED_HOST": "127.0.0.1", "PIP_EXTRA_INDEX_URL": ""}
    return [argument for name, value in settings.items() for argument in ("--build-arg", f"{name}={value}")]


def _write(out: Path, source: Path, changes: dict[str, Any]) -> None:
    yaml = YAML()
    values = yaml.load(source)
    for key, value in changes.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    yaml.dump(values, out)


@pytest.fixture(scope="session")
def bucket(engine: docker.DockerClient) -> Iterator[Any]:
    """A bucket on an S3 server."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with serving([str(Path(sys.executable).with_name("moto_server")), "--port", str(port)], url):
        s3 = boto3.resource(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )
        yield s3.create_bucket(Bucket="mlflow")


@pytest.fixture(scope="session")
def tracking_uri(bucket: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An MLflow server that keeps files in the bucket."""
    port = free_port()
    folder = tmp_path_factory.mktemp("mlflow")
    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    environment = os.environ | credentials | {"MLFLOW_S3_ENDPOINT_URL": bucket.meta.client.meta.endpoint_url}
    command = [str(Path(sys.executable).with_name("mlflow")), "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", "s3://mlflow"]
    command += ["--workers", "1"]
    with serving(command, f"http://127.0.0.1:{port}", env=environment, cwd=folder) as url:
        yield url

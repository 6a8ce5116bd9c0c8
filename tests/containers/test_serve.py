"""The image of the search service: without privileges it answers searches, and has nothing of training."""

import contextlib
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from ruamel.yaml import YAML

from tests.containers.conftest import build
from tests.fixtures.collection import Collection, collection

__all__ = ["collection"]

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return engine.images.get(build(engine, "serve", tmp_path_factory.mktemp("images") / "images.json"))


@pytest.fixture(scope="module")
def url(engine: docker.DockerClient, image: Any, collection: Collection, tmp_path_factory: Any) -> Iterator[str]:
    """The service, as the manifest starts it, with a model and an index from folders."""
    manifest = YAML(typ="safe").load(ROOT / "infra/kubernetes/search/search.yaml")
    (container,) = manifest["spec"]["predictor"]["containers"]
    folder = tmp_path_factory.mktemp("mounted")
    shutil.copytree(collection.best, folder / "model")
    shutil.copytree(collection.index, folder / "indexes/demo")
    (folder / "token").write_text(TOKEN)
    for path in folder.rglob("*"):  # the image's user is not the one who made them
        path.chmod(0o755 if path.is_dir() else 0o644)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    changes = {"$(MODEL)": "/model", "$(INDEXES)": "/indexes", "0.0.0.0": "127.0.0.1", "8080": str(port)}
    command = container["command"]
    for old, new in changes.items():
        assert any(old in word for word in command)
        command = [word.replace(old, new) for word in command]
    mounts = {"model": "/model", "indexes": "/indexes", "token": "/run/secrets/search/token"}
    server = engine.containers.run(
        image,
        command,
        volumes={str(folder / name): {"bind": place, "mode": "ro"} for name, place in mounts.items()},
        network_mode="host",
        read_only=True,
        tmpfs={"/tmp": ""},  # the container's own
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        mem_limit="2g",
        detach=True,
    )
    try:
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while True:
            with contextlib.suppress(requests.ConnectionError, requests.Timeout):
                if requests.get(f"{address}{container['readinessProbe']['httpGet']['path']}", timeout=5).ok:
                    break
            server.reload()
            assert server.status == "running" and time.monotonic() < deadline, server.logs().decode()
            time.sleep(0.2)
        yield address
    finally:
        server.remove(force=True)


def test_its_size_is_mostly_that_of_torch(image: Any) -> None:
    assert image.attrs["Size"] <= 1.7e9


def test_it_has_nothing_of_training_and_no_root(engine: docker.DockerClient, image: Any) -> None:
    names = ("kfp", "dvc", "sklearn", "sqlalchemy", "flask")
    script = f"import importlib.util as u, os; print(os.getuid(), *(name for name in {names} if u.find_spec(name)))"
    found = engine.containers.run(image, ["python", "-c", script], network_mode="none", remove=True)
    assert found.split() == [b"10001"]


def test_it_answers_those_who_have_the_token(url: str) -> None:
    query = {"text": "mountains with snow, at night", "k": 3}
    assert requests.post(f"{url}/search", json=query, timeout=20).status_code == 401
    answer = requests.post(f"{url}/search", json=query, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20).json()
    assert len(answer["hits"]) == 3 and answer["target"] == "image"


def test_it_shows_the_page_and_the_reference(url: str) -> None:
    for path in ("/", "/assets/search.js", "/docs", "/docs/assets/swagger-ui-bundle.js", "/healthz"):
        assert requests.get(f"{url}{path}", timeout=20).ok, path

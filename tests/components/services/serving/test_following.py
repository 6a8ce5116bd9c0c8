"""The service follows the registry and its indices, under load and through failures."""

import itertools
import json
import shutil
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

from components.services.lineage.tree import Reference
from components.services.serving.following import Follower, ModelFolder, ModelVersion
from components.services.serving.indices import IndexAt, IndexBucket, IndexFolder
from components.services.serving.limits import Limits
from components.services.serving.metrics import Metrics
from components.services.serving.service import SearchService
from components.services.storage.s3 import Storage
from components.services.tracking.mlflow import Tracking
from dagnn_core.artifacts import read_artifact
from dagnn_core.errors import BackendError, InputError
from dagnn_core.search.build import remove_from_index

NAME = "followed"
NUM_CLIENTS = 4
NUM_MOVES = 10


@pytest.fixture
def registry(scenes, tmp_path):
    """A registry of its own, in which `followed` has the versions 1 (good, the champion) and 2 (weak)."""
    database = tmp_path / "mlflow.db"
    shutil.copy(scenes.tracking.uri.removeprefix("sqlite:///"), database)
    own = scenes._replace(tracking=Tracking(uri=f"sqlite:///{database}"))
    numbers = [own.register(NAME, model) for model in ("good", "weak")]
    assert numbers == ["1", "2"]
    promote(own.tracking, "1")
    return own.tracking


def promote(tracking, number):
    tracking.client.set_registered_model_alias(NAME, "champion", number)


@pytest.fixture
def follow(registry, tmp_path):
    """A service, and what follows the champion for it, in a folder of indices or what else is given."""

    def make(indices, service=None):
        service = service or SearchService(Limits(), Metrics())
        models = ModelVersion(Reference(NAME), registry, tmp_path / "models")
        return service, Follower(service, models, indices, has_registry=True)

    return make


def said(service):
    return json.loads(service.ready()[1])


def text_of(service, name):
    return next(line for line in service.metrics.text().decode().splitlines() if line.startswith(name))


@pytest.mark.slow
def test_no_request_fails_while_the_alias_moves(registry, indices, follow, serving, tmp_path):
    for name in ("good", "weak"):
        shutil.copytree(indices / name, tmp_path / "here" / name)
    artifacts = [read_artifact(indices / name, "index") for name in ("good", "weak")]
    stop = threading.Event()

    def start(service):
        _, follower = follow(IndexFolder(tmp_path / "here"), service)
        follower.start()
        threading.Thread(target=follower.follow, args=(stop, 0.05), daemon=True).start()

    answers: list[list[tuple[int, str, str, str]]] = [[] for _ in range(NUM_CLIENTS)]

    def ask(port, into):
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        for text in itertools.cycle(["a boat on the water", "a tree", "snow on the mountains"]):
            if stop.is_set():
                connection.close()
                return
            body = json.dumps({"text": text, "k": 3})
            connection.request("POST", "/search", body, {"content-type": "application/json"})
            reply = connection.getresponse()
            answer = json.loads(reply.read())
            model = answer.get("model", {})
            into.append((reply.status, model.get("version"), model.get("digest"), answer.get("index")))

    with serving(start=start) as server:
        wait_for(lambda: server.ask("/readyz").status == 200)
        clients = [threading.Thread(target=ask, args=(server.port, into)) for into in answers]
        for client in clients:
            client.start()
        for number in itertools.islice(itertools.cycle("21"), NUM_MOVES):
            promote(registry, number)
            wait_for(lambda number=number: server.ask("/readyz").json["model"]["version"] == number)
        stop.set()
        for client in clients:
            client.join()
        assert "dagnn_swaps_total 10.0" in server.ask("/metrics").body.decode()
    given = [answer for into in answers for answer in into]
    assert len(given) > 10 * NUM_MOVES and {status for status, *_ in given} == {200}
    assert {version for _, version, *_ in given} == {"1", "2"}
    assert {(model, index) for *_, model, index in given} == {
        (index.content["model"]["digest"], index.content_digest) for index in artifacts
    }


def wait_for(is_true):
    deadline = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_without_an_index_of_the_new_champion_the_old_pair_serves_on(registry, indices, follow, tmp_path, caplog):
    here = tmp_path / "indices"
    shutil.copytree(indices / "good", here / "2026-01")
    service, follower = follow(IndexFolder(here))
    follower.start()
    promote(registry, "2")
    for _ in range(3):
        follower.look()
    state = said(service)
    assert state["model"]["version"] == "1" and "has no index of the model" in state["fault"]
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
    assert text_of(service, "dagnn_swap_failures_total").endswith(" 1.0")
    shutil.copytree(indices / "weak", here / "2026-02")
    follower.look()
    state = said(service)
    assert state["model"]["version"] == "2" and state["fault"] is None and state["loading"] is None
    assert text_of(service, "dagnn_swaps_total").endswith(" 1.0")


def test_a_changed_index_is_taken_again_and_a_damaged_one_is_not(scenes, indices, tmp_path, monkeypatch):
    here = tmp_path / "index"
    shutil.copytree(indices / "good", here)
    service = SearchService(Limits(), Metrics())
    follower = Follower(service, ModelFolder(scenes.models["good"]), IndexAt(here), has_registry=False)
    follower.start()
    before = service.served
    first = before.index.ids[0]
    follower.look()
    assert service.served is before
    remove_from_index(here, [first])
    assert before.index.thumbnail(0) and before.index.search([before.index.item_query(first)], 1)[0][0].id == first
    follower.look()
    assert first not in service.served.index.ids and service.served.model == before.model
    changed = service.served
    remove_from_index(here, [changed.index.ids[0]])
    vectors = bytearray((here / "image.npy").read_bytes())
    vectors[-1] ^= 1
    (here / "image.npy").write_bytes(vectors)
    follower.look()
    assert service.served is changed and "does not have the checksum" in said(service)["fault"]
    monkeypatch.setattr("components.services.serving.following.SearchIndex.read", lambda *_, **__: 1 / 0)
    follower.look()  # the same again, which is not read again for a while
    assert "does not have the checksum" in said(service)["fault"]


def test_an_index_of_another_model_is_refused(scenes, indices):
    service = SearchService(Limits(), Metrics())
    with pytest.raises(InputError, match="was built with the model"):
        Follower(service, ModelFolder(scenes.models["good"]), IndexAt(indices / "weak"), has_registry=False).start()


def test_a_registry_that_fails_is_told_and_waited_for(registry, indices, follow):
    database = Path(registry.uri.removeprefix("sqlite:///"))
    service, follower = follow(IndexFolder(indices))
    follower.start()
    assert said(service)["registry"] == {"reachable": True, "since": None}
    with database.open("r+b") as file:
        head = file.read(100)
        file.seek(0)
        file.write(b"\0" * 100)
    for _ in range(2):
        follower.look()
    state = said(service)
    assert state["ready"] and state["registry"]["reachable"] is False and state["registry"]["since"].startswith("20")
    assert text_of(service, "dagnn_registry_reachable").endswith(" 0.0")
    with database.open("r+b") as file:
        file.write(head)
    follower.look()
    assert said(service)["registry"]["reachable"] is True
    assert text_of(service, "dagnn_registry_reachable").endswith(" 1.0")


def test_a_missing_alias_or_server_is_one_line(registry, indices, tmp_path):
    service = SearchService(Limits(), Metrics())
    nobody = ModelVersion(Reference(NAME, "nobody"), registry, tmp_path)
    with pytest.raises(InputError, match="has no followed@nobody"):
        Follower(service, nobody, IndexFolder(indices), has_registry=True).start()


def test_indices_come_from_s3_whole(registry, indices, follow, bucket, tmp_path):
    store = Storage(endpoint_url=bucket.endpoint)
    for name in ("good", "weak"):
        for path in (indices / name).iterdir():
            bucket.put(f"all/{name}/{path.name}", path.read_bytes())
    bucket.put("all/manifest.json", b"{}")
    bucket.put("all/other/manifest.json", b"{}")
    cache = tmp_path / "cache"
    service, follower = follow(IndexBucket(f"{bucket.uri}/all/", store, cache))
    follower.start()
    promote(registry, "2")
    follower.look()
    assert said(service)["model"]["version"] == "2" and said(service)["fault"] is None
    assert {path.name for path in cache.iterdir()} == {
        read_artifact(indices / name, "index").content_digest for name in ("good", "weak")
    }
    bucket.put("all/good/image.npy", b"x")
    promote(registry, "1")  # what is here is not fetched again
    follower.look()
    assert said(service)["model"]["version"] == "1"
    shutil.rmtree(cache)
    promote(registry, "2")
    follower.look()
    promote(registry, "1")
    follower.look()
    assert said(service)["model"]["version"] == "2" and "image.npy" in said(service)["fault"]
    with pytest.raises(BackendError):
        other = Storage(endpoint_url="http://127.0.0.1:9", attempts=1, connect_timeout=1)
        IndexBucket(f"{bucket.uri}/all", other, cache).find("0" * 64)

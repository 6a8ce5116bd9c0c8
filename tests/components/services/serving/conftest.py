import http.client
import io
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from components.services.serving.app import create_app
from components.services.serving.limits import Limits
from components.services.serving.metrics import Metrics
from components.services.serving.query_log import QueryLog
from components.services.serving.server import open_socket, run_server
from components.services.serving.service import SearchService, Served
from dagnn_core.data.dataset import Dataset
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.search.build import Options, build_index
from dagnn_core.search.index import SearchIndex
from dagnn_core.search.sources import DatasetSource, open_source
from tests.components.conftest import Scenes

ODD_IDS = ("a/../b", "/50% off?#1", "Łódź <b>&", "..")
"""The first three have images."""


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _EndError(Exception):
    pass


class Server(NamedTuple):
    """A real server on a port of its own."""

    service: SearchService
    port: int

    def ask(self, path: str, body: bytes | dict[str, Any] | None = None, **headers: str) -> Reply:
        """Send one request; a mapping is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            if isinstance(body, dict):
                body, headers = json.dumps(body).encode(), {"content-type": "application/json"} | headers
            headers = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET" if body is None else "POST", path, body, headers)
            answer = connection.getresponse()
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()


@contextmanager
def _serving(
    served: Served | None = None,
    *,
    tokens: tuple[str, ...] = (),
    query_log: Path | None = None,
    threads: int = 2,
    start: Callable[[SearchService], object] = lambda service: None,
    **limits: Any,
) -> Iterator[Server]:
    metrics, done = Metrics(), threading.Event()
    bounds = Limits(**({"rate": 0} | limits))
    service = SearchService(bounds, metrics, QueryLog(query_log, metrics) if query_log else None)
    if served is not None:
        service.serve(served)
    listener = open_socket("127.0.0.1", 0)
    port = listener.getsockname()[1]

    def begin() -> None:
        start(service)
        done.wait()
        raise _EndError

    def run() -> None:
        with ThreadPoolExecutor(threads) as pool, suppress(_EndError):
            run_server(create_app(service, pool, tokens=tokens), listener, bounds, begin)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield Server(service, port)
    finally:
        done.set()
        thread.join(timeout=30)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[Server]]:
    """Run a real server in a thread, without a limit of the rate unless one is given."""
    return _serving


@pytest.fixture(scope="session")
def indices(scenes: Scenes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of each model, `good`, `weak` and `vectors`, and `odd`, of a table, by `good`."""
    root = tmp_path_factory.mktemp("indices")
    (root / "source").mkdir()
    rows = []
    for number, item_id in enumerate(ODD_IDS):
        Image.new("RGB", (40, 30), (60 * number, 90, 120)).save(root / "source" / f"{number}.png")
        row = {"id": item_id, "text": "a boat on the water", "labels": ["boat"], "year": str(2000 + number)}
        rows.append(row | {"image": f"{number}.png" if number < 3 else ""})
    (root / "source" / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = {
        "good": DatasetSource(Dataset.read(scenes.datasets["scenes"]), ["test"]),
        "weak": DatasetSource(Dataset.read(scenes.datasets["scenes"]), ["test"]),
        "vectors": DatasetSource(Dataset.read(scenes.datasets["vectors"])),
        "odd": open_source(root / "source" / "table.jsonl"),
    }
    for name, source in sources.items():
        model = TrainedModel.read(scenes.models["good" if name == "odd" else name])
        build_index(root / "made" / name, model, source, work=root / "work", options=Options(), provenance={})
    return root / "made"


@pytest.fixture(scope="session")
def served(scenes: Scenes, indices: Path) -> Callable[[str], Served]:
    """Open one of `indices` with its model."""

    def open_served(name: str) -> Served:
        model = TrainedModel.read(scenes.models["good" if name == "odd" else name])
        return Served(SearchIndex.read(indices / name, model), name, "1")

    return open_served


@pytest.fixture(scope="session")
def png() -> Callable[..., bytes]:
    """An encoded image of one colour."""

    def encode(width: int = 40, height: int = 30, colour: str = "navy") -> bytes:
        stream = io.BytesIO()
        Image.new("RGB", (width, height), colour).save(stream, format="PNG")
        return stream.getvalue()

    return encode

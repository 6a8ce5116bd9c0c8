"""The registry behind a real MLflow server: many promotions at once on Postgres, and a fault at every single call."""

import contextlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, product
from pathlib import Path
from typing import NamedTuple

import pytest

from components.services.promotion.gate import GateResult
from components.services.promotion.ledger import Action, Ledger, Record
from components.services.promotion.promotion import promote, read_history, rollback
from components.services.registry.stored_model import find_fault
from components.services.registry.versions import CHALLENGER, CHAMPION
from components.services.tracking.mlflow import Tracking
from components.steps.register import run as register
from dagnn_core.config.register import RegisterConfig
from dagnn_core.errors import BackendError
from tests.fixtures.mlflow_server import mlflow_server

pytestmark = pytest.mark.slow
PROCESSES = 16
TIMEOUT = 2  # seconds that a client with quick retries waits for an answer


@pytest.fixture(scope="module")
def postgres_server(postgres, tmp_path_factory):
    with mlflow_server(postgres, tmp_path_factory.mktemp("files")) as uri:
        yield uri


@pytest.fixture(scope="module")
def database(empty_database, tmp_path_factory):
    """The tables of `sqlite_server`, for what a test prepares and checks: without the server, that is quick."""
    file = tmp_path_factory.mktemp("server") / "mlflow.db"
    shutil.copy(empty_database, file)
    return Tracking(uri=f"sqlite:///{file}")


@pytest.fixture(scope="module")
def sqlite_server(database):
    with mlflow_server(database.uri, Path(database.uri.removeprefix("sqlite:///")).parent) as uri:
        yield uri


RACE = """
import json, multiprocessing, sys
from components.services.promotion.gate import Check, GateResult
from components.services.promotion.ledger import Action, Ledger, Record
from components.services.promotion.promotion import promote
from components.services.tracking.mlflow import Tracking
import mlflow

def examine(challenger, champion):
    new, old = float(challenger.tags["map_mean"]), float(champion.tags["map_mean"]) if champion else 0.0
    verdict = "passed" if new >= old else "failed"
    return GateResult((Check("map_mean", verdict, new, old, "of the tags"),), {})

uri, name, how, processes = sys.argv[1:3] + [sys.argv[3], int(sys.argv[4])]

def compete(version, barrier, results):
    tracking = Tracking(uri=uri)
    client = tracking.client
    # all have seen that there is no champion
    record = Record(action=Action.PROMOTED, source=None, target=str(version), who=f"process {version}", why="race")
    ledger = Ledger(client=client, model=name, alias="champion", fault=lambda version: None)
    ledger.read()
    barrier.wait()
    try:
        if how == "ledger":
            refusal = ledger.move(record)
        else:
            decision = promote(tracking, name=name, version=str(version), examine=examine).decision
            refusal = None if decision.accepted else decision.reason
    except Exception as error:
        refusal = f"FAILED {error!r}"
    results.put((version, refusal))

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(processes), context.Queue()
    racers = [context.Process(target=compete, args=(v, barrier, results)) for v in range(1, processes + 1)]
    for racer in racers:
        racer.start()
    print(json.dumps([results.get() for _ in racers]))
    for racer in racers:
        racer.join()
"""


def race(uri, name, how):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RACE, uri, name, how, str(PROCESSES)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {str(version): refusal for version, refusal in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize("where", ["server on Postgres", "Postgres", "SQLite"])
def test_of_sixteen_moves_at_once_one_counts(request, tracking, where):
    if where != "SQLite":
        server = request.getfixturevalue("postgres_server")  # which makes the tables, too
        tracking = Tracking(uri=request.getfixturevalue("postgres") if where == "Postgres" else server)
    name = f"forced-{where.replace(' ', '-')}"
    tracking.client.create_registered_model(name)
    for _ in range(PROCESSES):
        tracking.client.create_model_version(name, source="s3://bucket/model")
    refusals = race(tracking.uri, name, "ledger")

    [winner] = [version for version, refusal in refusals.items() if refusal is None]
    history = read_history(tracking, name=name)
    assert (history.champion, history.remarks) == (winner, ())
    assert len(history.events) == PROCESSES
    assert [event.what for event in history.events] == ["promoted"] + ["refused"] * (PROCESSES - 1)
    assert {event.target for event in history.events} == set(refusals)
    line = (
        rf"another move came first \(entry 1, promoted by process {winner}, .*\): the champion is version {winner}; run"
    )
    assert all(re.match(line, refusal) for refusal in refusals.values() if refusal is not None)


@pytest.mark.parametrize("where", ["server on Postgres", "SQLite"])
def test_sixteen_promotions_at_once_are_a_chain(request, tracking, store_version, where):
    if where != "SQLite":
        tracking = Tracking(uri=request.getfixturevalue("postgres_server"))
    for number in range(PROCESSES):
        store_version(tracking, "chain", map_mean=str(0.5 + 0.01 * (number * 7 % PROCESSES)))
    refusals = race(tracking.uri, "chain", "promote")

    history = read_history(tracking, name="chain")
    assert history.remarks == ()
    assert [event.entry for event in history.events] == list(range(1, PROCESSES + 1))
    assert {event.target for event in history.events} == set(refusals)
    promoted = [event for event in history.events if event.what == "promoted"]
    assert [event.source for event in promoted] == [None, *(event.target for event in promoted)][:-1]
    assert history.champion == promoted[-1].target
    assert {event.target for event in promoted} == {version for version, refusal in refusals.items() if refusal is None}
    for refusal in filter(None, refusals.values()):
        assert re.match(
            r"another move came first \(entry \d|1 of 1 checks failed: map_mean: 0.\d+ against 0.\d+", refusal
        )


class ServerFault(NamedTuple):
    """What happens to one request: `500`, `403`, or it is carried out, but its answer is `lost`, or too `slow`."""

    kind: str
    at: int


FILES = "/mlflow-artifacts/artifacts/"
NO_FAULT = ServerFault("", 0)


class Proxy:
    """Stands between client and server, counts requests, and fails at one of them."""

    def __init__(self, upstream: str) -> None:
        self.calls: list[str] = []
        self.fault = NO_FAULT
        proxy, host = self, upstream.removeprefix("http://")

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments) -> None: ...

            def forward(self) -> None:
                proxy.calls.append(f"{self.command} {self.path.partition('?')[0]}")
                fault = proxy.fault
                hit = len(proxy.calls) == fault.at
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.close_connection = True
                if hit and fault.kind in ("500", "403"):
                    return self.answer(int(fault.kind), "text/plain", b"a fault of the test")
                upstream = HTTPConnection(host, timeout=60)
                upstream.request(self.command, self.path, body, dict(self.headers) | {"Host": host})
                answer = upstream.getresponse()
                content = answer.read()
                upstream.close()
                if hit and fault.kind == "slow":
                    time.sleep(2 * TIMEOUT)
                if not (hit and fault.kind == "lost"):  # else the server has done it, and the client does not know
                    with contextlib.suppress(ConnectionError):  # the client has gone
                        self.answer(answer.status, answer.getheader("Content-Type", "text/plain"), content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward

            def answer(self, status: int, content_type: str, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def set(self, fault: ServerFault) -> None:
        self.calls.clear()
        self.fault = fault


@pytest.fixture(scope="module")
def proxy(sqlite_server) -> Iterator[Proxy]:
    proxy = Proxy(sqlite_server)
    yield proxy
    proxy.server.shutdown()
    proxy.server.server_close()


@pytest.fixture
def no_retries(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


@pytest.fixture
def quick_retries(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(TIMEOUT))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")


def aliases(tracking: Tracking, name: str) -> dict[str, str]:
    [registered] = tracking.client.search_registered_models(filter_string=f"name = '{name}'")
    return {alias: str(version) for alias, version in registered.aliases.items()}


def try_with_fault(proxy: Proxy, fault: ServerFault, command) -> BackendError | None:
    """Run a command through the proxy; return the one clear line that it ended with, if it did."""
    proxy.set(fault)
    try:
        command(Tracking(uri=proxy.uri))
    except BackendError as error:
        does = {"403": "does not permit this: ", "slow": "moved no byte for "}.get(fault.kind, "cannot be used: ")
        assert str(error).startswith(f"MLflow at {proxy.uri} {does}")
        assert "\n" not in str(error)
        return error
    finally:
        proxy.fault = NO_FAULT
    return None


@pytest.fixture(scope="module")
def make_model(database, sqlite_server, tmp_path_factory):
    """Make a registered model with three whole versions that share their files; two were made champion."""
    load("conftest.py")._store_version(
        Tracking(uri=sqlite_server), tmp_path_factory.mktemp("stored") / "model", "template", {}, {}
    )
    client, template = database.client, database.client.get_model_version("template", "1")

    def make(name: str) -> None:
        client.create_registered_model(name)
        for map_mean in ("0.5", "0.6", "0.7"):
            tags = template.tags | {"map_mean": map_mean}
            client.create_model_version(name, source=template.source, run_id=template.run_id, tags=tags)
        client.set_registered_model_alias(name, CHALLENGER, "3")
        ledger = Ledger(client=client, model=name, alias=CHAMPION, fault=lambda version: None)
        for source, target in ((None, "1"), ("1", "2")):
            record = Record(action=Action.PROMOTED, source=source, target=target, who="ann", why="")
            assert ledger.move(record) is None

    return make


def pass_all(challenger, champion) -> GateResult:
    return GateResult((), {})


COMMANDS = {
    "promote": (lambda name: partial(promote, name=name, version=None, examine=pass_all), [("promoted", "2", "3")]),
    "rollback": (lambda name: partial(rollback, name=name, to=None), [("rolled back", "2", "1")]),
    "history": (lambda name: partial(read_history, name=name), []),
}


@pytest.fixture
def survive(proxy, database, make_model):
    """Fail at the first call of a command, at the second ...; return how many calls there are."""

    def at_any_call(*, what: str, kind: str, retried: bool) -> int:
        command_for, done = COMMANDS[what]
        before = [("promoted", None, "1"), ("promoted", "1", "2")]
        for at in count(1):
            name = f"{what}-{kind}-{at}-{retried}"
            make_model(name)
            command = command_for(name)
            error, calls = try_with_fault(proxy, ServerFault(kind, at), command), len(proxy.calls)
            assert aliases(database, name)[CHAMPION] in ("2", *(target for _, _, target in done))
            if error:
                is_of_a_file = FILES in proxy.calls[at - 1]
                assert not retried or (kind == "slow" and is_of_a_file), "only silent transfers of files are final"
                command(Tracking(uri=proxy.uri))
            assert events(database, name) == before + done
            assert aliases(database, name) == {CHALLENGER: "3", CHAMPION: (before + done)[-1][2]}
            if at > calls:
                return at - 1
        raise AssertionError("unreachable")

    return at_any_call


def events(tracking: Tracking, name: str) -> list[tuple[str, str | None, str | None]]:
    return [(event.what, event.source, event.target) for event in read_history(tracking, name=name).events]


@pytest.mark.parametrize("kind", ["500", "403", "lost"])
@pytest.mark.parametrize("what", COMMANDS)
@pytest.mark.usefixtures("no_retries")
def test_after_a_fault_at_any_call_a_second_try_completes(survive, what, kind):
    assert survive(what=what, kind=kind, retried=False) > 3


@pytest.mark.parametrize(("what", "kind"), [*product(["promote", "rollback"], ["500", "lost"]), ("promote", "slow")])
@pytest.mark.usefixtures("quick_retries")
def test_one_fault_at_any_call_is_retried(survive, what, kind):
    assert survive(what=what, kind=kind, retried=True) > 10


@pytest.mark.usefixtures("no_retries")
@pytest.mark.parametrize("kind", ["500", "lost"])
def test_registering_again_completes_after_a_fault_at_any_kind_of_call(proxy, sqlite_server, tmp_path, kind):
    real = load("steps/test_register.py")
    model = real.make_model(tmp_path / "model", real.RAW)
    report = real.make_report(tmp_path / "report", model)

    def registered_as(name: str):
        params = RegisterConfig(model_name=name)
        return lambda tracking: register(
            model=model, report=report, params=params, tracking=replace(tracking, experiment=name)
        )

    assert try_with_fault(proxy, NO_FAULT, registered_as(f"register-{kind}")) is None
    kinds = [re.sub(r"/[^/]*\d[^/]*|/code/.*", "/*", call) for call in proxy.calls]
    once_each = sorted({kinds.index(call) for call in kinds} | {len(kinds) - 1 - kinds[::-1].index(c) for c in kinds})
    assert len(once_each) > 15
    server = Tracking(uri=sqlite_server)
    for at in once_each:
        name = f"register-{kind}-{at}"
        error = try_with_fault(proxy, ServerFault(kind, at + 1), registered_as(name))
        check_versions_are_whole(server, name)
        if error:
            registered_as(name)(server)
        assert aliases(server, name) == {CHALLENGER: "1"}
        assert len(server.client.search_model_versions(f"name = '{name}'")) == 1
        check_versions_are_whole(server, name)


def check_versions_are_whole(tracking: Tracking, name: str) -> None:
    for version in tracking.client.search_model_versions(f"name = '{name}'"):
        assert find_fault(tracking, version) is None


def test_two_registrations_of_one_model_at_once_make_one_version(sqlite_server, tmp_path):
    real = load("steps/test_register.py")
    model = real.make_model(tmp_path / "model", real.RAW)
    report = real.make_report(tmp_path / "report", model)
    code = (
        "import sys; from pathlib import Path\n"
        "from components.services.tracking.mlflow import Tracking; from components.steps.register import run\n"
        "from dagnn_core.config.register import RegisterConfig\n"
        "from components.services.registry import versions\n"
        "find = versions.find_whole\n"
        "def find_and_wait(*arguments):\n"
        "    found = find(*arguments)\n"
        "    versions.find_whole = find\n"
        "    print('looked', flush=True); sys.stdin.readline()\n"
        "    return found\n"
        "versions.find_whole = find_and_wait\n"
        "model, report, uri = sys.argv[1:]\n"
        "config = RegisterConfig(model_name='at_once', data_licence='none')\n"
        "print(run(model=Path(model), report=Path(report), params=config, tracking=Tracking(uri=uri)).version)\n"
    )
    command = [sys.executable, "-c", code, str(model), str(report), sqlite_server]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as first, subprocess.Popen(command, **pipes) as second:
        both = (first, second)
        assert [process.stdout.readline() for process in both] == ["looked\n"] * 2  # neither has seen a version
        for process in both:
            process.stdin.write("\n")
            process.stdin.flush()
        assert [process.communicate()[0] for process in both] == ["1\n", "1\n"]
    assert [process.returncode for process in both] == [0, 0]
    server = Tracking(uri=sqlite_server)
    [version] = server.client.search_model_versions("name = 'at_once'")
    assert str(version.version) == "1" and find_fault(server, version) is None
    assert str(server.client.get_model_version_by_alias("at_once", CHALLENGER).version) == "1"


def load(module: str):
    spec = importlib.util.spec_from_file_location(Path(module).stem, Path(__file__).parents[2] / module)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded

"""Steps wait for S3, MLflow and the webhook: servers that go away in the middle, answer late, or do not come back."""

import hashlib
import json
import logging
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from components.services.notification import Webhook as Address
from components.services.promotion.promotion import read_history
from components.services.storage import patience as module
from components.services.storage.patience import ENVIRONMENT, Patience, passing_failure, patience_of_environment
from components.services.storage.s3 import PART, Storage
from components.services.tracking.mlflow import Tracking
from components.steps import evaluate, fetch_dataset, promote, record_outcome, register, train
from dagnn_core.config.evaluate import EvaluateConfig
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.register import RegisterConfig
from dagnn_core.config.train import TrainConfig
from dagnn_core.errors import BackendError, InputError
from tests.components.fault_proxy import Away, Fault, FaultProxy, Request
from tests.fixtures import forked
from tests.fixtures.mlflow_server import mlflow_server
from tests.fixtures.s3 import Bucket
from tests.fixtures.webhook import SECRET_PATH, Webhook

LINE = re.compile(
    r"(?P<backend>.+) is not available \((?P<failure>.+)\); "
    r"trying again for another (?P<left>.+), until \d\d:\d\d:\d\d"
)
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def short_pauses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "long_outage" not in request.keywords:
        monkeypatch.setattr(module, "FIRST_PAUSE", 0.05)
        monkeypatch.setattr(module, "LONGEST_PAUSE", 0.4)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == module.__name__]


def failing(times: int) -> Callable[[], str]:
    """A call that is refused some times before it succeeds."""
    attempts = iter(range(times))

    def attempt() -> str:
        if next(attempts, None) is not None:
            raise ConnectionRefusedError(111, "Connection refused")
        return "done"

    return attempt


class TestPolicy:
    def test_one_line_for_each_failed_attempt(self, caplog: pytest.LogCaptureFixture) -> None:
        assert Patience("MLflow at http://m", 90).call(failing(3), passing_failure) == "done"
        matches = [LINE.fullmatch(line) for line in lines(caplog)]
        assert [match and match["backend"] for match in matches] == ["MLflow at http://m"] * 3
        assert [match and match["failure"] for match in matches] == ["Connection refused"] * 3
        assert matches[0] and matches[0]["left"] == "1 min 30 s"

    def test_after_the_end_a_failure_is_final_until_there_is_an_answer(self, caplog: pytest.LogCaptureFixture) -> None:
        patience = Patience("S3", 0.3)
        with pytest.raises(ConnectionRefusedError):
            patience.call(failing(1000), passing_failure)
        assert lines(caplog)[-1] == "S3 is still not available (Connection refused) after 1 s; giving up"
        caplog.clear()
        with pytest.raises(ConnectionRefusedError):
            patience.call(failing(1), passing_failure)
        assert lines(caplog) == []
        patience.call(failing(0), passing_failure)
        assert patience.call(failing(1), passing_failure) == "done"

    def test_without_patience_the_first_failure_is_final(self, caplog: pytest.LogCaptureFixture) -> None:
        with pytest.raises(ConnectionRefusedError):
            Patience("S3", 0).call(failing(1), passing_failure)
        assert lines(caplog) == []

    def test_a_call_inside_a_call_does_not_wait_itself(self, caplog: pytest.LogCaptureFixture) -> None:
        patience, inner = Patience("S3", 60), failing(2)
        assert patience.call(lambda: patience.call(inner, passing_failure), passing_failure) == "done"
        assert len(lines(caplog)) == 2

    def test_threads_that_wait_together_log_one_line(self, caplog: pytest.LogCaptureFixture) -> None:
        patience, barrier = Patience("S3", 60), threading.Barrier(8)

        def work(_: int) -> str:
            attempt = failing(1)
            barrier.wait()
            return patience.call(attempt, passing_failure)

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(work, range(8))) == ["done"] * 8
        assert len(lines(caplog)) == 1

    def test_what_was_made_without_an_answer_is_not_made_again(self) -> None:
        made: list[str] = []

        def make() -> str:
            made.append("it")
            raise ConnectionResetError(104, "Connection reset by peer")

        found = Patience("MLflow", 60).make_once(lambda: made[0] if made else None, make, passing_failure)
        assert (found, made) == ("it", ["it"])

    @pytest.mark.parametrize(("text", "seconds"), [(None, 0), ("", 0), ("600", 600)])
    def test_the_environment_says_how_long(
        self, monkeypatch: pytest.MonkeyPatch, text: str | None, seconds: float
    ) -> None:
        monkeypatch.delenv(ENVIRONMENT, raising=False)
        if text is not None:
            monkeypatch.setenv(ENVIRONMENT, text)
        assert patience_of_environment() == seconds
        assert (Storage().patience, Tracking.from_environment().patience) == (seconds, seconds)

    @pytest.mark.parametrize("text", ["ten", "-1", "nan", "inf"])
    def test_what_is_no_time_is_refused(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv(ENVIRONMENT, text)
        with pytest.raises(InputError, match=rf"{ENVIRONMENT} must be a number of seconds >= 0, got '{text}'"):
            patience_of_environment()

    def test_mlflow_does_not_repeat_requests_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for seconds, retries in ((5, "0"), (0, "5")):
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "")  # so that it is restored
            monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
            Tracking(patience=seconds)
            assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == retries


class TestFailures:
    @pytest.mark.parametrize(
        ("status", "failure"),
        [
            *((status, f"it answers {status}") for status in (408, 429, 500, 502, 503, 504, 507)),
            *((status, None) for status in (400, 401, 403, 404, 409, 412, 501, 505)),
        ],
    )
    def test_statuses(self, webhook: Webhook, status: int, failure: str | None) -> None:
        webhook.status = status
        with pytest.raises(requests.HTTPError) as caught:
            requests.post(webhook.url, json={}, timeout=5).raise_for_status()
        assert passing_failure(caught.value) == failure

    def test_nobody_listens(self) -> None:
        with pytest.raises(requests.ConnectionError) as caught:
            requests.get(NOWHERE, timeout=5)
        assert passing_failure(caught.value) == "Connection refused"

    def test_an_unknown_host(self) -> None:
        with pytest.raises(requests.ConnectionError) as caught:
            requests.get("http://nowhere.invalid", timeout=5)
        assert re.search("name", passing_failure(caught.value) or "", re.IGNORECASE)

    def test_no_answer_in_time(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(requests.Timeout) as caught:
            requests.get(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)
        assert passing_failure(caught.value) == "timed out"

    @pytest.mark.parametrize("kind", ["reset", "lost", "truncate"])
    def test_a_connection_that_breaks(self, s3_server: str, kind: str) -> None:
        def plan(request: Request) -> Fault:
            return Fault(kind=kind, at=1)  # type: ignore[arg-type]

        with FaultProxy(s3_server, plan) as proxy, pytest.raises(requests.RequestException) as caught:
            requests.get(proxy.url, timeout=5)
        assert passing_failure(caught.value)

    def test_what_does_not_pass(self) -> None:
        for error in (ValueError("x"), FileNotFoundError(2, "no such file"), requests.exceptions.InvalidURL("x")):
            assert passing_failure(error) is None


@dataclass
class RemoteStore:
    """A version of raw data in a DVC remote, and the store behind a proxy."""

    proxy: FaultProxy
    md5: str
    uri: str
    files: dict[str, bytes]

    def fetch(self, out: Path) -> None:
        fetch_dataset.run(raw_out=out, md5=self.md5, remote=self.uri, endpoint_url=self.proxy.url)


@pytest.fixture
def remote(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteStore]:
    files = {f"{number}.bin": bytes([number]) * 300_000 for number in range(12)}
    digests = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    listing = json.dumps([{"md5": digest, "relpath": name} for name, digest in digests.items()]).encode()
    md5 = f"{hashlib.md5(listing).hexdigest()}.dir"
    for digest, content in {md5: listing, **{digests[name]: content for name, content in files.items()}}.items():
        bucket.put(f"dvc/files/md5/{digest[:2]}/{digest[2:]}", content)
    monkeypatch.setenv(ENVIRONMENT, "60")
    with FaultProxy(bucket.endpoint) as proxy:
        yield RemoteStore(proxy, md5, f"{bucket.uri}/dvc", files)


class TestS3:
    @pytest.mark.parametrize("at", [0, 2, 8, 20])
    def test_fetch_dataset_outlives_a_store_that_goes_away(
        self, remote: RemoteStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, at: int
    ) -> None:
        remote.proxy.plan = away = Away(at=at, seconds=1)
        remote.fetch(tmp_path / "raw")
        assert {name: (tmp_path / "raw" / name).read_bytes() for name in remote.files} == remote.files
        assert away.num_failed > 1 and away.num_after > 0
        matches = [LINE.fullmatch(line) for line in lines(caplog)]
        assert {match and match["backend"] for match in matches} == {f"S3 at {remote.proxy.url}"}

    @pytest.mark.slow
    @pytest.mark.long_outage
    def test_fetch_dataset_outlives_half_a_minute(self, remote: RemoteStore, tmp_path: Path) -> None:
        remote.proxy.plan = away = Away(at=8, seconds=30)
        remote.fetch(tmp_path / "raw")
        assert {name: (tmp_path / "raw" / name).read_bytes() for name in remote.files} == remote.files
        assert away.num_failed > 4 and away.num_after > 0

    def test_each_attempt_is_one_request_and_one_line(
        self, remote: RemoteStore, bucket: Bucket, caplog: pytest.LogCaptureFixture
    ) -> None:
        remote.proxy.plan = away = Away(at=0, seconds=0.5)
        Storage(endpoint_url=remote.proxy.url).check_bucket(bucket.uri)
        assert len(lines(caplog)) == 1 + away.num_failed

    def test_a_step_ends_with_status_3_when_patience_has_ended(self, remote: RemoteStore, tmp_path: Path) -> None:
        options = ["--md5", remote.md5, "--remote", remote.uri, "--endpoint-url", NOWHERE]
        command = ["components.steps.fetch_dataset", "--raw-out", tmp_path / "raw", *options]
        done = forked.run(*command, environment=os.environ | {ENVIRONMENT: "1.5"})
        assert done.returncode == 3
        *waits, giving_up, last = done.stderr.splitlines()
        assert waits and all(LINE.fullmatch(line) for line in waits)
        assert giving_up == f"S3 at {NOWHERE} is still not available (Connection refused) after 2 s; giving up"
        assert re.match(r"error: s3://\S+: the store cannot be reached \(.*\); check network and endpoint", last)
        assert not (tmp_path / "raw").exists()

    @pytest.mark.parametrize("status", [400, 403, 409, 501])
    def test_what_does_not_pass_is_asked_once(
        self, remote: RemoteStore, bucket: Bucket, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        remote.proxy.plan = lambda request: Fault(kind="error", status=status, code="No")
        with pytest.raises(BackendError):
            Storage(endpoint_url=remote.proxy.url).names_below(bucket.uri)
        assert len(remote.proxy.requests) == 1
        assert lines(caplog) == []

    @pytest.mark.parametrize("at", range(1, 7))
    def test_an_upload_in_parts_outlives_a_lost_answer_to_any_request(
        self, remote: RemoteStore, bucket: Bucket, tmp_path: Path, at: int
    ) -> None:
        content = os.urandom(PART + 100)
        (tmp_path / "large").write_bytes(content)
        remote.proxy.plan = Away(at=at, seconds=0)
        Storage(endpoint_url=remote.proxy.url).upload(tmp_path / "large", f"{bucket.uri}/large")
        assert bucket.get("large") == content


class TestWebhook:
    def test_it_gets_the_outcome_when_it_is_back(
        self, webhook: Webhook, tracking: Tracking, caplog: pytest.LogCaptureFixture
    ) -> None:
        webhook.reset()
        webhook.statuses = [503, 503]
        self.record(webhook.url, tracking, 60)
        assert (len(lines(caplog)), len(webhook.got)) == (2, 3)
        assert lines(caplog)[0].startswith(
            "the webhook is not available (it answers 503); trying again for another 1 m"
        )
        assert "the webhook answers" not in caplog.text

    @pytest.mark.parametrize("status", [400, 403, 404])
    def test_a_refusal_is_final(
        self, webhook: Webhook, tracking: Tracking, caplog: pytest.LogCaptureFixture, status: int
    ) -> None:
        webhook.status = status
        webhook.got.clear()
        self.record(webhook.url, tracking, 60)
        assert len(webhook.got) == 1
        assert caplog.messages[-1] == f"the webhook answers {status}"

    def test_at_the_end_it_is_a_warning_without_the_address(
        self, tracking: Tracking, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.record(f"{NOWHERE}{SECRET_PATH}", tracking, 0.3)
        assert lines(caplog)[0].startswith(
            "the webhook is not available (ConnectionError); trying again for another 1 s"
        )
        assert caplog.messages[-1] == "the webhook cannot be reached (ConnectionError)"
        assert "secret" not in caplog.text and "127.0.0.1" not in caplog.text

    @staticmethod
    def record(url: str, tracking: Tracking, seconds: float) -> None:
        patient = Tracking(uri=tracking.uri, patience=seconds)
        address = Address(url=url, patience=seconds)
        record_outcome.run(pipeline_run="run-7", state="FAILED", error="", webhook=address, tracking=patient)


@pytest.fixture(scope="module")
def server(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """A real MLflow server behind a proxy."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "mlflow.db")
    with mlflow_server(f"sqlite:///{folder}/mlflow.db", folder) as uri, FaultProxy(uri) as proxy:
        yield proxy


@dataclass
class Chain:
    """The steps that use MLflow, on the artifacts of those before them."""

    inputs: dict[str, Path]
    root: Path
    tracking: Tracking
    name: str = "patient"

    @property
    def params(self) -> RegisterConfig:
        return RegisterConfig(model_name=self.name, data_licence="no rights reserved")

    def train(self) -> None:
        train.run(
            **self.inputs,
            model_params=ModelConfig(embedding_dim=8, image_to_text_hidden=8, text_to_image_hidden=8, hops=2),
            params=TrainConfig(epochs=3, batch_size=16, lr=1e-3, device="cpu"),
            tracking=self.tracking,
            work=self.root / "work",
            model_out=self.root / "model",
        )

    def evaluate(self) -> None:
        evaluate.run(
            dataset=self.dataset,
            features=self.inputs["features"],
            model=self.root / "model",
            params=EvaluateConfig(num_queries=1, num_retrieved=1),
            tracking=self.tracking,
            report_out=self.root / "report",
        )

    def register(self) -> None:
        register.run(model=self.root / "model", report=self.root / "report", params=self.params, tracking=self.tracking)

    def promote(self) -> None:
        promote.run(name=self.name, version=None, params=self.params, dataset=self.dataset, tracking=self.tracking)

    def record_outcome(self) -> None:
        record_outcome.run(pipeline_run="run-7", state="SUCCEEDED", error="", webhook=None, tracking=self.tracking)

    @property
    def dataset(self) -> Path:
        return self.inputs["features"].parent / "dataset"


@pytest.mark.slow
class TestMlflow:
    @pytest.fixture
    def chain(
        self, inputs: dict[str, Path], server: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Chain:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # as a process with patience sets it
        monkeypatch.setenv("DAGNN_PIPELINE_RUN", "run-7")
        return Chain(inputs, tmp_path, Tracking(uri=server.url, experiment=tmp_path.name, patience=120), tmp_path.name)

    def test_every_step_outlives_a_server_that_goes_away(
        self, chain: Chain, server: FaultProxy, caplog: pytest.LogCaptureFixture
    ) -> None:
        # in every step the answer to one request is lost; for most, to one that makes something
        for step, at in (("train", 3), ("evaluate", 3), ("register", 12), ("promote", 5), ("record_outcome", 2)):
            caplog.clear()
            server.plan = away = Away(at=at, seconds=1)
            with caplog.at_level(logging.INFO):
                getattr(chain, step)()
            assert away.num_failed > 0 and away.num_after > 0, step
            matches = [LINE.fullmatch(line) for line in lines(caplog)]
            assert {match and match["backend"] for match in matches} == {f"MLflow at {server.url}"}, step
            assert "gets no more metrics" not in caplog.text, step
        client = chain.tracking.client
        experiment = client.get_experiment_by_name(chain.tracking.experiment)
        [run] = client.search_runs([experiment.experiment_id])
        assert run.info.status == "FINISHED"
        assert run.data.tags["pipeline_state"] == "SUCCEEDED"
        assert len(client.get_metric_history(run.info.run_id, "val_map_mean")) == 3
        assert "map_mean" in run.data.metrics
        assert [str(version.version) for version in client.search_model_versions(f"name = '{chain.name}'")] == ["1"]
        assert len(read_history(chain.tracking, name=chain.name).events) == 1

    @pytest.mark.parametrize("kind", ["runs/create", "logged-models", "model-versions/create", "experiments/create"])
    def test_what_was_made_without_an_answer_is_made_once(self, chain: Chain, server: FaultProxy, kind: str) -> None:
        lost: list[str] = []

        def plan(request: Request) -> Fault | None:
            if request.method != "POST" or not request.path.endswith(kind) or lost:
                return None
            lost.append(request.path)
            return Fault(kind="lost")

        server.plan = plan
        chain.train()
        chain.evaluate()
        chain.register()
        assert len(lost) == 1
        client = chain.tracking.client
        experiments = client.search_experiments(filter_string=f"name = '{chain.tracking.experiment}'")
        assert len(experiments) == 1
        assert len(client.search_runs([experiments[0].experiment_id])) == 1
        assert len(client.search_logged_models([experiments[0].experiment_id])) == 1
        assert len(client.search_model_versions(f"name = '{chain.name}'")) == 1

    @pytest.mark.long_outage
    def test_a_training_outlives_half_a_minute(self, chain: Chain, server: FaultProxy) -> None:
        server.plan = away = Away(at=8, seconds=30)
        chain.train()
        assert away.num_failed > 4 and away.num_after > 0
        experiment = chain.tracking.client.get_experiment_by_name(chain.tracking.experiment)
        [run] = chain.tracking.client.search_runs([experiment.experiment_id])
        assert run.info.status == "FINISHED"
        assert len(chain.tracking.client.get_metric_history(run.info.run_id, "val_map_mean")) == 3

    def test_a_server_that_stays_away_ends_with_status_3(self, chain: Chain, server: FaultProxy) -> None:
        server.plan = lambda request: Fault(kind="error", status=503)
        tracking = Tracking(uri=server.url, patience=1)
        with pytest.raises(BackendError, match=r"cannot be used: it answers 503 .*; the server's log") as caught:
            Chain(chain.inputs, chain.root, tracking).train()
        assert caught.value.exit_status == 3

    @pytest.mark.parametrize("status", [400, 403, 404])
    def test_a_refusal_is_not_asked_again(self, chain: Chain, server: FaultProxy, status: int) -> None:
        server.plan = lambda request: None  # not that of the test before
        assert chain.tracking.client  # it has probed the server
        server.requests.clear()
        server.plan = lambda request: Fault(kind="error", status=status)
        with pytest.raises(BackendError), chain.tracking.answering():
            chain.tracking.client.search_experiments()
        assert len(server.requests) == 1

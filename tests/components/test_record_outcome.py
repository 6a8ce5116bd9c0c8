"""Step `record_outcome`: the log, MLflow, and a real HTTP server as the webhook."""

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from components.record_outcome import run
from components.services.tracking import Tracking

SECRET = "/services/T00/very-secret"
NOWHERE = Tracking(uri="http://127.0.0.1:9")


class Webhook(HTTPServer):
    """A server that keeps what it is sent, and answers `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.got: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{SECRET}"


class _Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, json.loads(content)))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def outcome(webhook: str, tracking: Tracking, state: str = "FAILED", error: str = "train failed") -> None:
    run(pipeline_run="run-7", state=state, error=error, webhook=webhook, tracking=tracking)


def test_the_log_has_the_outcome_as_json(tracking: Tracking, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        outcome("", tracking)
    assert caplog.messages == ['outcome {"pipeline_run": "run-7", "state": "FAILED", "error": "train failed"}']


def test_the_runs_of_this_pipeline_run_get_the_state(tracking: Tracking) -> None:
    client = tracking.client
    experiment = client.create_experiment(tracking.experiment)
    runs = [
        client.create_run(experiment, tags={"pipeline_run": tag}).info.run_id for tag in ("run-7", "run-8", "run-7")
    ]
    outcome("", tracking, state="SUCCEEDED", error="")
    states = [client.get_run(run_id).data.tags.get("pipeline_state") for run_id in runs]
    assert states == ["SUCCEEDED", None, "SUCCEEDED"]


def test_the_webhook_gets_it(tracking: Tracking, webhook: Webhook) -> None:
    outcome(webhook.url, tracking)
    outcome(webhook.url, tracking, state="SUCCEEDED", error="")
    (path, failed), (_, succeeded) = webhook.got
    assert path == SECRET
    text = "dagnn: run run-7 ended: FAILED: train failed"
    assert failed == {"text": text, "pipeline_run": "run-7", "state": "FAILED", "error": "train failed"}
    assert succeeded["text"] == "dagnn: run run-7 ended: SUCCEEDED"


def test_a_webhook_that_refuses_is_a_warning(
    tracking: Tracking, webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    webhook.status = 404
    outcome(webhook.url, tracking)
    assert caplog.messages == ["the webhook answers 404"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"http://127.0.0.1:9{SECRET}", "the webhook cannot be reached (ConnectionError)"),
        (f"127.0.0.1{SECRET}", "the webhook cannot be reached (MissingSchema)"),
        (f"http://[{SECRET}", "the webhook cannot be reached (InvalidURL)"),
    ],
)
def test_a_webhook_that_is_not_there_is_a_warning_without_its_address(
    tracking: Tracking, caplog: pytest.LogCaptureFixture, url: str, message: str
) -> None:
    outcome(url, tracking)
    assert caplog.messages == [message]


def test_without_mlflow_the_webhook_gets_it_all_the_same(webhook: Webhook, caplog: pytest.LogCaptureFixture) -> None:
    outcome(webhook.url, NOWHERE)
    (message,) = caplog.messages
    assert message.startswith("the outcome is not in MLflow: MLflow at http://127.0.0.1:9 cannot be used: ")
    assert len(webhook.got) == 1

"""Step `record_outcome`: the log, MLflow, and a real HTTP server as the webhook."""

import logging

import pytest

from components.services import notification
from components.services.notification import Webhook as Address
from components.services.tracking.mlflow import Tracking
from components.steps.record_outcome import run
from tests.fixtures.webhook import SECRET_PATH, Webhook

NOWHERE = Tracking(uri="http://127.0.0.1:9")


@pytest.fixture(autouse=True)
def fresh(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    webhook.reset()
    monkeypatch.setattr(notification, "RETRY_SECONDS", 0.1)


def outcome(webhook: str, tracking: Tracking, state: str = "FAILED", error: str = "train failed") -> None:
    address = Address(url=webhook) if webhook else None
    run(pipeline_run="run-7", state=state, error=error, webhook=address, tracking=tracking)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


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
    assert path == SECRET_PATH
    text = "dagnn: run run-7 ended: FAILED: train failed"
    assert failed.pop("time")
    facts = {"pipeline_run": "run-7", "state": "FAILED", "error": "train failed"}
    assert failed == {"event": "run failed", "text": text} | facts
    assert succeeded["text"] == "dagnn: run run-7 ended: SUCCEEDED"


def test_a_webhook_that_refuses_is_a_warning(
    tracking: Tracking, webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    webhook.status = 404
    outcome(webhook.url, tracking)
    assert warnings(caplog) == ["the webhook answers 404"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"http://127.0.0.1:9{SECRET_PATH}", "the webhook cannot be reached (ConnectionError)"),
        (f"127.0.0.1{SECRET_PATH}", "the webhook cannot be reached (MissingSchema)"),
        (f"http://[{SECRET_PATH}", "the webhook cannot be reached (InvalidURL)"),
    ],
)
def test_a_webhook_that_is_not_there_is_a_warning_without_its_address(
    tracking: Tracking, caplog: pytest.LogCaptureFixture, url: str, message: str
) -> None:
    outcome(url, tracking)
    assert warnings(caplog) == [message]


def test_without_mlflow_the_webhook_gets_it_all_the_same(webhook: Webhook, caplog: pytest.LogCaptureFixture) -> None:
    outcome(webhook.url, NOWHERE)
    (message,) = warnings(caplog)
    assert message.startswith("the outcome is not in MLflow: MLflow at http://127.0.0.1:9 cannot be used: ")
    assert len(webhook.got) == 1

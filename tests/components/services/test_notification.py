"""Notification: what a real HTTP server gets, and that a webhook which fails, hangs or drips holds nothing up."""

import hashlib
import hmac
import json
import logging
import socket
import time

import pytest

from components.services import notification
from components.services.notification import DELIVERY, SIGNATURE, TIMESTAMP, Event, Webhook, failure_notified, notify
from components.services.promotion.promotion import promote, read_history
from components.services.tracking.mlflow import Tracking
from components.steps import promote as step
from dagnn_core.config.register import RegisterConfig
from dagnn_core.errors import BackendError, CheckFailedError, InputError
from dagnn_core.locks import BusyError
from pipeline.cli import registry as commands
from tests.fixtures.webhook import SECRET_PATH
from tests.fixtures.webhook import Webhook as Server

SECRET = "key-of-the-signature"
EVENT = Event(kind="promoted", text="dagnn: version 7 is champion", facts={"version": "7", "before": None})


@pytest.fixture(autouse=True)
def short(webhook: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    webhook.reset()
    monkeypatch.setattr(notification, "RETRY_SECONDS", 0.2)
    monkeypatch.setattr(notification, "SECONDS", 0.3)
    for name in ("URL", "FORMAT", "SECRET"):
        monkeypatch.delenv(f"DAGNN_WEBHOOK_{name}", raising=False)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_receiver_knows_the_sender_by_the_signature(webhook: Server, caplog: pytest.LogCaptureFixture) -> None:
    notify(Webhook(url=webhook.url, secret=SECRET), EVENT)
    ((headers, body),) = webhook.raw
    signed = f"{headers[TIMESTAMP]}.".encode() + body
    assert headers[SIGNATURE] == "sha256=" + hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert abs(int(headers[TIMESTAMP]) - time.time()) < 60
    content = json.loads(body)
    assert content.pop("time")
    assert content == {"event": "promoted", "text": EVENT.text, "version": "7", "before": None}
    assert SECRET not in str(webhook.raw) and warnings(caplog) == []


def test_without_a_secret_nothing_is_signed(webhook: Server) -> None:
    notify(Webhook(url=webhook.url), EVENT)
    assert SIGNATURE not in webhook.raw[0][0]


def test_slack_gets_its_own_form(webhook: Server) -> None:
    notify(Webhook(url=webhook.url, format="slack"), Event(kind="refused", text="a <b> & c\nd", facts={"x": "y"}))
    assert webhook.got == [(SECRET_PATH, {"text": "a &lt;b&gt; &amp; c d"})]


def test_a_failure_that_passes_is_tried_again_with_the_same_id(
    webhook: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notification, "RETRY_SECONDS", 5)
    monkeypatch.setattr("components.services.storage.patience.FIRST_PAUSE", 0.05)
    webhook.statuses = [500, 503]
    notify(Webhook(url=webhook.url), EVENT)
    assert len(webhook.raw) == 3 and len({headers[DELIVERY] for headers, _ in webhook.raw}) == 1
    assert warnings(caplog) == []


@pytest.mark.parametrize("status", [500, 404, 302])
def test_what_a_webhook_answers_is_one_line_without_its_address(
    webhook: Server, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    webhook.status = status
    notify(Webhook(url=webhook.url), EVENT)
    assert warnings(caplog) == [f"the webhook answers {status}"]
    assert {path for path, _ in webhook.got} == {SECRET_PATH}, "a redirection is not followed"


def test_a_server_that_hangs_or_drips_is_left_alone_after_a_while(
    webhook: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        notify(Webhook(url=f"http://127.0.0.1:{silent.getsockname()[1]}/{SECRET}"), EVENT)
        assert time.monotonic() - start < 2
    webhook.drips = True
    start = time.monotonic()
    notify(Webhook(url=webhook.url), EVENT)
    assert time.monotonic() - start < 2
    hung, dripped = warnings(caplog)
    assert hung == "the webhook cannot be reached (ReadTimeout)"
    assert dripped == "the webhook does not answer within 1.1 s"


def test_the_environment_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Webhook.from_environment() is None
    monkeypatch.setenv("DAGNN_WEBHOOK_URL", "http://127.0.0.1:9/x")
    assert Webhook.from_environment(patience=7) == Webhook(url="http://127.0.0.1:9/x", patience=7)
    monkeypatch.setenv("DAGNN_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("DAGNN_WEBHOOK_FORMAT", "slack")
    assert Webhook.from_environment() == Webhook(url="http://127.0.0.1:9/x", secret=SECRET, format="slack")
    monkeypatch.setenv("DAGNN_WEBHOOK_FORMAT", "teams")
    with pytest.raises(InputError, match=r"DAGNN_WEBHOOK_FORMAT is 'teams', expected plain or slack; correct or unset"):
        Webhook.from_environment()


def test_a_failed_run_is_told_and_so_is_a_check_that_says_no(webhook: Server) -> None:
    address = Webhook(url=webhook.url)
    for error in (
        BackendError("the disk is full", "free some space"),
        CheckFailedError("MAP is low"),
        BusyError("busy"),
    ):
        with pytest.raises(type(error)), failure_notified(address, "dagnn run"):
            raise error
    assert [(content["event"], content["text"]) for _, content in webhook.got] == [
        ("run failed", "dagnn: dagnn run failed: the disk is full; free some space"),
        ("refused", "dagnn: dagnn run is refused: MAP is low"),
    ]


def test_refusals_and_rollbacks_stand_whatever_the_webhook_answers(
    *,
    tracking: Tracking,
    store_version,
    webhook: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    webhook.status = 500
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    monkeypatch.setenv("DAGNN_WEBHOOK_URL", webhook.url)
    accept = {"examine": lambda *_: step.GateResult((), {})}
    for _ in range(2):
        promote(tracking, name="dagnn", version=store_version(tracking), **accept)
    commands.rollback(name="dagnn", why="too slow")
    lost = store_version(tracking)
    tracking.client.delete_run(tracking.client.get_model_version("dagnn", lost).run_id)
    done = step.run(
        name="dagnn",
        version=lost,
        params=RegisterConfig(),
        dataset=None,
        tracking=tracking,
        webhook=Webhook.from_environment(),
    )
    assert not done.decision.accepted
    history = read_history(tracking, name="dagnn")
    assert [event.what for event in history.events] == ["promoted", "promoted", "rolled back", "refused"]
    assert history.champion == "1"
    told = {content["event"]: content for _, content in webhook.got}
    assert told["rolled back"]["text"] == "dagnn: dagnn is rolled back to version 1, after version 2: too slow"
    assert {"champion": "1", "before": "2", "who": tracking.who}.items() <= told["rolled back"].items()
    assert told["refused"]["text"].startswith("dagnn: dagnn version 3 is refused: version 3 stands on the MLflow run")
    assert (told["refused"]["version"], told["refused"]["champion"]) == ("3", "1")
    assert warnings(caplog) == ["the webhook answers 500"] * 2

"""How a run ended, as its exit handler finds it out: from a server that answers as a real one did, and from MLflow."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.services.registry.versions import has_finished, mark_finished
from components.services.tracking.mlflow import Tracking
from pipeline.kubeflow.runs import fold
from pipeline.outcome import Outcome, RunServer, find_outcome
from tests.components.fault_proxy import FaultProxy, only
from tests.fixtures.webhook import Webhook
from tests.pipeline.kfp_server import KubeflowServer
from tests.pipeline.recorded import as_of, recorded

ROOT = Path(__file__).parents[2]
RUN = "run-7"
TOKEN = "token-that-nobody-shall-see"
SAID = Outcome("RUNNING")
NOWHERE = Tracking(uri="http://127.0.0.1:9")


@pytest.fixture(autouse=True)
def outside_of_a_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("DAGNN_", "KF_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("pipeline.outcome.TOKEN_FILE", str(tmp_path / "none"))


@pytest.fixture
def tracking(empty_database: Path, tmp_path: Path) -> Tracking:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db")


def seen_by_the_exit_handler(name: str) -> dict[str, Any]:
    """A recorded run at the moment in which the pod of its exit handler is told to run."""
    run = recorded(name)
    (handler,) = [node for node in run["run_details"]["task_details"] if node.get("display_name") == "record-outcome"]
    seen = as_of(run, handler["state_history"][0]["update_time"])
    assert seen["state"] in ("RUNNING", "CANCELING")
    return seen | {"run_id": RUN}


def find(
    server: RunServer | None, tracking: Tracking = NOWHERE, said: Outcome = SAID, last: str = "register"
) -> Outcome:
    return find_outcome(RUN, last_task=last, said=said, server=server, tracking=tracking)


def pods_of(name: str, step: str) -> tuple[str, ...]:
    """Names that the pod of a recorded step's last attempt may have."""
    (task,) = [task for task in fold(recorded(name)) if task.name == step]
    return task.attempts[-1].pods


def quick(url: str) -> RunServer:
    return RunServer(url=url, patience=0.2, pause=0.05)


# the API answers


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("seeds_promote_failed", Outcome("FAILED", "promote")),
        ("terminated", Outcome("CANCELED", "canceled during register")),
    ],
)
def test_a_run_whose_exit_handler_is_under_way(server: KubeflowServer, name: str, expected: Outcome) -> None:
    server.runs[RUN] = seen_by_the_exit_handler(name)
    assert find(quick(server.url)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("succeeded", "SUCCEEDED"),
        ("from_cache_with_mlflow_plugin", "SUCCEEDED"),
        ("promoted_after_fixes", "SUCCEEDED"),
        ("seeds_promote_failed", "FAILED"),
        ("task_failed_exit_3", "FAILED"),
        ("retry_killed_after_max_duration", "FAILED"),
        ("of_recurring", "FAILED"),
        ("terminated", "CANCELED"),
    ],
)
def test_every_recorded_run(server: KubeflowServer, name: str, expected: str) -> None:
    server.runs[RUN] = recorded(name) | {"run_id": RUN, "state": "RUNNING"}
    assert find(quick(server.url)).state == expected


def test_the_cause_is_the_last_line_of_the_failed_task(server: KubeflowServer) -> None:
    server.runs[RUN] = recorded("task_failed_exit_3") | {"run_id": RUN, "state": "RUNNING"}
    assert find(quick(server.url)) == Outcome("FAILED", "fetch_dataset")
    pod = pods_of("task_failed_exit_3", "fetch_dataset")[0]
    server.logs[pod] = "\n".join(
        [
            "[fetch_dataset] looking for files",
            "[fetch_dataset] BackendError: s3://data/dvc: the store cannot be reached; check network",
            "time=2026-11-28 level=error msg='exit status 3'",
        ]
    )
    cause = "fetch_dataset: exit status 3: s3://data/dvc: the store cannot be reached; check network"
    assert find(quick(server.url)) == Outcome("FAILED", cause)
    server.logs[pod] = "[fetch_dataset] looking for files\nKilled\n"
    assert find(quick(server.url)).error == "fetch_dataset: looking for files"


def test_a_training_that_was_killed_has_its_last_attempts_log(server: KubeflowServer) -> None:
    server.runs[RUN] = recorded("retry_killed_after_max_duration") | {"run_id": RUN, "state": "RUNNING"}
    lost = "train (attempt 2 after the pod was lost)"
    assert find(quick(server.url)).error == lost
    pod = pods_of("retry_killed_after_max_duration", "train")[-1]  # the other kind of name
    server.logs[pod] = "[train] epoch 7, val MAP 0.5\n"
    assert find(quick(server.url)).error == f"{lost}: epoch 7, val MAP 0.5"


def test_seeds_are_those_of_the_pipeline(server: KubeflowServer, run_id: str) -> None:
    reference = server.runs[run_id]["pipeline_version_reference"]
    text = json.dumps(recorded("seeds_promote_failed")).replace('"SUCCEEDED"', '"FAILED"')
    server.runs[RUN] = json.loads(text) | {"run_id": RUN, "pipeline_version_reference": reference}
    causes = find(quick(server.url)).error
    assert "train (seed 1) (attempt 2 after the pod was lost); train (seed 2); " in causes


def test_tasks_whose_end_the_server_learns_later(server: KubeflowServer) -> None:
    server.runs[RUN] = {"run_id": RUN}
    last = recorded("succeeded")
    nodes = json.loads(json.dumps(last["run_details"]["task_details"]).replace('"SUCCEEDED"', '"RUNNING"'))
    early = last | {"run_id": RUN, "state": "RUNNING", "run_details": {"task_details": nodes}}
    server.states = [early, early, last | {"run_id": RUN, "state": "RUNNING"}]
    assert find(replace(quick(server.url), patience=60.0)) == Outcome("SUCCEEDED")
    server.states = [early]
    assert find(quick(server.url)) == Outcome("UNKNOWN")


def test_the_token_goes_to_the_configured_address_alone(
    server: KubeflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.runs[RUN] = recorded("succeeded") | {"run_id": RUN, "state": "RUNNING"}
    server.token = TOKEN
    assert find(quick(server.url)).state == "UNKNOWN"
    assert "it answers 401" in caplog.text
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert find(quick(server.url)).state == "SUCCEEDED"
    server.cookies = "session"  # now it answers with the way to a login page
    assert find(quick(server.url)).state == "UNKNOWN"
    assert "it answers 302" in caplog.text
    assert "login" not in server.requests and TOKEN not in caplog.text


# it does not


@pytest.mark.parametrize(
    ("url", "reason"), [("http://127.0.0.1:9", "ConnectionError"), ("http://kubeflow.invalid", "ConnectionError")]
)
def test_an_api_that_is_not_there(url: str, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    assert find(quick(url)) == Outcome("UNKNOWN")
    assert caplog.messages[0] == f"Kubeflow at {url} does not tell how the tasks ended ({reason})"
    assert caplog.messages[1].startswith("MLflow does not tell whether register ended: MLflow at ")


@pytest.mark.parametrize("kind", ["stall", "trickle"])
def test_an_api_that_is_slow(server: KubeflowServer, kind: Any) -> None:
    server.runs[RUN] = recorded("succeeded") | {"run_id": RUN, "state": "RUNNING", "description": " " * 500_000}
    with FaultProxy(server.url, only(kind, seconds=0.4 if kind == "trickle" else 1.0)) as proxy:
        start = time.monotonic()
        assert find(replace(quick(proxy.url), read_timeout=0.5, total_timeout=1.0)) == Outcome("UNKNOWN")
        assert time.monotonic() - start < 10


@pytest.mark.parametrize("answer", [{}, {"run_details": {"task_details": []}}])
def test_an_answer_without_tasks(server: KubeflowServer, answer: dict[str, Any]) -> None:
    server.runs[RUN] = {"run_id": RUN, "state": "RUNNING"} | answer
    assert find(quick(server.url)) == Outcome("UNKNOWN")


def test_a_run_that_the_api_does_not_have(server: KubeflowServer, caplog: pytest.LogCaptureFixture) -> None:
    assert find(quick(server.url)) == Outcome("UNKNOWN")
    assert "it answers 404" in caplog.text


@pytest.mark.parametrize("said", ["COMPLETE", "RUNNING", "SUCCEEDED", "FAILED"])
def test_what_the_last_task_left_in_mlflow_decides(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    tracking.client.create_registered_model("scenes")
    version = tracking.client.create_model_version("scenes", source="file:///none").version
    hint = Outcome(said, "a task failed")
    missing = hint if said == "FAILED" else Outcome("UNKNOWN")
    monkeypatch.setenv("DAGNN_PIPELINE_RUN", "another")
    mark_finished(tracking, "scenes", version, "register")
    assert find(None, tracking, hint) == missing
    monkeypatch.setenv("DAGNN_PIPELINE_RUN", RUN)
    mark_finished(tracking, "scenes", version, "register")
    assert find(None, tracking, hint) == Outcome("SUCCEEDED")
    assert find(None, tracking, hint, last="promote") == missing
    mark_finished(tracking, "scenes", version, "promote")
    assert find(None, tracking, hint, last="promote") == Outcome("SUCCEEDED")


def test_outside_of_a_pipeline_nothing_is_marked(tracking: Tracking) -> None:
    mark_finished(tracking, "no-such-model", "1", "register")
    assert not has_finished(tracking, RUN, "register")


# the task


@pytest.mark.slow
def test_the_task_needs_neither_kfp_nor_the_generated_client() -> None:
    code = "import sys; import pipeline.outcome; assert not {'kfp', 'kfp_server_api'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_task_records_what_it_finds(
    server: KubeflowServer, tracking: Tracking, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kfp.dsl import PipelineTaskFinalStatus

    from pipeline.steps import record_outcome

    server.runs[RUN] = seen_by_the_exit_handler("seeds_promote_failed")
    experiment = tracking.client.create_experiment(tracking.experiment)
    training = tracking.client.create_run(experiment, tags={"pipeline_run": RUN}).info.run_id
    webhook.got.clear()
    for name, value in {
        "DAGNN_PIPELINE_RUN": RUN,
        "DAGNN_KUBEFLOW_URL": server.url,
        "DAGNN_WEBHOOK_URL": webhook.url,
        "MLFLOW_TRACKING_URI": tracking.uri,
    }.items():
        monkeypatch.setenv(name, value)
    said = PipelineTaskFinalStatus(
        state="RUNNING",
        pipeline_job_resource_name=RUN,
        pipeline_task_name="exit-handler-1",
        error_code=None,
        error_message=None,
    )
    root = logging.getLogger()
    handlers = root.handlers[:]
    try:
        record_outcome(last_task="promote", status=said)
    finally:
        root.handlers[:] = handlers
    (content,) = [content for _, content in webhook.got]
    assert (content["state"], content["error"]) == ("FAILED", "promote")
    tags = tracking.client.get_run(training).data.tags
    assert (tags["pipeline_state"], tags["pipeline_error"]) == ("FAILED", "promote")

"""`dagnn follow` against the contract server, which answers as a real server was recorded to."""

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from dagnn_core.errors import BackendError, CheckFailedError, InputError
from pipeline.cli.run_table import RunTable
from pipeline.follow import Pace, duration, follow, read_run
from pipeline.kubeflow.client import Kubeflow
from tests.components.fault_proxy import FaultProxy, only
from tests.pipeline.kfp_server import KubeflowServer
from tests.pipeline.recorded import as_of, moments, recorded
from tests.pipeline.test_runs import LOOP

TOKEN = "token-that-nobody-shall-see"
PACE = Pace(first=0.001, longest=0.001, patience=0.0)


def states(name: str) -> list[dict[str, Any]]:
    """What a recorded run adds to the one that a test submitted, while it runs."""
    run = recorded(name)
    under_way = [as_of(run, moment) for moment in moments(run)] if "state_history" in run_nodes(run)[0] else []
    return [state_alone(state) for state in (*under_way, run)]


def run_nodes(run: dict[str, Any]) -> list[dict[str, Any]]:
    return run["run_details"]["task_details"]  # type: ignore[no-any-return]


def state_alone(run: dict[str, Any]) -> dict[str, Any]:
    return {key: run[key] for key in ("state", "state_history", "created_at", "finished_at", "run_details")}


def test_one_line_per_task_and_change(
    server: KubeflowServer, kubeflow: Kubeflow, run_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.states = states("seeds_promote_failed")
    with caplog.at_level("INFO"), pytest.raises(CheckFailedError):
        follow(kubeflow, run_id, PACE)
    assert caplog.messages == [
        "run: pending",
        "run: running",
        "dataset: pending",
        "dataset: cached",
        "build_label_graph: pending",
        "extract_features: pending",
        "build_label_graph: cached",
        "extract_features: cached",
        "train (seed 1): pending",
        "train (seed 2): pending",
        "train (seed 1): running",
        "train (seed 2): running",
        "train (seed 2): succeeded in 2 min 39 s",
        "train (seed 1): attempt 2 after the pod was lost, pending",
        "train (seed 1): attempt 2 after the pod was lost, running",
        "train (seed 1): attempt 2 after the pod was lost, succeeded in 4 min 27 s",
        "select_model: pending",
        "select_model: running",
        "select_model: succeeded in 20 s",
        "evaluate: pending",
        "evaluate: running",
        "evaluate: succeeded in 21 s",
        "register: pending",
        "register: running",
        "register: succeeded in 37 s",
        "promote: pending",
        "promote: running",
        "promote: failed after 7 min 50 s",
        "record_outcome: pending",
        "record_outcome: running",
        "record_outcome: succeeded in 20 s",
        "run: failed after 15 min 55 s",
    ]


def test_tasks_that_never_ran_are_skipped(
    server: KubeflowServer, kubeflow: Kubeflow, run_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.states = states("task_failed_exit_3")
    with caplog.at_level("INFO"), pytest.raises(CheckFailedError):
        follow(kubeflow, run_id, PACE)
    assert caplog.messages[:3] == [
        "fetch_dataset: failed after 1 min 15 s",
        "dataset: skipped",
        "build_label_graph: skipped",
    ]


class TestFailure:
    POD = "dagnn-brhlq-retry-system-container-impl-3791110383"

    def test_is_told_in_the_words_of_the_task(self, server: KubeflowServer, kubeflow: Kubeflow, run_id: str) -> None:
        server.states = states("task_failed_exit_3")
        server.logs[self.POD] = (
            "time=... level=info msg=capturing logs\n"
            "[fetch_dataset] fetching 12 files\n"
            "[fetch_dataset] BackendError: the store http://s3:8333 cannot be reached; start it\n"
            "[INFO] exit\n"
        )
        with pytest.raises(CheckFailedError) as failure:
            follow(kubeflow, run_id, PACE)
        assert str(failure.value) == (
            f"run {run_id} failed (fetch_dataset: exit status 3: the store http://s3:8333 cannot be reached; start it)"
            f"; `dagnn logs {run_id}` shows the logs"
        )

    def test_without_a_log_names_the_task(self, server: KubeflowServer, kubeflow: Kubeflow, run_id: str) -> None:
        server.states = states("task_failed_exit_3")
        server.page = True
        with pytest.raises(
            CheckFailedError, match=rf"failed \(fetch_dataset\); .*, {server.url}/#/runs/details/{run_id} the run$"
        ):
            follow(kubeflow, run_id, PACE)

    def test_of_a_second_attempt_says_why_there_was_one(
        self, server: KubeflowServer, kubeflow: Kubeflow, run_id: str
    ) -> None:
        server.states = states("retry_killed_after_max_duration")
        server.logs["dagnn-k8pb6-retry-system-container-impl-674146705"] = "[train] epoch 3 of 10\nStep exceeded\n"
        with pytest.raises(
            CheckFailedError, match=r"failed \(train \(attempt 2 after the pod was lost\): epoch 3 of 10\);"
        ):
            follow(kubeflow, run_id, PACE)

    def test_of_drivers(self, server: KubeflowServer, kubeflow: Kubeflow, run_id: str) -> None:
        server.states = states("of_recurring")
        server.logs["dagnnat05165lll8-1-1842530203-system-container-driver-2741962328"] = "no MLMD server\n"
        with pytest.raises(
            CheckFailedError,
            match=r"label_graph \(its driver failed\): no MLMD server, extract_features \(its driver failed\)\);",
        ):
            follow(kubeflow, run_id, PACE)

    def test_before_any_task(self, server: KubeflowServer, kubeflow: Kubeflow, run_id: str) -> None:
        server.states = [{"state": "FAILED", "error": {"code": 5, "message": "no such\nservice account"}}]
        with pytest.raises(CheckFailedError, match=r"failed \(no such service account\);"):
            follow(kubeflow, run_id, PACE)

    def test_a_run_that_was_terminated_is_canceled(
        self, server: KubeflowServer, kubeflow: Kubeflow, run_id: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.states = states("terminated")
        with caplog.at_level("INFO"), pytest.raises(CheckFailedError, match="was canceled during register; "):
            follow(kubeflow, run_id, PACE)
        assert "run: canceling" in caplog.messages
        assert caplog.messages[-1] == "run: canceled after 3 min 35 s"
        assert "register: canceled after 1 min 42 s" in caplog.messages


def test_a_run_that_succeeds(
    server: KubeflowServer, kubeflow: Kubeflow, run_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.states = [{"state": "PENDING"}, *states("succeeded")]
    with caplog.at_level("INFO"):
        run = follow(kubeflow, run_id, PACE)
    assert run.state == "SUCCEEDED"
    assert caplog.messages[0] == "run: pending" and caplog.messages[-1] == "run: succeeded in 4 min 9 s"


def test_a_run_that_is_not_there(kubeflow: Kubeflow) -> None:
    with pytest.raises(InputError, match=r"refuses the request \(404: .*ResourceNotFoundError: Run nothing not found"):
        follow(kubeflow, "nothing", PACE)


def test_a_run_whose_version_was_deleted_numbers_its_seeds(
    server: KubeflowServer, kubeflow: Kubeflow, run_id: str
) -> None:
    server.states = states("loop_small")
    server.versions.clear()
    with pytest.raises(CheckFailedError, match=r"failed \(nap \(seed #0\) "):
        follow(kubeflow, run_id, PACE)


def test_a_server_that_fails_for_a_while(
    server: KubeflowServer, kubeflow: Kubeflow, run_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.states = [{"state": "RUNNING"}, {"state": "SUCCEEDED"}]
    with FaultProxy(server.url, plan=only("error", *range(1, 30), status=503)) as proxy:
        run = follow(replace(kubeflow, host=proxy.url), run_id, PACE._replace(patience=60))
    assert run.state == "SUCCEEDED"
    assert sum("answers 503" in message for message in caplog.messages) == 1


def test_a_server_that_fails_for_too_long(server: KubeflowServer, kubeflow: Kubeflow, run_id: str) -> None:
    with (
        FaultProxy(server.url, plan=only("reset")) as proxy,
        pytest.raises(BackendError, match=rf"; the run may continue, `dagnn follow {run_id}` shows it again"),
    ):
        follow(replace(kubeflow, host=proxy.url), run_id, PACE)


def test_a_token_that_expires(server: KubeflowServer, kubeflow: Kubeflow, run_id: str) -> None:
    server.token = TOKEN
    with pytest.raises(BackendError, match=r"\(401.*; renew them; the run may continue, `dagnn follow"):
        follow(replace(kubeflow, read_token=lambda: "old"), run_id, PACE)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        (
            "seeds_promote_failed",
            ["train (seed 7) succeeded 4 min 27 s attempt 2 after the pod was lost"],
        ),
        ("task_failed_exit_3", ["fetch_dataset failed 1 min 15 s", "train skipped"]),
    ],
)
def test_the_table_has_one_row_per_task(name: str, rows: list[str]) -> None:
    shown = io.StringIO()
    run = read_run(recorded(name), LOOP)
    with RunTable(Console(file=shown, width=120, force_terminal=False)) as table:
        assert table(run) and not table(run)
    lines = [" ".join(line.split()) for line in shown.getvalue().splitlines()]
    assert len(lines) == 3 + len(run.tasks)
    assert set(rows) <= set(lines)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1 min 0 s"), (267, "4 min 27 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds: float, text: str) -> None:
    from datetime import UTC, datetime, timedelta

    start = datetime(2026, 11, 28, tzinfo=UTC)
    assert duration(start, start + timedelta(seconds=seconds)) == text
    assert duration(start, None) == duration(None, start) == ""

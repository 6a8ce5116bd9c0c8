"""`dagnn runs`, `cancel`, `retry` and `schedules`, whole: what they print, change and exit with.

A contract test, not a cluster: see `test_submit`. The runs that end are answers of a real server.
"""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.main import main
from tests.fixtures import forked
from tests.pipeline.conftest import Dagnn
from tests.pipeline.kfp_server import KubeflowServer
from tests.pipeline.recorded import as_of, recorded

pytestmark = pytest.mark.usefixtures("no_cluster")
TOKEN = "token-that-nobody-shall-see"
SCHEDULE = "dagnn at 0 30 2 * * MON-FRI"
BEFORE, ASKED, STOPPED = "2026-11-28T15:59:59Z", "2026-11-28T16:00:30Z", "2026-11-28T16:00:50Z"


KINDS = ("pipelines", "versions", "experiments", "runs", "recurring_runs", "packages")
Submit = Callable[..., None]


@pytest.fixture(scope="module")
def after_submit() -> dict[tuple[str, ...], dict[str, Any]]:
    """Arguments of `dagnn submit` -> what the server has then."""
    return {}


@pytest.fixture
def submit(server: KubeflowServer, dagnn: Dagnn, after_submit: dict[tuple[str, ...], dict[str, Any]]) -> Submit:
    """Bring the server to where `dagnn submit` leaves it, which does so the first time alone."""

    def run(*arguments: str) -> None:
        if arguments not in after_submit:
            assert dagnn("submit", *arguments).status == 0
            after_submit[arguments] = {kind: deepcopy(getattr(server, kind)) for kind in KINDS}
        for kind, entries in deepcopy(after_submit[arguments]).items():
            setattr(server, kind, entries)

    return run


@pytest.fixture
def submitted(server: KubeflowServer, submit: Submit) -> dict[str, Any]:
    """A run of ours, as the server has it; another pipeline has one, too."""
    submit()
    (ours,) = server.runs.values()
    theirs = {**ours, "run_id": "theirs", "pipeline_version_reference": {"pipeline_id": "other"}}
    server.runs["theirs"] = theirs
    return ours


def terminated(server: KubeflowServer, submitted: dict[str, Any], *moments: str) -> str:
    """A run that a user terminated while `register` ran, at some moments; its id."""
    run = recorded("terminated")
    reference = {name: submitted[name] for name in ("pipeline_version_reference", "experiment_id")}
    server.states = [as_of(run, moment) | reference for moment in moments]
    server.runs[run["run_id"]] = dict(server.states[0])
    return str(run["run_id"])


class TestRuns:
    def test_none(self, server: KubeflowServer, dagnn: Dagnn) -> None:
        assert dagnn("runs") == (0, f"no runs at {server.url}\n", "")
        assert dagnn("runs", "--json").out == "[]\n"
        done = dagnn("runs", "--experiment", "none")
        assert done.status == 2 and "has no experiment 'none'; leave --experiment out" in done.error
        dagnn("submit", "--experiment", "other")
        server.runs.clear()
        assert dagnn("runs", "--experiment", "other").out == f"no runs at {server.url} in the experiment other\n"

    def test_newest_first_with_version_and_duration(
        self, server: KubeflowServer, dagnn: Dagnn, submitted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.page = True
        run_id = terminated(server, submitted, "2026-11-28T16:30:00Z")
        archived = {"run_id": "archived", "storage_state": "ARCHIVED"}
        server.runs["archived"] = server.runs[run_id] | archived
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        try:
            lines = dagnn("runs").out.splitlines()
        finally:
            monkeypatch.undo()
            time.tzset()
        (version,) = (version["display_name"] for version in server.versions.values())
        assert lines[0].split() == ["run", "state", "started", "duration", "version"]
        # the other run has waited for longer and longer since the day of the recording
        cells = re.split(r" {2,}", lines[1])
        assert cells == [run_id, "canceled", "2026-11-29 00:57:54 JST", "3 min 35 s", version]
        assert lines[2].startswith(f"{submitted['run_id']}  pending ")
        assert lines[3:] == ["", f"page of a run: {server.url}/#/runs/details/RUN"]

    def test_as_json(self, server: KubeflowServer, dagnn: Dagnn, submitted: dict[str, Any]) -> None:
        run_id = terminated(server, submitted, "2026-11-28T16:30:00Z")
        newest, _ = json.loads(dagnn("runs", "--json").out)
        (version,) = (version["display_name"] for version in server.versions.values())
        assert newest == {
            "run_id": run_id,
            "name": "0.1.0+de41756df7b9.dirty.0dd871a4 2026-11-28 15:57:54",
            "version": version,
            "state": "CANCELED",
            "started": "2026-11-28T15:57:54+00:00",
            "finished": "2026-11-28T16:01:29+00:00",
            "page": "",
        }
        server.versions.clear()
        assert [run["version"] for run in json.loads(dagnn("runs", "--json").out)] == ["", ""]

    def test_limit_and_experiment(self, server: KubeflowServer, dagnn: Dagnn, submitted: dict[str, Any]) -> None:
        for number in range(60):  # more than a page
            name = f"run {number:02}"
            server.runs[name] = {**submitted, "run_id": name, "created_at": f"2026-11-28T13:{number:02}:00Z"}
        server.runs["elsewhere"] = submitted | {"run_id": "elsewhere", "experiment_id": "other"}
        server.experiments["other"] = {"experiment_id": "other", "display_name": "other", "storage_state": "AVAILABLE"}
        ids = [run["run_id"] for run in json.loads(dagnn("runs", "--json", "--limit", "58").out)]
        assert ids == [f"run {number:02}" for number in range(59, 1, -1)]
        assert len(json.loads(dagnn("runs", "--json", "--limit", "100").out)) == 62
        (only,) = json.loads(dagnn("runs", "--json", "--experiment", "other").out)
        assert only["run_id"] == "elsewhere"
        assert dagnn("runs", "--limit", "0").status == 2


class TestCancel:
    def test_says_what_became_of_the_task_under_way(
        self, server: KubeflowServer, dagnn: Dagnn, submitted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pipeline.runs._PAUSE", 0.0)
        run_id = terminated(server, submitted, BEFORE, ASKED, STOPPED)
        done = dagnn("cancel", run_id)
        assert (done.status, done.error) == (0, "")
        assert done.out.splitlines() == [
            "register: canceled after 1 min 42 s",
            f"run {run_id}: ends soon; `dagnn follow {run_id}` shows it",
        ]
        assert server.requests.count("RunService_TerminateRun") == 1

    def test_until_the_run_has_ended(self, server: KubeflowServer, dagnn: Dagnn, submitted: dict[str, Any]) -> None:
        run_id = terminated(server, submitted, BEFORE, "2026-11-28T16:30:00Z")
        assert dagnn("cancel", run_id).out.splitlines()[-1] == f"run {run_id}: canceled"

    def test_before_any_task(self, server: KubeflowServer, dagnn: Dagnn, submitted: dict[str, Any]) -> None:
        done = dagnn("cancel", submitted["run_id"])
        assert done.status == 0 and done.out.startswith("no task was under way\n")
        assert submitted["state"] == "CANCELING"
        assert dagnn("cancel", submitted["run_id"]).status == 0  # it is on its way, and was not asked again
        assert server.requests.count("RunService_TerminateRun") == 1

    def test_a_run_that_has_ended(self, server: KubeflowServer, dagnn: Dagnn, submitted: dict[str, Any]) -> None:
        run_id = terminated(server, submitted, "2026-11-28T16:30:00Z")
        done = dagnn("cancel", run_id)
        assert done == (2, "", f"error: run {run_id} has ended already: canceled; `dagnn runs` lists all runs\n")
        assert "RunService_TerminateRun" not in server.requests

    def test_that_does_not_stop_in_time(
        self, server: KubeflowServer, dagnn: Dagnn, submitted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pipeline.runs._CANCEL_SECONDS", 0.0)
        monkeypatch.setattr("pipeline.runs._PAUSE", 0.0)
        run_id = terminated(server, submitted, BEFORE, ASKED)
        done = dagnn("cancel", run_id)
        assert done.status == 0 and done.out.splitlines()[0] == "register: running"

    def test_ctrl_c_while_it_waits(self, server: KubeflowServer, dagnn: Dagnn, submitted: dict[str, Any]) -> None:
        run_id = terminated(server, submitted, BEFORE, ASKED)
        with forked.start("pipeline.cli.main", "cancel", run_id, "--host", server.url) as process:
            deadline = time.monotonic() + 60
            while server.requests[-1:] != ["PipelineService_GetPipelineVersion"] or (
                "RunService_TerminateRun" not in server.requests
            ):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            done = process.wait()
        assert done.returncode == 130
        assert done.stderr == (
            f"error: interrupted; the server was asked to end the run, `dagnn follow {run_id}` shows how it ends\n"
        )


class TestRetry:
    def test_a_failed_run(self, server: KubeflowServer, dagnn: Dagnn, submitted: dict[str, Any]) -> None:
        submitted["state"] = "FAILED"
        done = dagnn("retry", submitted["run_id"])
        assert done == (0, f"run {submitted['run_id']} runs again\n", "")
        assert submitted["state"] == "RUNNING"

    def test_a_canceled_run(self, server: KubeflowServer, dagnn: Dagnn, submitted: dict[str, Any]) -> None:
        server.page = True
        run_id = terminated(server, submitted, "2026-11-28T16:30:00Z")
        assert dagnn("retry", run_id).out == f"run {run_id} runs again: {server.url}/#/runs/details/{run_id}\n"
        assert "RunService_RetryRun" in server.requests

    def test_wait_follows_it(self, server: KubeflowServer, dagnn: Dagnn, submitted: dict[str, Any]) -> None:
        server.states = [{"state": "FAILED"}, {"state": "SUCCEEDED"}]
        assert dagnn("retry", submitted["run_id"], "--wait").status == 0
        server.states = [{"state": "FAILED"}]
        assert dagnn("retry", submitted["run_id"], "--wait").status == 1

    @pytest.mark.parametrize(
        ("state", "message"),
        [
            ("SUCCEEDED", "has succeeded, nothing is left to retry; `dagnn submit` starts a run"),
            ("RUNNING", "has not ended: running; `dagnn follow"),
        ],
    )
    def test_any_other_run(
        self, server: KubeflowServer, dagnn: Dagnn, submitted: dict[str, Any], state: str, message: str
    ) -> None:
        submitted["state"] = state
        done = dagnn("retry", submitted["run_id"])
        assert done.status == 2 and message in done.error and done.error.count("\n") == 1
        assert "RunService_RetryRun" not in server.requests


class TestSchedules:
    @pytest.fixture
    def schedule(self, server: KubeflowServer, submit: Submit) -> dict[str, Any]:
        submit("--recurring", "30 2 * * MON-FRI")
        (entry,) = server.recurring_runs.values()
        server.recurring_runs["theirs"] = {
            **entry,
            "recurring_run_id": "theirs",
            "pipeline_version_reference": {"pipeline_id": "other"},
        }
        return entry

    def test_none(self, server: KubeflowServer, dagnn: Dagnn) -> None:
        assert dagnn("schedules") == dagnn("schedules", "list") == (0, f"no schedules at {server.url}\n", "")

    def test_list(self, server: KubeflowServer, dagnn: Dagnn, schedule: dict[str, Any]) -> None:
        header, line = dagnn("schedules").out.splitlines()
        (version,) = (version["display_name"] for version in server.versions.values())
        assert header.split("  ")[0] == "schedule"
        assert line == f"{schedule['recurring_run_id']}  enabled  0 30 2 * * MON-FRI  {version}  {SCHEDULE}"
        server.page = True
        last = dagnn("schedules").out.splitlines()[-1]
        assert last == f"page of a schedule: {server.url}/#/recurringrun/details/SCHEDULE"

    def test_pause_and_resume(self, server: KubeflowServer, dagnn: Dagnn, schedule: dict[str, Any]) -> None:
        assert dagnn("schedules", "pause", SCHEDULE) == (0, f"{SCHEDULE}: paused\n", "")
        assert (schedule["mode"], schedule["status"]) == ("DISABLE", "DISABLED")
        assert "  paused  " in dagnn("schedules").out
        assert dagnn("schedules", "resume", schedule["recurring_run_id"]).out == f"{SCHEDULE}: enabled\n"
        assert (schedule["mode"], schedule["status"]) == ("ENABLE", "ENABLED")

    def test_delete(self, server: KubeflowServer, dagnn: Dagnn, schedule: dict[str, Any]) -> None:
        done = dagnn("schedules", "delete", SCHEDULE)
        assert done.status == 2 and done.error.endswith("; add --yes\n") and len(server.recurring_runs) == 2
        assert dagnn("schedules", "delete", SCHEDULE, "--yes") == (0, f"{SCHEDULE}: deleted\n", "")
        assert list(server.recurring_runs) == ["theirs"]

    @pytest.mark.parametrize(("answer", "status", "left"), [("y\n", 0, 1), ("n\n", 1, 2), ("\n", 1, 2)])
    def test_delete_asks_on_a_terminal(
        self, server: KubeflowServer, schedule: dict[str, Any], answer: str, status: int, left: int
    ) -> None:
        ours, theirs = os.openpty()
        os.write(ours, answer.encode())

        def delete() -> None:
            os.dup2(theirs, 0)
            sys.stdin = open(0, closefd=False)  # noqa: SIM115
            sys.argv = ["dagnn", "schedules", "delete", SCHEDULE]
            main()

        done = forked.fork(delete, environment=os.environ | {"KF_PIPELINES_ENDPOINT": server.url}).wait()
        os.close(ours)
        os.close(theirs)
        assert done.returncode == status, done.stderr
        assert f"Delete the schedule '{SCHEDULE}'" in done.stdout + done.stderr
        assert len(server.recurring_runs) == left
        assert status == 0 or done.stderr.endswith("error: nothing was deleted\n")

    def test_what_a_second_submit_offers(self, server: KubeflowServer, dagnn: Dagnn, schedule: dict[str, Any]) -> None:
        done = dagnn("submit", "--recurring", "30 2 * * MON-FRI")
        assert done.status == 2
        command = done.error.split("`")[1].split()
        assert command[0] == "dagnn" and dagnn(*command[1:], "--yes").status == 0
        assert dagnn("submit", "--recurring", "30 2 * * MON-FRI").status == 0

    def test_a_name_that_two_have(self, server: KubeflowServer, dagnn: Dagnn, schedule: dict[str, Any]) -> None:
        server.recurring_runs["second"] = schedule | {"recurring_run_id": "second"}
        done = dagnn("schedules", "pause", SCHEDULE)
        assert done.status == 2 and "2 schedules have the name" in done.error and "second" in done.error
        assert dagnn("schedules", "pause", "second").status == 0
        assert schedule["status"] == "ENABLED" and server.recurring_runs["second"]["status"] == "DISABLED"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("pause", "none"), "there is no schedule 'none', expected a name or an id; `dagnn schedules` lists them"),
            (("pause", "theirs"), "there is no schedule 'theirs'"),
            (("pause",), "`dagnn schedules pause`: expected the name or id of a schedule"),
            (("list", "one"), "`dagnn schedules list`: expected no schedule"),
        ],
    )
    def test_wrong_arguments(
        self, server: KubeflowServer, dagnn: Dagnn, schedule: dict[str, Any], arguments: tuple[str, ...], message: str
    ) -> None:
        done = dagnn("schedules", *arguments)
        assert done.status == 2 and message in done.error and done.error.count("\n") == 1

    def test_as_a_real_server_has_it(self, server: KubeflowServer, dagnn: Dagnn, schedule: dict[str, Any]) -> None:
        file = Path(__file__).parent / "kfp_recorded/recurring_runs.json"
        (entry,) = json.loads(file.read_text(encoding="utf-8"))["recurringRuns"]
        reference = {name: schedule[name] for name in ("pipeline_version_reference", "experiment_id")}
        server.recurring_runs = {entry["recurring_run_id"]: entry | reference}
        del server.recurring_runs[entry["recurring_run_id"]]["namespace"]  # the tests' server has one user
        line = dagnn("schedules").out.splitlines()[1]
        assert line.startswith("7216a108-7403-4812-9554-63ab6995c9ea  paused  0 5 16 * * *  ")
        server.recurring_runs[entry["recurring_run_id"]]["trigger"] = {"periodic_schedule": {"interval_second": "3600"}}
        assert "  paused  every 3600 s  " in dagnn("schedules").out


@pytest.mark.parametrize("command", [("cancel",), ("retry",)])
def test_a_run_that_is_unknown(server: KubeflowServer, dagnn: Dagnn, command: tuple[str, ...]) -> None:
    done = dagnn(*command, "../x y")
    assert done == (2, "", f"error: Kubeflow at {server.url} has no run '../x y'; `dagnn runs` lists them\n")


@pytest.mark.parametrize("command", [("runs",), ("cancel", "a"), ("retry", "a"), ("schedules",)])
class TestServers:
    def test_that_refuse_show_no_token(
        self, server: KubeflowServer, dagnn: Dagnn, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.token, server.cookies = "another", "session=another"
        monkeypatch.setenv("DAGNN_KFP_TOKEN", TOKEN)
        done = dagnn(*command, "--debug")
        assert done.status == 3 and "does not take the token or cookies (302" in done.error
        monkeypatch.setenv("DAGNN_KFP_COOKIES", "session=another")
        done = dagnn(*command, "--debug")
        assert done.status == 3 and "does not take the token or cookies (401" in done.error
        assert TOKEN not in done.out + done.error and "session=another" not in done.out + done.error

    def test_that_cannot_be_reached(self, dagnn: Dagnn, command: tuple[str, ...]) -> None:
        done = dagnn(*command, "--host", "http://127.0.0.1:1")
        assert done.status == 3 and "cannot be reached" in done.error and done.error.count("\n") == 1
        assert dagnn(*command, "--host", "").status == 2

    def test_with_many_users(self, server: KubeflowServer, dagnn: Dagnn, command: tuple[str, ...]) -> None:
        server.multi_user = True
        done = dagnn(*command)
        assert done.status == 2 and "name your namespace with --namespace" in done.error
        done = dagnn(*command, "--namespace", "team")
        assert done.status == 0 if len(command) == 1 else "has no run 'a'" in done.error

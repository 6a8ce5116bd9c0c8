"""`dagnn logs` against the contract server, which answers as a real server was recorded to."""

import pytest

from dagnn_core.errors import BackendError, InputError
from pipeline.follow import Pace
from pipeline.kubeflow.client import Kubeflow
from pipeline.logs import follow_logs, show_logs
from tests.pipeline.kfp_server import KubeflowServer
from tests.pipeline.recorded import as_of, recorded
from tests.pipeline.test_follow import state_alone, states

PACE = Pace(first=0.001, longest=0.001, patience=0.0)
POD = "dagnn-tpdj6-retry-system-container-impl-"
FIRST, SECOND, OTHER = (POD + number for number in ("2566722494", "3036348731", "3901167226"))


@pytest.fixture
def trained(server: KubeflowServer, run_id: str) -> str:
    """A run with two trainings, one of them started again, and the logs of the pods that are left."""
    server.states = states("seeds_promote_failed")[-1:]
    server.logs |= {SECOND: "one\n[train] two\n", OTHER: "other\n"}
    return run_id


def shown(kubeflow: Kubeflow, run_id: str, **options: object) -> list[str]:
    text: list[str] = []
    show_logs(kubeflow, run_id, text.append, **options)  # type: ignore[arg-type]
    return "".join(text).splitlines()


def test_of_a_task_with_two_seeds(kubeflow: Kubeflow, trained: str) -> None:
    header = "==> train (seed 1), attempt 2 of 2 (--attempt shows another)"
    expected = [header, "one", "[train] two", "==> train (seed 2)", "other"]
    assert shown(kubeflow, trained, task="train") == expected
    assert shown(kubeflow, trained, task="train", tail=1) == [header, "[train] two", "==> train (seed 2)", "other"]


def test_of_an_attempt_whose_pod_is_gone(kubeflow: Kubeflow, trained: str, caplog: pytest.LogCaptureFixture) -> None:
    shown(kubeflow, trained, task="train", attempt=1)
    assert caplog.messages == ["the log of train (seed 1) is not there: its pod was deleted, or has not begun"]
    with pytest.raises(InputError, match="there is no attempt 3, expected at most 2; leave out --attempt"):
        shown(kubeflow, trained, task="train", attempt=3)


def test_of_one_task_is_its_log_alone(server: KubeflowServer, kubeflow: Kubeflow, trained: str) -> None:
    pod = "dagnn-tpdj6-system-container-impl-81247259"  # as of a task without retries
    server.logs[pod] = "[promote] InputError: no"
    assert shown(kubeflow, trained, task="promote") == ["[promote] InputError: no"]


def test_of_all_tasks_in_order(kubeflow: Kubeflow, trained: str, caplog: pytest.LogCaptureFixture) -> None:
    headers = [line for line in shown(kubeflow, trained) if line.startswith("==>")]
    assert [header.split()[1].rstrip(",") for header in headers] == [
        *("train", "train", "select_model", "evaluate", "register", "promote", "record_outcome")
    ]
    assert caplog.messages[0] == "dataset has no log: it is cached"


def test_an_unknown_task_names_those_there_are(kubeflow: Kubeflow, trained: str) -> None:
    with pytest.raises(InputError, match=r"has no task 'fit', expected one of dataset, .*, train, .*record_outcome"):
        shown(kubeflow, trained, task="fit")
    with pytest.raises(InputError, match="Run nothing not found"):
        shown(kubeflow, "nothing")


def test_a_task_that_has_not_begun(
    server: KubeflowServer, kubeflow: Kubeflow, run_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert shown(kubeflow, run_id, task="select-model") == []
    assert caplog.messages == ["select-model has not begun"]


def test_following_ends_with_the_task(
    server: KubeflowServer, kubeflow: Kubeflow, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log grows, the pod is lost, the next one writes, and the task ends while the run continues."""
    run = recorded("seeds_promote_failed")
    moments = [f"2026-11-28T{time}Z" for time in ("15:48:09", "15:48:29", "15:50:58", "15:51:48", "15:52:45")]
    real, texts = server.log, {FIRST: ["a\n", "a\nb\n"], SECOND: ["c\n", "c\nd\n"], OTHER: ["x\n"]}

    def log(run_id: str, pod: str) -> str:
        if pod in texts:
            server.logs[pod] = texts[pod].pop(0) if len(texts[pod]) > 1 else texts[pod][0]
        return real(run_id, pod)

    monkeypatch.setattr(server, "log", log)
    server.states = [{"state": "PENDING"}] * 2 + [state_alone(as_of(run, moment)) for moment in moments]
    text: list[str] = []
    follow_logs(kubeflow, run_id, text.append, task="train", pace=PACE)
    assert "".join(text).splitlines() == [
        *("==> train (seed 1)", "a", "==> train (seed 2)", "x", "==> train (seed 1)", "b"),
        *("==> train (seed 1), attempt 2 of 2 (--attempt shows another)", "c", "d"),
    ]


def test_following_a_server_that_is_lost(kubeflow: Kubeflow, server: KubeflowServer, trained: str) -> None:
    def fail(*_: object) -> str:
        from tests.pipeline.kfp_server import Refusal

        raise Refusal(503, "no")

    server.log = fail  # type: ignore[method-assign]
    with pytest.raises(BackendError, match="answers 503"):
        follow_logs(kubeflow, trained, print, task="train", pace=PACE)

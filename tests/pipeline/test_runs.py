"""Tasks, folded from the nodes that a real server listed."""

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kubeflow.runs import Task, fold, state_of, whole_spec
from tests.pipeline.recorded import RUNS, as_of, moments, recorded

SEEDS = ("7", "8")
LOOP = {"root": {"dag": {"tasks": {"for-loop-2": {"parameterIterator": {"items": {"raw": json.dumps(SEEDS)}}}}}}}


def facts(tasks: Sequence[Task]) -> list[str]:
    """Label, state, attempts, duration and reason of each, on one line."""
    lines = []
    for task in tasks:
        seconds = int((task.finished - task.started).total_seconds()) if task.finished and task.started else None
        lines.append(" ".join(map(str, (task.label, task.state, len(task.attempts), seconds, task.reason))).strip())
    return lines


EXPECTED = {
    "succeeded": (
        "SUCCEEDED",
        "dataset SUCCEEDED 1 47",
        "build_label_graph SUCCEEDED 1 10",
        "extract_features SUCCEEDED 1 20",
        "train SUCCEEDED 1 50",
        "evaluate SUCCEEDED 1 21",
        "register SUCCEEDED 1 21",
        "record_outcome SUCCEEDED 1 10",
    ),
    "from_cache_with_mlflow_plugin": (
        "SUCCEEDED",
        "dataset CACHED 0 0",
        "build_label_graph CACHED 0 0",
        "extract_features CACHED 0 0",
        "train SUCCEEDED 1 62",
        "evaluate SUCCEEDED 1 21",
        "register SUCCEEDED 1 20",
        "record_outcome SUCCEEDED 1 10",
    ),
    "seeds_promote_failed": (
        "FAILED",
        "dataset CACHED 0 0",
        "build_label_graph CACHED 0 0",
        "extract_features CACHED 0 0",
        "train (seed 7) SUCCEEDED 2 267 the pod was lost",
        "train (seed 8) SUCCEEDED 1 159",
        "select_model SUCCEEDED 1 20",
        "evaluate SUCCEEDED 1 21",
        "register SUCCEEDED 1 37",
        "promote FAILED 1 470",
        "record_outcome SUCCEEDED 1 20",
    ),
    "promoted_after_fixes": (
        "SUCCEEDED",
        "dataset CACHED 0 0",
        "build_label_graph CACHED 0 0",
        "extract_features CACHED 0 0",
        "train (seed 7) CACHED 0 0",
        "train (seed 8) CACHED 0 0",
        "select_model CACHED 0 0",
        "evaluate CACHED 0 0",
        "register SUCCEEDED 1 20",
        "promote SUCCEEDED 1 37",
        "record_outcome SUCCEEDED 1 10",
    ),
    "retry_killed_after_max_duration": (
        "FAILED",
        "dataset CACHED 0 0",
        "build_label_graph CACHED 0 0",
        "extract_features CACHED 0 0",
        "train FAILED 2 613 the pod was lost",
        "evaluate SKIPPED 0 None",
        "register SKIPPED 0 None",
        "record_outcome SUCCEEDED 1 20",
    ),
    "task_failed_exit_3": (
        "FAILED",
        "fetch_dataset FAILED 1 75",
        "dataset SKIPPED 0 None",
        "build_label_graph SKIPPED 0 None",
        "extract_features SKIPPED 0 None",
        "train SKIPPED 0 None",
        "evaluate SKIPPED 0 None",
        "register SKIPPED 0 None",
        "record_outcome SUCCEEDED 1 21",
    ),
    "terminated": (
        "CANCELED",
        "dataset CACHED 0 0",
        "build_label_graph CACHED 0 0",
        "extract_features CACHED 0 0",
        "train CACHED 0 0",
        "evaluate CACHED 0 0",
        "register CANCELED 1 102",
        "record_outcome SUCCEEDED 1 32",
    ),
    "of_recurring": (
        "FAILED",
        "dataset CACHED 0 0",
        "build_label_graph FAILED 1 10 its driver failed",
        "extract_features FAILED 1 10 its driver failed",
        "train SKIPPED 0 None",
        "evaluate SKIPPED 0 None",
        "register SKIPPED 0 None",
        "record_outcome SUCCEEDED 1 37",
    ),
    "del_small": ("SUCCEEDED", "nap SUCCEEDED 2 167 the pod was lost"),
    "loop_small": ("FAILED", "nap (seed 7) FAILED 2 67 the pod was lost", "nap (seed 8) SUCCEEDED 1 106"),
}


@pytest.mark.parametrize("name", RUNS)
def test_tasks_of_a_recorded_run(name: str) -> None:
    run = recorded(name)
    state, *tasks = EXPECTED[name]
    assert state_of(run) == state
    assert facts(fold(run, LOOP)) == tasks


def test_a_task_in_full() -> None:
    tasks = fold(recorded("seeds_promote_failed"), LOOP)
    (train,) = (task for task in tasks if task.label == "train (seed 7)")
    assert train._replace(attempts=()) == Task(
        name="train",
        seed="7",
        state="SUCCEEDED",
        attempts=(),
        started=datetime(2026, 11, 28, 15, 48, 17, tzinfo=UTC),
        finished=datetime(2026, 11, 28, 15, 52, 44, tzinfo=UTC),
        reason="the pod was lost",
    )
    assert [attempt.pods for attempt in train.attempts] == [
        (f"dagnn-tpdj6-retry-system-container-impl-{number}", f"dagnn-tpdj6-system-container-impl-{number}")
        for number in (2566722494, 3036348731)  # children of an `executor` in the server's answer
    ]


def test_a_failed_driver_has_a_pod() -> None:
    (failed, _) = (task for task in fold(recorded("of_recurring")) if task.state == "FAILED")
    (attempt,) = failed.attempts
    assert attempt.pods[0] == "dagnnat05165lll8-1-1842530203-system-container-driver-2741962328"


def test_a_failed_driver_of_a_group_is_told_as_a_task() -> None:
    """Else no task would say why the run failed."""

    def node_id(name: str) -> str:
        value = 2166136261
        for byte in name.encode():
            value = (value ^ byte) * 16777619 % 2**32
        return f"w-{value}"

    def node(name: str, display: str, *children: str, state: str = "FAILED") -> dict[str, Any]:
        return {"display_name": display, "state": state, "child_tasks": [{"pod_name": node_id(c)} for c in children]}

    nodes = [
        node("w", "w", "w(0)"),
        node("w(0)", "w(0)", "w(0).root-driver"),
        node("w(0).root-driver", "root-driver", "w(0).root-driver(0)"),
        node("w(0).root-driver(0)", "root-driver(0)", "w(0).root"),
        node("w(0).root", "root", state=""),
    ]
    (task,) = fold({"state": "FAILED", "run_details": {"task_details": nodes}})
    assert (task.name, task.state, task.reason) == ("root", "FAILED", "its driver failed")
    (attempt,) = task.attempts
    assert attempt.pods[1] == "w-system-dag-driver-" + node_id("w(0).root-driver(0)").rpartition("-")[2]


def test_an_item_that_is_not_known_has_its_number() -> None:
    assert [task.label for task in fold(recorded("loop_small"))] == ["nap (seed #0)", "nap (seed #1)"]


def test_a_run_without_nodes() -> None:
    assert fold({"run_id": "1"}) == []
    assert fold({"run_id": "1", "run_details": {"task_details": [{"display_name": "dagnn-x"}]}}) == []
    assert state_of({"run_id": "1"}) == "PENDING"


def test_a_run_that_was_retried_after_its_end_was_asked_for() -> None:
    run = recorded("terminated")
    run["state_history"].append({"update_time": "2026-11-28T16:30:00Z", "state": "PENDING"})
    assert state_of(run) == "FAILED"
    assert "register FAILED 1 102" in facts(fold(run))


def test_a_failure_before_the_end_was_asked_for_stays_one() -> None:
    run = recorded("task_failed_exit_3")
    run["state_history"].insert(-1, {"update_time": "2026-11-28T15:58:55Z", "state": "CANCELING"})
    assert state_of(run) == "CANCELED"
    assert "fetch_dataset FAILED 1 75" in facts(fold(run))


@given(name=st.sampled_from(RUNS), seed=st.integers(0, 2**32))
def test_the_order_of_nodes_does_not_matter(name: str, seed: int) -> None:
    run = recorded(name)
    expected = fold(run, LOOP)
    shuffle = random.Random(seed).shuffle
    nodes: list[dict[str, Any]] = run["run_details"]["task_details"]
    shuffle(nodes)
    for node in nodes:
        shuffle(node.get("child_tasks", []))
    assert fold(run, LOOP) == expected


class TestUnderWay:
    """The run with two seeds, as the server showed it while it ran."""

    @pytest.mark.parametrize(
        ("moment", "expected"),
        [
            ("15:47:18", []),
            ("15:47:28", ["dataset PENDING 0 None"]),
            ("15:48:09", ["train (seed 7) PENDING 0 None", "train (seed 8) PENDING 0 None"]),
            ("15:48:19", ["train (seed 7) PENDING 1 None", "train (seed 8) PENDING 1 None"]),
            ("15:48:29", ["train (seed 7) RUNNING 1 None", "train (seed 8) RUNNING 1 None"]),
            ("15:50:58", ["train (seed 7) RUNNING 1 None", "train (seed 8) SUCCEEDED 1 159"]),
            ("15:51:38", ["train (seed 7) PENDING 2 None the pod was lost", "train (seed 8) SUCCEEDED 1 159"]),
            ("15:51:48", ["train (seed 7) RUNNING 2 None the pod was lost", "train (seed 8) SUCCEEDED 1 159"]),
        ],
    )
    def test_at_a_moment(self, moment: str, expected: list[str]) -> None:
        tasks = fold(as_of(recorded("seeds_promote_failed"), f"2026-11-28T{moment}Z"), LOOP)
        assert facts([task for task in tasks if task.state != "CACHED"]) == expected

    @pytest.mark.parametrize("name", ["seeds_promote_failed", "terminated"])
    def test_no_task_goes_back(self, name: str) -> None:
        run = recorded(name)
        order = ["PENDING", "RUNNING", "CACHED", "SUCCEEDED", "FAILED", "CANCELED"]
        seen: dict[str, tuple[int, int]] = {}
        for moment in moments(run):
            for task in fold(as_of(run, moment), LOOP):
                now = (len(task.attempts), order.index(task.state))
                assert now >= seen.get(task.label, (0, 0)), (moment, task)
                seen[task.label] = now
        assert set(seen) == {task.label for task in fold(run, LOOP)}


def test_the_pods_of_tasks_with_labels_have_other_names() -> None:
    """Their workflow's templates count annotations and labels, and a pod's name has that of its template."""
    metadata = {"annotations": {"a": "1"}, "labels": {"b": "2", "c": "3"}}
    platform = {
        "platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-train": {"podMetadata": metadata}}}}}
    }
    run = recorded("succeeded")
    plain, labelled = (
        fold(run, whole_spec({"pipeline_spec": spec}))
        for spec in ({"root": {}}, {"pipeline_spec": {"root": {}}, "platform_spec": platform})
    )
    pods = [pod for task in plain for attempt in task.attempts for pod in attempt.pods]
    renamed = [pod for task in labelled for attempt in task.attempts for pod in attempt.pods]
    assert len(pods) > 10
    for pod, other in zip(pods, renamed, strict=True):
        workflow = "-".join(pod.split("-")[:2])
        assert other == pod.replace(f"{workflow}-", f"{workflow}-metadata-1-2-")

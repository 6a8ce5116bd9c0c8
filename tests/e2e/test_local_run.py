"""The Kubeflow pipeline in local processes: all six tasks, artifacts, a registered version, and failures."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from dagnn_core.artifacts import read_artifact
from tests.fixtures import forked

TASKS = {"dataset", "extract-features", "build-label-graph", "train", "evaluate", "register"}
# the copy's own command line, not the installed one
DAGNN_RUN = ("python", "-c", "from pipeline.cli.main import main; main()", "run")


@pytest.fixture(scope="module")
def finished(make_checkout: Callable[[], Any], empty_database: Path) -> Any:
    checkout = make_checkout()
    checkout.set({"num_scenes": 80}, file="configs/demo_scenes.yaml")
    shutil.copy(empty_database, checkout.root)
    done = forked.run("pipeline.cli.main", "run", cwd=checkout.root, environment=checkout.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    checkout.output = done.stdout
    return checkout


def _run_folder(checkout: Any) -> Path:
    (folder,) = [path for path in (checkout.root / ".dagnn/runs").iterdir() if path.is_dir()]
    return folder


@pytest.mark.slow
def test_every_task_ran(finished: Any) -> None:
    assert {path.name for path in _run_folder(finished).iterdir()} == TASKS
    assert all((_run_folder(finished) / task / "executor_output.json").is_file() for task in TASKS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("dataset", "dataset"),
        ("extract-features", "features"),
        ("build-label-graph", "label_graph"),
        ("train", "model"),
        ("evaluate", "report"),
    ],
)
def test_every_task_left_a_whole_artifact(finished: Any, task: str, kind: str) -> None:
    read_artifact(_run_folder(finished) / task / f"{kind}_out", kind, verify=True)


@pytest.mark.slow
def test_the_report_is_an_html_artifact(finished: Any) -> None:
    page = (_run_folder(finished) / "evaluate/report_html").read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")


@pytest.mark.slow
def test_the_model_is_registered_as_challenger(finished: Any) -> None:
    client = MlflowClient(f"sqlite:///{finished.root / 'mlflow.db'}")
    assert client.get_model_version_by_alias("dagnn", "challenger").version == 1
    assert "version dagnn 1" in finished.output


@pytest.mark.slow
def test_progress_is_shown_and_kfps_own_lines_are_kept_in_a_file(finished: Any) -> None:
    assert "[train] epoch 2 of 2: " in finished.output
    _kfps_own_lines_are_in_a_file_alone(finished, finished.output)


def _kfps_own_lines_are_in_a_file_alone(checkout: Any, output: str) -> None:
    assert "KFP Executor" not in output
    (log,) = (checkout.root / ".dagnn/runs").glob("*.log")
    assert "Got executor_input" in log.read_text(encoding="utf-8")


@pytest.mark.slow
def test_of_several_seeds_the_best_model_is_registered(make_checkout: Callable[[], Any]) -> None:
    checkout = make_checkout()
    output = checkout.run(*DAGNN_RUN, "--seed", "1", "--seed", "2")
    assert output.count("[train] epoch 2 of 2: ") == 2
    models = list(_run_folder(checkout).glob("*/train/model_out"))
    values = [json.loads((model / "val_metrics.json").read_text())["val_map_mean"] for model in models]
    (shown,) = [line.split(maxsplit=1)[1] for line in output.splitlines() if line.startswith("model ")]
    assert Path(shown).parent.name == "select-model"
    taken = read_artifact(checkout.root / shown, "model", verify=True)
    best = read_artifact(models[values.index(max(values))], "model")
    assert (len(models), taken.content_digest) == (2, best.content_digest)
    assert "version dagnn 1" in output


@pytest.mark.slow
def test_features_extracted_in_parts_are_those_of_one_task(finished: Any, make_checkout: Callable[[], Any]) -> None:
    checkout = make_checkout()
    checkout.set({"num_scenes": 80}, file="configs/demo_scenes.yaml")
    checkout.set({"features": {"shards": 3}})
    output = checkout.run(*DAGNN_RUN)
    assert [f"[extract_shard] part {number} of 3: " in output for number in (1, 2, 3)] == [True] * 3
    digests = {
        read_artifact(_run_folder(root) / "extract-features/features_out", "features", verify=True).content_digest
        for root in (finished, checkout)
    }
    assert len(digests) == 1
    assert "version dagnn 1" in output


@pytest.mark.slow
def test_a_seed_named_twice_is_refused_before_any_work(make_checkout: Callable[[], Any]) -> None:
    checkout = make_checkout()
    done = checkout.try_run(*DAGNN_RUN, "--seed", "1", "--seed", "1")
    assert done.returncode == 2
    assert done.stderr == "error: seeds must differ, got 1, 1; leave out what is there twice\n"
    assert not (checkout.root / ".dagnn").exists()


def test_each_task_reads_what_another_made_and_a_failure_is_one_line_with_its_exit_status(
    make_checkout: Callable[[], Any],
) -> None:
    """The chain up to a task that fails: it has found no vectors in the data set that the task before it made."""
    checkout = make_checkout()
    checkout.set({"num_scenes": 80}, file="configs/demo_scenes.yaml")
    checkout.set({"features": {"image": "precomputed"}})
    done = forked.run("pipeline.cli.main", "run", cwd=checkout.root, environment=checkout.environment)
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    made = _run_folder(checkout) / "dataset" / "dataset_out"
    assert line.startswith(f"error: extract_features: {made} has no precomputed image vectors")
    read_artifact(made, "dataset", verify=True)
    assert "[dataset] data set: " in done.stdout
    _kfps_own_lines_are_in_a_file_alone(checkout, done.stdout)


def test_a_server_that_is_not_there_stops_the_run_before_any_work(make_checkout: Callable[[], Any]) -> None:
    checkout = make_checkout()
    checkout.environment["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    done = forked.run("pipeline.cli.main", "run", cwd=checkout.root, environment=checkout.environment)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: MLflow at http://127.0.0.1:9 cannot be used: ")
    assert not (checkout.root / ".dagnn").exists()


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_half_written(make_checkout: Callable[[], Any]) -> None:
    checkout = make_checkout()
    checkout.set({"train": {"epochs": 5000, "patience": 5000}})
    process = checkout.start(*DAGNN_RUN)
    for line in process.stdout:
        if line.startswith("[train] epoch 3 "):
            os.killpg(process.pid, signal.SIGINT)
            break
    process.stdout.read()
    process.stdout.close()
    assert process.wait(timeout=60) == 130
    assert list((_run_folder(checkout) / "train").iterdir()) == []

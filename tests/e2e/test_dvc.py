"""The five stages under DVC: run once, run again only what changed, compare, interrupt."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dagnn_core.artifacts import MADE_BY, read_artifact
from dagnn_core.features.features import SHARD_KIND

pytestmark = pytest.mark.slow

STAGES = ["dataset", "extract_features", "build_label_graph", "train", "evaluate"]


@pytest.fixture(scope="module")
def reproduced(make_checkout: Callable[[], Any]) -> Any:
    checkout = make_checkout()
    checkout.first_output = checkout.run("dvc", "repro")
    checkout.commit()
    return checkout


@pytest.fixture
def checkout(reproduced: Any, tmp_path: Path) -> Any:
    """A copy in which every stage is done."""
    shutil.copytree(reproduced.root, tmp_path / "project", symlinks=True)
    return type(reproduced)(tmp_path / "project")


def _stages_run(output: str) -> list[str]:
    return re.findall(r"^Running stage '(\w+)'", output, flags=re.MULTILINE)


def test_every_stage_runs_once_and_leaves_its_artifact(reproduced: Any) -> None:
    assert sorted(_stages_run(reproduced.first_output)) == sorted(STAGES)
    for kind in MADE_BY.keys() - {SHARD_KIND}:
        assert read_artifact(reproduced.root / "artifacts" / kind, kind, verify=True).provenance["step"] in STAGES


def test_a_second_repro_runs_nothing(checkout: Any) -> None:
    output = checkout.run("dvc", "repro")
    assert _stages_run(output) == []
    assert "Data and pipelines are up to date." in output
    assert checkout.run("git", "status", "--porcelain") == ""


def test_another_learning_rate_runs_train_and_what_follows(checkout: Any) -> None:
    checkout.set({"train": {"lr": 0.002}})
    assert _stages_run(checkout.run("dvc", "repro")) == ["train", "evaluate"]
    changes = json.loads(checkout.run("dvc", "metrics", "diff", "--json"))
    for file in ("artifacts/model/val_metrics.json", "artifacts/report/metrics.json"):
        assert any(entry["diff"] != 0 for entry in changes[file].values()), changes


def test_a_change_touches_only_the_stage_that_it_is_about(checkout: Any) -> None:
    touched = {
        "dataset": {"folder": {"table": "items.csv"}},
        "extract_features": {"text": "tfidf"},
        "build_label_graph": {"threshold": 0.3},
        "train": {"patience": 3},
        "evaluate": {"seed": 1},
        None: {"model_name": "other"},
    }
    section = {"extract_features": "features", "build_label_graph": "label_graph", None: "register"}
    for stage, change in touched.items():
        checkout.run("git", "checkout", "--quiet", "params.yaml")
        checkout.set({section.get(stage, stage): change})
        assert list(json.loads(checkout.run("dvc", "status", "--json"))) == ([stage] if stage else [])


def test_another_raw_data_file_touches_the_data_set(checkout: Any) -> None:
    checkout.set({"num_scenes": 151}, file="configs/demo_scenes.yaml")
    assert list(json.loads(checkout.run("dvc", "status", "--json"))) == ["dataset"]


def test_another_way_of_reading_text_keeps_the_label_graph(checkout: Any) -> None:
    checkout.set({"features": {"text": "tfidf"}})
    assert _stages_run(checkout.run("dvc", "repro")) == ["extract_features", "train", "evaluate"]


def test_metrics_of_validation_and_test_are_shown(checkout: Any) -> None:
    (metrics,) = json.loads(checkout.run("dvc", "metrics", "show", "--json")).values()
    shown = {file: entry["data"] for file, entry in metrics["data"].items()}
    assert 0 < shown["artifacts/report/metrics.json"]["map_i2t"] <= 1
    assert 0 < shown["artifacts/model/val_metrics.json"]["val_map_mean"] <= 1


def test_plots_show_curves_of_training_and_test(checkout: Any) -> None:
    checkout.run("dvc", "plots", "show")
    page = (checkout.root / "dvc_plots/index.html").read_text(encoding="utf-8")
    for text in (
        "Validation MAP",
        "Training loss",
        "Precision and recall on the test split, image to text",
        "model_i2t",
    ):
        assert text in page


def test_wrong_parameter_stops_with_one_line_and_keeps_artifacts(checkout: Any) -> None:
    checkout.set({"features": {"text": "bag"}})
    done = checkout.try_run("dvc", "repro")
    assert done.returncode != 0
    assert "features.text must be one of bow, tfidf, supervised_bow, huggingface, precomputed, or an " in done.stderr
    assert ", got 'bag'; correct it there" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_ctrl_c_in_training_leaves_nothing_half_written_and_repro_goes_on(checkout: Any) -> None:
    checkout.set({"train": {"epochs": 30, "patience": 30, "lr": 0.002}})
    process = checkout.start("dvc", "repro")
    for line in process.stdout:
        if line.startswith("epoch 3 "):
            os.killpg(process.pid, signal.SIGINT)
            break
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait(timeout=60) != 0
    assert "epoch 30 of 30" not in rest
    assert not list((checkout.root / "artifacts").glob(".*.tmp"))
    assert not (checkout.root / "artifacts/model").exists()
    assert _stages_run(checkout.run("dvc", "repro")) == ["train", "evaluate"]
    assert _stages_run(checkout.run("dvc", "repro")) == []

"""Published variants, baselines and incomplete data through the whole chain, as a user would run them."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from dagnn_core.artifacts import read_artifact

pytestmark = pytest.mark.slow


def test_incomplete_data_trains_with_reconstruction_and_is_evaluated(make_checkout: Callable[[], Any]) -> None:
    checkout = make_checkout()
    checkout.set(
        {
            "dataset": {"train_without_image": 0.4, "train_without_text": 0.4},
            "model": {"preset": "tpami22"},
            "train": {"incomplete": "reconstruct", "reconstruct_from": 2, "epochs": 3},
        }
    )
    checkout.run("dvc", "repro")
    modalities = read_artifact(checkout.root / "artifacts/dataset", "dataset").content["modalities"]
    assert modalities["image_only"] == modalities["text_only"] > 0 < modalities["complete"]
    history = [json.loads(line) for line in (checkout.root / "artifacts/model/history.jsonl").read_text().splitlines()]
    assert len(history) == 3 and "loss_soft_contrastive" in history[0] and "loss_modality_invariance" not in history[0]
    metrics = json.loads((checkout.root / "artifacts/report/metrics.json").read_text())
    assert metrics["map_mean"] > 0.5
    assert "Training loss" in (checkout.root / "artifacts/report/report.html").read_text()


def test_kinds_are_experiments_and_rows_of_the_quality_table(make_checkout: Callable[[], Any]) -> None:
    checkout = make_checkout()
    checkout.run("dvc", "repro")
    for kind in ("ridge", "two_tower"):
        checkout.run("dvc", "exp", "run", "--name", kind, "-S", f"model.kind={kind}")
        record = json.loads((checkout.root / "artifacts/model/model.json").read_text())
        assert record["model"]["kind"] == kind
        assert json.loads((checkout.root / "artifacts/report/metrics.json").read_text())["map_mean"] > 0.5
    assert "two_tower" in checkout.run("dvc", "exp", "show", "--csv")

    table = checkout.run("dagnn", "bench", "quality", "configs/quality/ridge.yaml", "configs/quality/cca.yaml")
    assert table == (checkout.root / "artifacts/quality/quality.md").read_text() + "\n"
    assert (
        "| against ridge |" in table
        and json.loads((checkout.root / "artifacts/quality/quality.json").read_text())["split"] == "val"
    )

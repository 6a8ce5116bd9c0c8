"""The quality benchmark: rows compared with the first, mean and spread over seeds, finished trainings kept."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from components.benchmarks import quality
from components.services.tracking.mlflow import Tracking
from components.steps import build_label_graph
from dagnn_core.artifacts import read_artifact
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.errors import InputError
from dagnn_core.features.features import Features
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.reports.evaluation.measure import Evaluation, evaluate
from dagnn_core.retrieval.slices import rare_label_items

SMALL = "model: {embedding_dim: 8, image_to_text_hidden: 8, text_to_image_hidden: 8, hops: 1}\n"


VARIANTS = {
    "slow": SMALL + "train: {epochs: 1, lr: 1e-6}\n",
    "fast": SMALL + "train: {epochs: 8, lr: 3e-3, batch_size: 16}\n",
    "ridge": "model: {kind: ridge}\n",
}


@pytest.fixture
def arguments(
    inputs: dict[str, Path], tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    for name, text in VARIANTS.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return {
        **inputs,
        "variants": [tmp_path / f"{name}.yaml" for name in VARIANTS],
        "seeds": [1, 2],
        "split": "test",
        "tracking": tracking,
        "out": tmp_path / "out",
    }


def cells(table: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    return {row[0]: row[1:] for row in rows}


def test_table_of_variants_and_seeds(arguments: dict[str, Any], tmp_path: Path) -> None:
    table = quality.run(**arguments)
    assert table == (tmp_path / "out/quality.md").read_text()
    record = json.loads((tmp_path / "out/quality.json").read_text())
    runs = {name: result["runs"] for name, result in record["results"].items()}
    assert {name: len(entries) for name, entries in runs.items()} == {"slow": 2, "fast": 2, "ridge": 1, "chance": 1}
    seeds = [entry["map_mean"] for entry in runs["fast"]]
    mean, spread = sum(seeds) / 2, abs(seeds[0] - seeds[1]) / 2**0.5
    assert cells(table)["fast"][0] == f"{mean:.4f} ± {spread:.4f}"
    gain = record["map_mean_minus_reference"]["fast"]
    assert record["reference"] == "slow" and gain["low"] < gain["mean"] < gain["high"]
    assert gain["mean"] == pytest.approx(mean - sum(entry["map_mean"] for entry in runs["slow"]) / 2)
    assert cells(table)["fast"][1].startswith(f"{gain['mean']:+.4f} [")
    assert [cells(table)[name][1] for name in ("slow", "chance")] == ["", ""]
    validation = [
        json.loads((tmp_path / f"out/fast/seed-{seed}/val_metrics.json").read_text())["val_map_mean"] for seed in (1, 2)
    ]
    assert record["results"]["fast"]["val_map_mean"] == pytest.approx(sum(validation) / 2)


def mean_over(evaluation: Evaluation, items: NDArray[np.bool_]) -> float:
    """MAP of both directions over some items as queries."""
    return float(np.mean([np.nanmean(evaluation.average_precision[name][items]) for name in ("i2t", "t2i")]))


def test_the_metrics_are_those_of_the_report(arguments: dict[str, Any], tmp_path: Path) -> None:
    quality.run(**arguments)
    features = Features.read(arguments["features"])
    evaluation = evaluate(TrainedModel.read(tmp_path / "out/fast/seed-1"), features)
    metrics = evaluation.metrics
    results = json.loads((tmp_path / "out/quality.json").read_text())["results"]
    found = results["fast"]["runs"][0]
    rows = features.pairs("test")
    rare = rare_label_items(features.labels[rows], features.labels[features.rows("train")].sum(axis=0), 0.25)
    assert 0 < rare.sum() < len(rows)
    assert found.pop("rare_map_mean") == pytest.approx(mean_over(evaluation, rare), abs=1e-12)
    for name, value in found.items():
        assert metrics[name] == pytest.approx(value, abs=1e-12)
    assert metrics["chance_map_mean"] == pytest.approx(results["chance"]["runs"][0]["map_mean"], abs=1e-12)


def test_val_is_scored_while_anything_is_to_be_chosen(arguments: dict[str, Any], tmp_path: Path) -> None:
    table = quality.run(**arguments | {"split": "val"})
    record = json.loads((tmp_path / "out/quality.json").read_text())
    assert record["split"] == "val"
    assert table.splitlines()[0].count("val mean MAP") == 1
    for result in record["results"].values():
        if result["val_map_mean"] is not None:
            mean = sum(entry["map_mean"] for entry in result["runs"]) / len(result["runs"])
            assert mean == pytest.approx(result["val_map_mean"], abs=1e-6)


@pytest.mark.slow
def test_finished_trainings_are_kept(
    arguments: dict[str, Any], inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = quality.run(**arguments)
    other_graph = tmp_path / "other_graph"
    build_label_graph.run(
        dataset=inputs["features"].parent / "dataset",
        params=LabelGraphConfig(threshold=0.9),
        label_graph_out=other_graph,
    )

    def train_again(**_: object) -> None:
        raise InterruptedError("trains again")

    with monkeypatch.context() as patch:
        patch.setattr(quality.train, "run", train_again)
        assert quality.run(**arguments) == table
        with pytest.raises(InterruptedError, match="trains again"):
            quality.run(**arguments | {"label_graph": other_graph})

    kept = read_artifact(tmp_path / "out/fast/seed-1", "model").provenance["mlflow_run_id"]
    shutil.rmtree(tmp_path / "out/fast/seed-2")
    assert quality.run(**arguments) == table
    assert read_artifact(tmp_path / "out/fast/seed-1", "model").provenance["mlflow_run_id"] == kept


def test_two_variants_of_one_name_are_refused(arguments: dict[str, Any], tmp_path: Path) -> None:
    other = tmp_path / "other" / "fast.yaml"
    other.parent.mkdir()
    shutil.copy(tmp_path / "fast.yaml", other)
    with pytest.raises(InputError, match="2 variants have 1 names, expected a name each; rename the files"):
        quality.run(**arguments | {"variants": [tmp_path / "fast.yaml", other]})

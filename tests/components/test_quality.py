"""The quality benchmark: rows beside baselines, mean and spread over seeds, finished trainings kept."""

import json
import shutil
from pathlib import Path

import pytest

from components import build_label_graph
from components.benchmarks import quality
from components.services.tracking import Tracking
from dagnn_core.artifacts import read_artifact
from dagnn_core.config import LabelGraphConfig

SMALL = "model: {embedding_dim: 8, image_to_text_hidden: 8, text_to_image_hidden: 8, hops: 1}\n"


def test_table_of_variants_and_seeds(
    inputs: dict[str, Path], tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slow.yaml").write_text(SMALL + "train: {epochs: 1, lr: 1e-6}\n")
    (tmp_path / "fast.yaml").write_text(SMALL + "train: {epochs: 8, lr: 3e-3, batch_size: 16}\n")
    arguments = {
        **inputs,
        "variants": [tmp_path / "slow.yaml", tmp_path / "fast.yaml"],
        "seeds": [1, 2],
        "tracking": tracking,
        "out": tmp_path / "out",
    }
    table = quality.run(**arguments)  # type: ignore[arg-type]
    assert table == (tmp_path / "out/quality.md").read_text()
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["chance", "CCA", "slow", "fast"]
    results = json.loads((tmp_path / "out/quality.json").read_text())["results"]
    assert [len(results[row]) for row in ("chance", "CCA", "slow", "fast")] == [1, 1, 2, 2]
    best = [sum(run["map_mean"] for run in results[row]) for row in ("slow", "fast")]
    assert best[1] > best[0]
    seeds = [run["map_i2t"] for run in results["fast"]]
    mean = sum(seeds) / 2
    spread = abs(seeds[0] - seeds[1]) / 2**0.5
    assert f"| {mean:.3f} ± {spread:.3f} |" in table.splitlines()[-1]

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
        assert quality.run(**arguments) == table  # type: ignore[arg-type]
        with pytest.raises(InterruptedError, match="trains again"):
            quality.run(**arguments | {"label_graph": other_graph})  # type: ignore[arg-type]

    kept = read_artifact(tmp_path / "out/fast/seed-1", "model").provenance["mlflow_run_id"]
    shutil.rmtree(tmp_path / "out/fast/seed-2")
    assert quality.run(**arguments) == table  # type: ignore[arg-type]
    assert read_artifact(tmp_path / "out/fast/seed-1", "model").provenance["mlflow_run_id"] == kept

"""What a version must name of its lineage."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.services.promotion.evidence import _origin
from dagnn_core.artifacts import Artifact, read_artifact, write_artifact


def trained(folder: Path, params: dict[str, Any]) -> Artifact:
    record = {
        "step": "train",
        "params": params,
        "ancestors": {kind: f"digest of {kind}" for kind in ("dataset", "features", "label_graph")},
        "git": {"commit": "c0ffee", "dirty": False},
    }
    with write_artifact(folder, kind="model", provenance=record):
        pass
    return read_artifact(folder, "model")


def missing(model: Artifact) -> list[str]:
    tags = {f"{kind}_digest": f"digest of {kind}" for kind in ("dataset", "features", "label_graph", "report")}
    tags |= {"model_digest": model.content_digest, "git_commit": "c0ffee", "mlflow_run_id": "run"}
    version: Any = SimpleNamespace(tags=tags, run_id="run")
    return list(_origin(version, model, "c0ffee").missing)


@pytest.mark.parametrize("names", [("model", "train"), ("ModelConfig", "TrainConfig")], ids=["present", "before"])
def test_parameters_are_found_by_the_names_of_their_sections(tmp_path: Path, names: tuple[str, str]) -> None:
    assert missing(trained(tmp_path / "model", {name: {} for name in names})) == []


def test_parameters_that_are_not_recorded_are_missing(tmp_path: Path) -> None:
    assert missing(trained(tmp_path / "model", {"model": {}})) == ["train"]

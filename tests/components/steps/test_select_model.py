"""Step `select_model`: the best of several models, as it is."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.steps.select_model import run
from dagnn_core.artifacts import read_artifact, write_artifact
from dagnn_core.errors import ArtifactError, InputError


def make_model(path: Path, value: float) -> Path:
    with write_artifact(path, kind="model", provenance={"mlflow_run_id": f"run of {path.name}"}) as draft:
        (draft.path / "val_metrics.json").write_text(json.dumps({"val_map_mean": value, "val_map_i2t": 1 - value}))
        (draft.path / "weights").write_text(path.name)
    return path


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=5))
def test_the_first_of_the_best_is_taken(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    root = tmp_path_factory.mktemp("models")
    models = [make_model(root / str(number), value) for number, value in enumerate(values)]
    run(models=models, model_out=root / "out")
    best = read_artifact(models[values.index(max(values))], "model")
    taken = read_artifact(root / "out", "model", verify=True)
    assert (taken.content_digest, taken.provenance) == (best.content_digest, best.provenance)
    assert not list(root.glob(".*"))


def test_a_damaged_model_is_named(tmp_path: Path) -> None:
    models = [make_model(tmp_path / name, 0.5) for name in ("a", "b")]
    (models[1] / "weights").write_text("c")
    with pytest.raises(ArtifactError, match=r"b/weights does not have the checksum of its manifest"):
        run(models=models, model_out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_there_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no model to select from"):
        run(models=[], model_out=tmp_path / "out")

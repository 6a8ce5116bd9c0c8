"""Step `compare`: real models on real test splits, and a run that keeps what was measured."""

import json
import logging
from dataclasses import asdict
from pathlib import Path

import pytest

from components.services.registry.versions import CHAMPION
from components.steps.compare import run
from dagnn_core.artifacts import read_artifact
from dagnn_core.config.register import RegisterConfig
from dagnn_core.errors import InputError


def test_both_models_are_measured_on_both_test_splits(scenes, tmp_path, caplog):
    version = scenes.register("compared", "good")
    params = RegisterConfig(model_name="compared")
    tracking, model = scenes.tracking, scenes.models["weak"]
    with pytest.raises(InputError, match=r"compared"):  # there is no champion
        run(
            dataset=scenes.datasets["leaky"],
            model=model,
            champion_dataset=scenes.datasets["scenes"],
            params=params,
            tracking=tracking,
        )
    tracking.client.set_registered_model_alias("compared", CHAMPION, version)
    with caplog.at_level(logging.INFO, "components.steps.compare"):
        new, old = run(
            dataset=scenes.datasets["leaky"],
            model=model,
            champion_dataset=scenes.datasets["scenes"],
            params=params,
            tracking=tracking,
        )
    assert (new.data, old.data) == ("new data", "champion's data")
    assert old.champion["map_mean"] == pytest.approx(float(scenes.version("good").tags["map_mean"]), abs=1e-6)
    assert old.challenger["map_mean"] == pytest.approx(float(scenes.version("weak").tags["map_mean"]), abs=1e-6)
    assert f"champion's data, 61 items: mean MAP of the challenger {old.challenger['map_mean']:.4f}, of" in caplog.text
    run_id = read_artifact(model, "model").provenance["mlflow_run_id"]
    kept = Path(tracking.client.download_artifacts(run_id, "comparison/comparison.json", str(tmp_path)))
    assert json.loads(kept.read_text()) == [asdict(entry) for entry in (new, old)]

    with caplog.at_level(logging.WARNING):  # the data of a version that was champion when the run began
        (alone,) = run(
            dataset=scenes.datasets["leaky"],
            model=model,
            champion_dataset=scenes.datasets["leaky"],
            params=params,
            tracking=tracking,
        )
    assert alone == new and "another version is champion by now" in caplog.text

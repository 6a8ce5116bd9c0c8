"""Tasks whose artifacts lie in a store: what each records of where, and what stays as it is."""

from pathlib import Path

import pytest
from kfp.dsl import Artifact, Dataset, Metrics, Model

from components.services.tracking.mlflow import Tracking
from dagnn_core.artifacts import read_artifact
from dagnn_core.config.dataset import DatasetConfig
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import section_json
from dagnn_core.config.train import TrainConfig
from pipeline import steps

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("same_logging")]
STORE = "s3://runs/v2/artifacts/dagnn/run-7"


def train_in(folder: Path, store: str, tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> dict[str, Artifact]:
    """Run the tasks up to the training, with artifacts in a folder, as if they were in a store."""

    def artifact(kind: str, cls: type[Artifact] = Artifact) -> Artifact:
        made = cls(uri=f"{store}/{kind}_out" if store else str(folder / kind))
        made.custom_path = str(folder / kind)
        return made

    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    folder.mkdir()
    raw, data, features, graph, model = (
        artifact("raw"),
        artifact("dataset", Dataset),
        artifact("features"),
        artifact("label_graph"),
        artifact("model", Model),
    )
    Path(raw.path).write_text("{num_scenes: 150, width: 96, height: 96}")
    demo = DatasetConfig(min_label_count=2)
    steps.dataset(params=section_json(demo), work=str(folder / "work"), dataset_out=data, raw=raw)
    params = section_json(FeaturesConfig(image="classic", min_word_count=1))
    steps.extract_features(dataset=data, params=params, cache=str(folder / "cache"), features_out=features)
    steps.build_label_graph(dataset=data, params=section_json(LabelGraphConfig()), label_graph_out=graph)
    steps.train(
        features=features,
        label_graph=graph,
        model_params=section_json(ModelConfig(kind="ridge", embedding_dim=8)),
        params=section_json(TrainConfig()),
        seed="",
        work=str(folder / "work"),
        checkpoints_uri="",
        model_out=model,
        val_metrics=Metrics(),
    )
    return {"dataset": data, "features": features, "label_graph": graph, "model": model}


def test_uris_are_recorded_apart_from_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db")
    stored = train_in(tmp_path / "stored", STORE, tracking, monkeypatch)
    local = train_in(tmp_path / "local", "", tracking, monkeypatch)
    model = read_artifact(Path(stored["model"].path), "model", verify=True)
    kinds = ("raw", "dataset", "features", "label_graph", "model")
    assert model.provenance["uris"] == {kind: f"{STORE}/{kind}_out" for kind in kinds}
    for kind, artifact in local.items():
        same, other = read_artifact(Path(artifact.path), kind), read_artifact(Path(stored[kind].path), kind)
        assert same.content_digest == other.content_digest
        assert "uris" not in same.provenance

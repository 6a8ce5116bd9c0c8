"""A small collection of rendered scenes, two models of it, and an index."""

from pathlib import Path
from typing import NamedTuple

import pytest

from components.services.tracking.mlflow import Tracking
from components.steps import build_label_graph, dataset, extract_features, train
from dagnn_core.config.dataset import DatasetConfig
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import parse_section
from dagnn_core.config.train import TrainConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.search.build import Options, build_index
from dagnn_core.search.sources import DatasetSource
from tests.fixtures.shared import made_once

OPTIONS = Options()


class Collection(NamedTuple):
    dataset: Path
    best: Path
    """Ranks by calibrated label probabilities."""
    hybrid: Path
    """Ranks by label probabilities, embeddings and CCA's variates."""
    ridge: Path
    """Has no label probabilities."""
    index: Path
    """Of the whole data set, by `best`."""


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    root = made_once(tmp_path_factory, "collection", _make_collection)
    return Collection(root / "dataset", root / "best", root / "ridge", root / "index")


def _make_collection(root: Path) -> None:
    (root / "spec.yaml").write_text("{num_scenes: 90, width: 96, height: 96}")
    made = Collection(root / "dataset", root / "best", root / "hybrid", root / "ridge", root / "index")
    demo = DatasetConfig(source=str(root / "spec.yaml"), test_fraction=0.3, min_label_count=2)
    dataset.run(params=demo, work=root / "work", dataset_out=made.dataset)
    extract_features.run(
        dataset=made.dataset,
        params=FeaturesConfig(image="classic", min_word_count=1),
        cache=root / "cache",
        features_out=root / "features",
    )
    build_label_graph.run(dataset=made.dataset, params=LabelGraphConfig(), label_graph_out=root / "label_graph")
    best = {"preset": "best", "embedding_dim": 16}
    for path, values in (
        (made.best, best),
        (made.hybrid, best | {"ranking": "hybrid"}),
        (made.ridge, {"kind": "ridge"}),
    ):
        train.run(
            features=root / "features",
            label_graph=root / "label_graph",
            model_params=parse_section(ModelConfig, values, "model"),
            params=TrainConfig(epochs=2),
            tracking=Tracking(uri=f"sqlite:///{root}/mlflow.db"),
            work=root / "work",
            model_out=path,
        )
    source = DatasetSource(Dataset.read(made.dataset))
    build_index(made.index, TrainedModel.read(made.best), source, work=root / "shards", options=OPTIONS, provenance={})

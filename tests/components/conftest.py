import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import pytest

from components.services.registry.versions import CHALLENGER
from components.services.tracking.mlflow import Tracking
from components.steps import build_label_graph, dataset, evaluate, extract_features, register, train
from dagnn_core.artifacts import read_artifact, write_artifact
from dagnn_core.config.dataset import DatasetConfig
from dagnn_core.config.evaluate import EvaluateConfig
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.register import RegisterConfig
from dagnn_core.config.train import TrainConfig
from dagnn_core.data.dataset import Dataset, Item
from dagnn_core.data.ingest.writer import DatasetWriter
from tests.fixtures.shared import made_once

LABELS = ("boat", "night", "sea", "tree")
_SAID_BY_THE_STEP = {"layout": "folder", "num_rows": 90, "dropped_labels": {}}  # beside what the writer says


@pytest.fixture
def tracking(make_tracking) -> Tracking:
    """Tracking in a database of its own."""
    return make_tracking()


def _store_version(
    tracking: Tracking, folder: Path, name: str, tags: dict[str, str], provenance: dict[str, object]
) -> str:
    """Store a model of two short files as `dagnn register` stores a real one, and make it challenger."""
    folder.mkdir()
    weights = f"weights of {folder}"
    with write_artifact(folder / "artifacts" / "model", kind="model", provenance=provenance) as draft:
        (draft.path / "parts").mkdir()
        (draft.path / "parts" / "weights.txt").write_text(weights)
        (draft.path / "config.json").write_text("{}")
    (folder / "MLmodel").write_text("flavors: {python_function: {artifacts: {model: {path: artifacts/model}}}}")
    client = tracking.client
    with tracking.training_run(params={}, ancestors={}, git={"commit": "c0ffee", "dirty": False}) as run:
        logged = client.create_logged_model(client.get_run(run.run_id).info.experiment_id, source_run_id=run.run_id)
        client.log_model_artifacts(logged.model_id, str(folder))
    if not client.search_registered_models(filter_string=f"name = '{name}'"):
        client.create_registered_model(name)
    digest = read_artifact(folder / "artifacts" / "model", "model").content_digest
    version = client.create_model_version(
        name,
        source=logged.artifact_location,
        run_id=run.run_id,
        model_id=logged.model_id,
        tags={"dataset_digest": "d" * 64, "model_digest": digest, "mlflow_model_id": logged.model_id} | tags,
    ).version
    client.set_registered_model_alias(name, CHALLENGER, version)
    return str(version)


@pytest.fixture
def store_version(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Add a whole version with these tags and this provenance to a registered model, and make it challenger."""

    def store(
        tracking: Tracking, name: str = "dagnn", *, provenance: dict[str, object] | None = None, **tags: str
    ) -> str:
        return _store_version(tracking, tmp_path_factory.mktemp("stored") / "model", name, tags, provenance or {})

    return store


@pytest.fixture
def files_of() -> Callable[[Tracking, str], Path]:
    """Find the folder of a version's files, beside a local database."""

    def find(tracking: Tracking, version: str) -> Path:
        return Path(unquote(tracking.client.get_model_version("dagnn", version).source.removeprefix("file://")))

    return find


def write_dataset(out: Path, seed: int, *, incomplete: bool = False) -> Path:
    rng = np.random.default_rng(seed)
    patterns = rng.normal(size=(len(LABELS), 10))
    with write_artifact(out, kind="dataset", provenance={"ancestors": {}}) as draft:
        with DatasetWriter(draft.path, LABELS) as writer:
            vectors = []
            for number in range(90):
                has = rng.random(len(LABELS)) < 0.5
                has[rng.integers(len(LABELS))] = True
                labels = [name for name, present in zip(LABELS, has, strict=True) if present]
                split = ("train", "train", "train", "val", "test")[number % 5]
                # of five training items that are told apart here, one is complete, two lack the image, two the text
                kind = number // 5 % 5 if incomplete and split == "train" else 0
                text = "" if kind in (3, 4) else "a " + " and a ".join(labels)
                has_both = (kind not in (1, 2), kind not in (3, 4))
                writer.add(Item(f"item-{number}", text, labels, None, "", split, *has_both))
                vectors.append(has @ patterns + 0.1 * rng.normal(size=10))
            writer.write_rejected([])
            writer.write_vectors("image", np.array(vectors, dtype=np.float32), range(len(vectors)))
        draft.content = writer.content | _SAID_BY_THE_STEP
    return out


def _prepare(root: Path, seed: int, *, incomplete: bool = False) -> dict[str, Path]:
    dataset = write_dataset(root / "dataset", seed, incomplete=incomplete)
    paths = {"features": root / "features", "label_graph": root / "label_graph"}
    extract_features.run(
        dataset=dataset,
        params=FeaturesConfig(image="precomputed", min_word_count=1),
        cache=root / "cache",
        features_out=paths["features"],
    )
    build_label_graph.run(dataset=dataset, params=LabelGraphConfig(threshold=0.3), label_graph_out=paths["label_graph"])
    return paths


@pytest.fixture(scope="session")
def prepare() -> Callable[[Path, int], dict[str, Path]]:
    """Make features (precomputed image vectors, bag of words) and a label graph of a small data set, by seed."""
    return _prepare


@pytest.fixture(scope="session")
def prepare_incomplete() -> Callable[[Path], dict[str, Path]]:
    """The same, where most training items lack their image or their text."""
    return lambda root: _prepare(root, 0, incomplete=True)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What a training reads: `features` and `label_graph`."""
    return _prepare(tmp_path_factory.mktemp("inputs"), 0)


class Scenes(NamedTuple):
    """Small real models in a registry, each a version of its own name."""

    tracking: Tracking
    datasets: Mapping[str, Path]
    models: Mapping[str, Path]

    def version(self, model: str) -> Any:
        """The version that holds a model."""
        return self.tracking.client.get_model_version(model, "1")

    def files(self, model: str) -> Path:
        """Where its files lie."""
        return Path(unquote(self.version(model).source.removeprefix("file://")))

    def register(self, name: str, model: str, *, source: Path | None = None, **tags: str | None) -> str:
        """Make a model a version of another name, with alias challenger.

        Its files may be another folder; a description is taken from the tags; tags that are None are left out.
        """
        client, known = self.tracking.client, self.version(model)
        if not client.search_registered_models(filter_string=f"name = '{name}'"):
            client.create_registered_model(name)
        description = tags.pop("description", known.description)
        kept = {tag: value for tag, value in (known.tags | tags).items() if value is not None}
        version = client.create_model_version(
            name,
            source=source.as_uri() if source else known.source,
            run_id=known.run_id,
            tags=kept,
            description=description,
        ).version
        client.set_registered_model_alias(name, CHALLENGER, version)
        return str(version)


def _leaky(scenes: Path, out: Path) -> None:
    """A data set whose test images are those of the training split."""
    source = Dataset.read(scenes)
    training = iter(source.images(source.rows("train").tolist()))
    images = source.images(range(len(source)))
    with write_artifact(out, kind="dataset", provenance={"ancestors": {}}) as draft:
        with DatasetWriter(draft.path, source.label_names) as writer:
            for row, (item, text, split) in enumerate(zip(source.ids, source.texts, source.splits, strict=True)):
                labels = [source.label_names[label] for label in np.flatnonzero(source.labels[row])]
                image = next(training) if split == "test" else images[row]
                writer.add(Item(item, text, labels, image, f"{item}.png", split))
            writer.write_rejected([])
        draft.content = writer.content | _SAID_BY_THE_STEP


def _train_and_register(root: Path, data: Path, tracking: Tracking, *, name: str, kind: str, image: str) -> None:
    made = {kind: root / kind for kind in ("model", "report")}
    made |= {kind: root.parent / f"{kind}_of_{data.name}" for kind in ("features", "label_graph")}
    if not made["features"].exists():
        features = FeaturesConfig(image=image, min_word_count=1)
        extract_features.run(dataset=data, params=features, cache=root.parent / "cache", features_out=made["features"])
        build_label_graph.run(dataset=data, params=LabelGraphConfig(), label_graph_out=made["label_graph"])
    train.run(
        features=made["features"],
        label_graph=made["label_graph"],
        model_params=ModelConfig(kind=kind, embedding_dim=8),
        params=TrainConfig(),
        tracking=tracking,
        work=root / "work",
        model_out=made["model"],
    )
    evaluate.run(
        dataset=data,
        features=made["features"],
        model=made["model"],
        params=EvaluateConfig(num_queries=1, num_retrieved=1),
        tracking=tracking,
        report_out=made["report"],
    )
    params = RegisterConfig(model_name=name, data_licence="no rights reserved")
    register.run(model=made["model"], report=made["report"], params=params, tracking=tracking)


@pytest.fixture(scope="session")
def scenes(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    """Models `good` and `weak` of rendered scenes, and `vectors` of precomputed ones; data with a leak, `leaky`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGNN_GIT_COMMIT", "c0ffee" * 6 + "c0de")  # committed, whatever the state of this checkout
        root = made_once(tmp_path_factory, "scenes", lambda folder: _make_scenes(empty_database, folder))
    database = shutil.copy(root / "mlflow.db", tmp_path_factory.mktemp("scenes"))
    datasets = {name: root / name for name in ("scenes", "leaky", "vectors")}
    models = {name: root / "models" / name / "model" for name in MODELS}
    return Scenes(Tracking(uri=f"sqlite:///{database}"), datasets, models)


MODELS = {
    "good": ("scenes", "ridge", "classic"),
    "weak": ("scenes", "cca", "classic"),
    "vectors": ("vectors", "ridge", "precomputed"),
}
"""Name -> data set, kind and image encoder."""


def _make_scenes(empty_database: Path, root: Path) -> None:
    shutil.copy(empty_database, root / "mlflow.db")
    tracking = Tracking(uri=f"sqlite:///{root}/mlflow.db")
    (root / "spec.yaml").write_text("{num_scenes: 150, width: 96, height: 96}")
    demo = DatasetConfig(source=str(root / "spec.yaml"), test_fraction=0.4, min_label_count=2)
    dataset.run(params=demo, work=root / "work", dataset_out=root / "scenes")
    _leaky(root / "scenes", root / "leaky")
    write_dataset(root / "vectors", 0)
    for name, (data, kind, image) in MODELS.items():
        folder = root / "models" / name
        _train_and_register(folder, root / data, tracking, name=name, kind=kind, image=image)

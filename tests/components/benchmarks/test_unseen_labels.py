"""Unseen labels and pretrained features, from raw data to the report and the table of the benchmark."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.benchmarks import quality
from components.services.tracking.mlflow import Tracking
from components.steps import build_label_graph, dataset, evaluate, extract_features, train
from dagnn_core.config.dataset import DatasetConfig, FolderConfig
from dagnn_core.config.evaluate import EvaluateConfig
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.train import TrainConfig
from dagnn_core.errors import InputError
from dagnn_core.features.features import Features
from dagnn_core.label_graph.label_graph import LabelGraph
from dagnn_core.model.files import TrainedNetwork
from dagnn_core.model.generated import embed_with_generated
from dagnn_core.retrieval.metrics import evaluate_retrieval

NAMES = ("boat", "car", "night", "red", "sea", "tree")
UNSEEN = ("red", "tree")
NUM_ITEMS, DIM = 200, 8


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with vectors of both modalities, of one dimension, that show all six labels."""
    folder = tmp_path_factory.mktemp("unseen")
    rng = np.random.default_rng(0)
    labels = rng.random((NUM_ITEMS, len(NAMES))) < 0.25
    labels[~labels.any(axis=1), 0] = True
    directions = rng.normal(size=(len(NAMES), DIM))
    ids = [f"i{number}" for number in range(NUM_ITEMS)]
    for name in ("image", "text"):
        features = (labels @ directions + 0.5 * rng.normal(size=(NUM_ITEMS, DIM))).astype(np.float32)
        np.savez(folder / f"{name}.npz", ids=ids, features=features)
    carried = [np.array(NAMES)[of_item] for of_item in labels]
    rows = [f"{item_id},{' '.join(of_item)},{'|'.join(of_item)}" for item_id, of_item in zip(ids, carried, strict=True)]
    (folder / "table.csv").write_text("\n".join(["id,text,labels", *rows]) + "\n")
    vectors = {"image_vectors": "image.npz", "text_vectors": "text.npz"}
    params = DatasetConfig(
        layout="folder",
        source=str(folder),
        test_fraction=0.4,
        unseen_labels=UNSEEN,
        folder=FolderConfig(table="table.csv", **vectors),
    )
    dataset.run(params=params, work=folder / "work", dataset_out=folder / "dataset")
    precomputed = FeaturesConfig(image="precomputed", text="precomputed")
    extract_features.run(
        dataset=folder / "dataset", params=precomputed, cache=folder / "cache", features_out=folder / "features"
    )
    np.savez(folder / "vectors.npz", names=NAMES, vectors=directions)
    params_of_graph = LabelGraphConfig(embedding="file", embedding_file=str(folder / "vectors.npz"))
    build_label_graph.run(dataset=folder / "dataset", params=params_of_graph, label_graph_out=folder / "label_graph")
    return folder


def unseen_metrics(features: Features, model: TrainedNetwork) -> dict[str, float]:
    rows = features.pairs("test")
    image, text = model.embed_image_features(features.image[rows]), model.embed_text_features(features.text[rows])
    return evaluate_retrieval(image, text, features.unseen_labels[rows])


def test_the_report_has_unseen_labels_and_pretrained_features_beside_the_model(
    prepared: Path, tracking: Tracking, tmp_path: Path
) -> None:
    inputs = {"features": prepared / "features", "model": tmp_path / "model"}
    train.run(
        features=inputs["features"],
        label_graph=prepared / "label_graph",
        model_params=ModelConfig(kind="ridge"),
        params=TrainConfig(),
        tracking=tracking,
        work=tmp_path / "work",
        model_out=inputs["model"],
    )
    out = tmp_path / "report"
    params = EvaluateConfig(num_queries=2)
    evaluate.run(dataset=prepared / "dataset", **inputs, params=params, tracking=tracking, report_out=out)
    metrics = json.loads((out / "metrics.json").read_text())
    features = Features.read(inputs["features"])
    expected = unseen_metrics(features, TrainedNetwork.read(inputs["model"]))
    for name in ("map_i2t", "map_t2i", "map_mean", "ndcg_i2t", "ndcg_t2i", "num_queries"):
        assert metrics[f"unseen_{name}"] == expected[name]
    rows = features.pairs("test")
    as_they_are = features.image[rows], features.text[rows]
    assert metrics["pretrained_map_mean"] == evaluate_retrieval(*as_they_are, features.labels[rows])["map_mean"]
    unseen = evaluate_retrieval(*as_they_are, features.unseen_labels[rows])["map_mean"]
    assert metrics["pretrained_unseen_map_mean"] == unseen
    # the features show what no label says; regression to other labels forgets it, and chance never knew
    assert unseen > metrics["unseen_map_mean"] > metrics["chance_unseen_map_mean"]
    page = (out / "report.html").read_text()
    assert "carry a label that no item of training or validation has: red, tree." in page
    assert "without any training" in page


def test_the_benchmark_has_columns_of_unseen_labels_on_test_alone(
    prepared: Path, tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in ("cca", "pretrained"):
        (tmp_path / f"{kind}.yaml").write_text(f"model: {{kind: {kind}}}\n")
    arguments: dict[str, Any] = {
        "features": prepared / "features",
        "label_graph": prepared / "label_graph",
        "variants": [tmp_path / "cca.yaml", tmp_path / "pretrained.yaml"],
        "seeds": [1],
        "tracking": tracking,
        "out": tmp_path / "out",
    }
    table = quality.run(**arguments, split="test").splitlines()
    column = [title.strip() for title in table[0].split("|")].index("unseen mean MAP")
    features = Features.read(prepared / "features")
    for line, name in zip(table[2:4], ("cca", "pretrained"), strict=True):
        model = TrainedNetwork.read(tmp_path / "out" / name / "seed-1")
        assert line.split("|")[column].strip() == f"{unseen_metrics(features, model)['map_mean']:.4f}"
        if name == "pretrained":
            np.testing.assert_array_equal(model.embed_image_features(features.image), features.image)
    assert "unseen" not in quality.run(**arguments, split="val")


def test_rows_of_generated_classifiers(
    prepared: Path, tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train_section = "train: {preset: best, epochs: 4, batch_size: 16}\n"
    variants = {
        "labels": "model: {preset: best, embedding_dim: 8}\n" + train_section,
        "no_graph": "model: {preset: best, embedding_dim: 8, graph: none}\n" + train_section,
        "cca": "model: {kind: cca}\n",
    }
    for name, text in variants.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    arguments: dict[str, Any] = {
        "features": prepared / "features",
        "label_graph": prepared / "label_graph",
        "variants": [tmp_path / f"{name}.yaml" for name in variants],
        "seeds": [1],
        "tracking": tracking,
        "out": tmp_path / "out",
    }
    table = quality.run(**arguments, split="test").splitlines()
    titles, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in (table[0], *table[2:]))
    named = {cells[0]: dict(zip(titles, cells, strict=True)) for cells in rows}
    assert list(named) == ["labels", "no_graph", "cca", "labels + generated", "labels: generated alone", "chance"]
    features = Features.read(prepared / "features")
    rows_of_test = features.pairs("test")
    vectors = LabelGraph.read(prepared / "label_graph").unseen_embeddings
    assert vectors.shape == (len(UNSEEN), DIM)
    model = TrainedNetwork.read(tmp_path / "out/labels/seed-1")
    embedded = embed_with_generated(model, features.image[rows_of_test], features.text[rows_of_test], vectors)
    expected = evaluate_retrieval(*embedded, features.unseen_labels[rows_of_test])
    generated = named["labels + generated"]
    assert generated["unseen mean MAP"] == f"{expected['map_mean']:.4f}"
    difference = expected["map_mean"] - float(named["labels"]["unseen mean MAP"])
    assert float(generated["unseen against labels"].split()[0]) == pytest.approx(difference, abs=2e-4)
    record = json.loads((tmp_path / "out/quality.json").read_text())
    assert set(record["unseen_map_mean_minus_reference"]) == set(named) - {"labels", "chance"}
    assert "generated" not in quality.run(**arguments, split="val")


def test_features_of_different_dimensions_cannot_be_compared_as_they_are(
    inputs: dict[str, Path], tracking: Tracking, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"image features have dimension \d+ and text features \d+, expected equal"):
        train.run(
            **inputs,
            model_params=ModelConfig(kind="pretrained"),
            params=TrainConfig(),
            tracking=tracking,
            work=tmp_path / "work",
            model_out=tmp_path / "model",
        )

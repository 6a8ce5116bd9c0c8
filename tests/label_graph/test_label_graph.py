import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dagnn_core.artifacts import Artifact, write_artifact
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.config.model import ModelConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.label_graph.build import write_label_graph
from dagnn_core.label_graph.embeddings import MEAN_NORM
from dagnn_core.label_graph.label_graph import LabelGraph
from dagnn_core.model.kinds import build_network
from dagnn_core.training.inputs import graph_tensors

NAMES = ("boat", "water", "car")
LABELS = np.array([[1, 1, 0]] * 4 + [[0, 1, 0]] * 6 + [[0, 0, 1]] * 5, dtype=np.uint8)
TEXTS = ("sail waves",) * 4 + ("waves blue tide",) * 6 + ("red engine",) * 5


def dataset(labels=LABELS, splits=None, texts=TEXTS):
    artifact = Artifact(
        path=Path("artifacts/dataset"), kind="dataset", content={}, files={}, content_digest="", provenance={}
    )
    return Dataset(
        artifact=artifact,
        label_names=NAMES,
        ids=tuple(map(str, range(len(labels)))),
        texts=texts[: len(labels)],
        splits=np.array(splits or ["train"] * len(labels)),
        has_image=np.ones(len(labels), dtype=bool),
        has_text=np.array([bool(text) for text in texts[: len(labels)]]),
        labels=labels,
        unseen_label_names=(),
        unseen_labels=np.zeros((len(labels), 0), np.uint8),
        columns={},
        files=(),
    )


@pytest.fixture(autouse=True)
def no_drawing(request, monkeypatch):
    """Leave the image, which takes most of the time and has tests of its own, to the tests of whole artifacts."""
    if request.function not in (test_manifest_describes_the_graph, test_equal_input_gives_an_equal_digest):
        monkeypatch.setattr("dagnn_core.label_graph.build.draw_label_graph", lambda path, **_: path.touch())


def build(out, source, **config):
    with write_artifact(out, kind="label_graph", provenance={}) as draft:
        write_label_graph(draft, source, LabelGraphConfig(**config))
    return LabelGraph.read(out, verify=True)


def test_reader_gives_back_what_was_built(tmp_path):
    graph = build(tmp_path / "graph", dataset())
    assert graph.label_names == NAMES
    np.testing.assert_array_equal(graph.counts, [[0, 4, 0], [4, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(graph.label_counts, [4, 10, 5])
    np.testing.assert_array_equal(graph.conditional, [[0, 0.4, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(graph.adjacency, [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(graph.normalized, [[2 / 3, 1 / 3, 0], [1 / 3, 2 / 3, 0], [0, 0, 1]], rtol=1e-15)
    assert graph.embeddings.shape == (3, graph.artifact.content["embedding"]["dim"])
    dtypes = {name: getattr(graph, name).dtype.name for name in ("counts", "conditional", "normalized", "embeddings")}
    assert dtypes == {"counts": "int64", "conditional": "float64", "normalized": "float64", "embeddings": "float32"}


def test_manifest_describes_the_graph(tmp_path):
    content = build(tmp_path / "graph", dataset(), threshold=0.5, embedding_dim=2).artifact.content
    assert content == {
        "label_names": list(NAMES),
        "num_items": 15,
        "threshold": 0.5,
        "num_edges": 1,
        "isolated_labels": ["car"],
        "embedding": {"kind": "ppmi_svd", "dim": 2},
    }
    assert json.loads((tmp_path / "graph" / "manifest.json").read_text())["content"] == content


def test_validation_and_test_items_are_not_counted(tmp_path):
    splits = ["train"] * 13 + ["val", "test"]
    graph = build(tmp_path / "graph", dataset(splits=splits))
    np.testing.assert_array_equal(graph.label_counts, [4, 10, 3])
    assert graph.artifact.content["num_items"] == 13


def test_a_label_without_training_item_is_named(tmp_path):
    message = r"artifacts/dataset: no training item has label 'car', expected at least one, .*dataset.min_label_count"
    with pytest.raises(InputError, match=message):
        build(tmp_path / "graph", dataset(splits=["train"] * 10 + ["test"] * 5))
    assert not any(tmp_path.iterdir())


def test_a_graph_without_any_edge_warns(tmp_path, caplog):
    labels = LABELS * np.array([1, 1, 0], dtype=np.uint8)
    labels[0] = [0, 0, 1]
    labels[1:4] = [1, 0, 0]
    with caplog.at_level(logging.WARNING):
        graph = build(tmp_path / "graph", dataset(labels[:10]), embedding="file", embedding_file=vectors(tmp_path))
    assert "no conditional probability reaches label_graph.threshold 0.4 (the largest is 0)" in caplog.text
    assert graph.artifact.content["num_edges"] == 0
    assert graph.artifact.content["isolated_labels"] == list(NAMES)
    np.testing.assert_array_equal(graph.normalized, np.eye(3))


def vectors(folder):
    file = folder / "vectors.txt"
    file.write_text("boat 1 2\nwater 3 4\ncar 5 6\n")
    return str(file)


def test_vectors_come_from_the_file(tmp_path):
    graph = build(tmp_path / "graph", dataset(), embedding="file", embedding_file=vectors(tmp_path))
    np.testing.assert_array_equal(graph.embeddings, [[1, 2], [3, 4], [5, 6]])
    assert graph.artifact.content["embedding"] == {"kind": "file", "dim": 2}


def test_auto_is_ppmi_svd_to_the_digit_where_there_are_texts(tmp_path):
    texts = build(tmp_path / "texts", dataset(), embedding="ppmi_svd")
    auto = build(tmp_path / "auto", dataset(), embedding="auto")
    np.testing.assert_array_equal(auto.embeddings, texts.embeddings)
    assert auto.artifact.content_digest == texts.artifact.content_digest
    assert auto.artifact.content == texts.artifact.content


def test_auto_learns_from_the_labels_where_there_are_no_texts(tmp_path):
    graph = build(tmp_path / "graph", dataset(texts=("",) * 15), embedding="auto")
    together = LABELS.T.astype(int) @ LABELS
    expected = np.log(np.maximum(together * together.sum() / np.outer(together.sum(axis=1), together.sum(axis=0)), 1))
    left, singular, _ = np.linalg.svd(expected)
    factor = left * np.sqrt(singular)
    factor *= MEAN_NORM / np.linalg.norm(factor, axis=1).mean()
    np.testing.assert_allclose(graph.embeddings @ graph.embeddings.T, factor @ factor.T, atol=1e-4)
    assert np.linalg.norm(graph.embeddings, axis=1).mean() == pytest.approx(MEAN_NORM)
    assert graph.artifact.content["embedding"] == {"kind": "ppmi_svd_of_labels", "dim": 3}
    assert build(tmp_path / "two", dataset(texts=("",) * 15), embedding_dim=2).embeddings.shape == (3, 2)
    with pytest.raises(InputError, match=r"'boat' and 2 more .* has no training text"):
        build(tmp_path / "texts", dataset(texts=("",) * 15), embedding="ppmi_svd")


def test_labels_that_are_on_every_item_have_no_vectors(tmp_path):
    source = dataset(np.ones((15, 3), dtype=np.uint8), texts=("",) * 15)
    with pytest.raises(InputError, match=r"all of them the same labels.*label_graph\.embedding: learned"):
        build(tmp_path / "graph", source)


def test_learned_vectors_are_drawn_as_published_and_trained_with_a_fixed_graph(tmp_path):
    graph = build(tmp_path / "graph", dataset(), embedding="learned", embedding_dim=200)
    assert graph.embeddings.shape == (3, 200) and graph.embeddings.dtype == np.float32
    assert 0 <= graph.embeddings.min() < 0.02 and 0.98 < graph.embeddings.max() < 1
    np.testing.assert_array_equal(
        build(tmp_path / "again", dataset(), embedding="learned", embedding_dim=200).embeddings, graph.embeddings
    )
    given = build(tmp_path / "given", dataset())
    for source, trained in ((graph, True), (given, False)):
        network = build_network(ModelConfig(embedding_dim=4), image_dim=5, text_dim=6, graph=graph_tensors(source))
        names = [name for name, _ in network.named_parameters() if name.endswith("label_embeddings")]
        assert len(names) == trained
        assert any(name.endswith("label_embeddings") for name in network.state_dict())


def test_items_without_text_count_in_the_graph_and_not_in_the_vectors(tmp_path):
    silent = range(0, len(LABELS), 5)
    texts = ["" if row in silent else text for row, text in enumerate(TEXTS)]
    rest = [row for row in range(len(LABELS)) if row not in silent]
    graph = build(tmp_path / "graph", dataset(texts=texts))
    of_texts = build(tmp_path / "of_texts", dataset(LABELS[rest], texts=[texts[row] for row in rest]))
    np.testing.assert_array_equal(graph.label_counts, LABELS.sum(axis=0))
    np.testing.assert_array_equal(graph.embeddings, of_texts.embeddings)


def test_equal_input_gives_an_equal_digest(tmp_path):
    digests = {build(tmp_path / name, dataset()).artifact.content_digest for name in ("first", "second")}
    assert len(digests) == 1


def test_a_damaged_graph_is_refused(tmp_path):
    build(tmp_path / "graph", dataset())
    file = tmp_path / "graph" / "normalized.npy"
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    with pytest.raises(ArtifactError, match=r"normalized.npy does not have the checksum .*dvc repro build_label_graph"):
        LabelGraph.read(tmp_path / "graph", verify=True)


def test_a_single_label_is_no_graph(tmp_path):
    source = replace(dataset(LABELS[:, 1:2]), label_names=("water",))
    with pytest.raises(
        InputError, match=r"artifacts/dataset has 1 label \(water\), expected at least 2 for a graph; name"
    ):
        build(tmp_path / "graph", source)
    assert list(tmp_path.iterdir()) == []


def test_the_conditional_probability_can_be_the_other_one(tmp_path):
    published = build(tmp_path / "a", dataset(), threshold=0.5)
    other = build(tmp_path / "b", dataset(), threshold=0.5, conditional="j_given_i")
    np.testing.assert_array_equal(published.adjacency, [[1, 0, 0], [0.5, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(other.adjacency, published.adjacency.T)
    np.testing.assert_array_equal(other.conditional, published.conditional)
    degrees = other.adjacency.sum(axis=1)
    np.testing.assert_allclose(other.normalized, other.adjacency.T / np.sqrt(np.outer(degrees, degrees)))


def test_vectors_can_be_scaled_to_unit_length(tmp_path):
    raw, unit = build(tmp_path / "a", dataset()), build(tmp_path / "b", dataset(), embedding_norm="unit")
    lengths = np.linalg.norm(raw.embeddings, axis=1, keepdims=True)
    np.testing.assert_allclose(unit.embeddings, raw.embeddings / lengths, rtol=1e-6)

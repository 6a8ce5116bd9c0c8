"""The label graph of a table of texts alone, against plain counting: of made-up items, and of MIRFlickr's."""

import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import scipy.io
from PIL import Image

from components.steps import build_label_graph, dataset, extract_features
from dagnn_core.config.dataset import DatasetConfig, FolderConfig
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.errors import InputError
from dagnn_core.label_graph.cooccurrence import conditional_probabilities, count_cooccurrences
from dagnn_core.label_graph.label_graph import LabelGraph
from tests.fixtures.locations import SHARED

DATA = SHARED / "data"
MIRFLICKR = DATA / "mirflickr25k"
VECTORS = DATA / "label_embeddings" / "mirflickr.npz"
GOLDEN = Path(__file__).parents[1] / "golden"
NUM_QUERIES, NUM_VAL = 2000, 200
THRESHOLD = 0.4

needs_mirflickr = pytest.mark.skipif(
    not (MIRFLICKR.is_dir() and VECTORS.is_file()), reason="MIRFlickr's tags and labels are not at ../shared/data"
)


class LabelRow(NamedTuple):
    id: str
    text: str
    labels: list[str]
    split: str


class Built(NamedTuple):
    rows: list[LabelRow]
    names: list[str]
    vectors: Path
    """File with a vector for each name."""
    root: Path
    """Folder with the artifacts `dataset` and `label_graph`."""

    @property
    def training(self) -> list[LabelRow]:
        return [row for row in self.rows if row.split == "train"]

    @property
    def graph(self) -> LabelGraph:
        return LabelGraph.read(self.root / "label_graph", verify=True)


def read_rows() -> list[LabelRow]:
    """Read the `.mat` files item by item; every one has tags and labels."""
    names = (MIRFLICKR / "label_names.txt").read_text().split()
    lines = (MIRFLICKR / "common_tags.txt").read_text(encoding="utf-8").splitlines()
    words = [line.split()[0] for line in lines]  # each with its number of images
    tags = scipy.io.loadmat(MIRFLICKR / "mirflickr25k-yall.mat")["YAll"]
    labels = scipy.io.loadmat(MIRFLICKR / "mirflickr25k-lall.mat")["LAll"]
    return [
        LabelRow(
            id=f"im{number}",
            text=" ".join(word for word, has in zip(words, tag_row, strict=True) if has),
            labels=[name for name, has in zip(names, label_row, strict=True) if has],
            split="test" if number < NUM_QUERIES else "val" if number < NUM_QUERIES + NUM_VAL else "train",
        )
        for number, (tag_row, label_row) in enumerate(zip(tags.tolist(), labels.tolist(), strict=True))
    ]


def made_up_rows(names: list[str]) -> list[LabelRow]:
    """Items of which each label but the first often brings another one along."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(600):
        chosen = {int(rng.integers(len(names)))}
        chosen |= {label // 2 for label in chosen if rng.random() < 0.6}
        split = "test" if number < 100 else "val" if number < 150 else "train"
        labels = [name for label, name in enumerate(names) if label in chosen]
        rows.append(LabelRow(f"item{number}", f"{' and '.join(labels)} {number % 7}", labels, split))
    return rows


def build(root: Path, rows: list[LabelRow], names: list[str], vectors: Path) -> Built:
    (root / "items.jsonl").write_text("".join(f"{json.dumps(row._asdict())}\n" for row in rows), encoding="utf-8")
    (root / "labels.txt").write_text("".join(f"{name}\n" for name in names))
    folder = FolderConfig(table="items.jsonl", label_names="labels.txt", split_column="split")
    dataset.run(
        params=DatasetConfig(layout="folder", source=str(root), incomplete="keep", folder=folder),
        work=root / "work",
        dataset_out=root / "dataset",
    )
    build_label_graph.run(
        dataset=root / "dataset",
        params=LabelGraphConfig(threshold=THRESHOLD, embedding="file", embedding_file=f"{vectors}#glove6B"),
        label_graph_out=root / "label_graph",
    )
    return Built(rows, names, vectors, root)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Built:
    root = tmp_path_factory.mktemp("made_up")
    names = [f"label{letter}" for letter in "abcdefghijklmnopqrstuvwx"]
    vectors = root / "vectors.npz"
    np.savez(vectors, names=names, glove6B=np.random.default_rng(1).normal(size=(len(names), 10)).astype(np.float16))
    return build(root, made_up_rows(names), names, vectors)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Of MIRFlickr."""
    names = (MIRFLICKR / "label_names.txt").read_text().split()
    return build(tmp_path_factory.mktemp("mirflickr"), read_rows(), names, VECTORS)


def check_the_data_set_is_texts_alone(built: Built, folder: Path) -> None:
    found = Dataset.read(built.root / "dataset", verify=True)
    assert found.ids == tuple(row.id for row in built.rows)
    assert found.texts == tuple(row.text for row in built.rows)
    assert set(found.label_names) == set(built.names)
    assert found.has_text.all() and not found.has_image.any()
    content = found.artifact.content
    assert content["modalities"] == {"complete": 0, "image_only": 0, "text_only": len(built.rows)}
    assert content["splits"] == Counter(row.split for row in built.rows)
    assert content["rejected"] == {}


def check_counts_are_those_of_plain_counting(built: Built, folder: Path) -> None:
    together: Counter[frozenset[str]] = Counter()
    alone: Counter[str] = Counter()
    for row in built.training:
        alone.update(row.labels)
        together.update(frozenset(pair) for pair in combinations(row.labels, 2))
    graph = built.graph
    names = graph.label_names
    assert graph.artifact.content["num_items"] == len(built.training)
    assert graph.label_counts.tolist() == [alone[name] for name in names]
    assert graph.counts.tolist() == [[together[frozenset({a, b})] if a != b else 0 for b in names] for a in names]


def check_adjacency_and_its_normalisation_follow_the_formulas(built: Built, folder: Path) -> None:
    graph = built.graph
    labels = range(len(built.names))
    for i in labels:
        for j in labels:
            probability = graph.counts[i, j] / graph.label_counts[j]
            assert graph.conditional[i, j] == pytest.approx(probability, rel=1e-15)
            edge = 0.5 if i != j and probability >= THRESHOLD else 0.0
            assert graph.adjacency[i, j] == edge + (1.0 if i == j else 0.0)
    degrees = [sum(graph.adjacency[i, j] for j in labels) for i in labels]
    for i in labels:
        for j in labels:
            expected = graph.adjacency[j, i] / math.sqrt(degrees[i] * degrees[j])
            assert graph.normalized[i, j] == pytest.approx(expected, rel=1e-12)
    assert graph.artifact.content["num_edges"] == sum(graph.adjacency[i, j] > 0 for i in labels for j in labels) - len(
        labels
    )


def check_node_vectors_are_those_of_the_file(built: Built, folder: Path) -> None:
    with np.load(built.vectors, allow_pickle=False) as file:
        vectors = dict(zip(file["names"].tolist(), file["glove6B"], strict=True))
    graph = built.graph
    for name, vector in zip(graph.label_names, graph.embeddings, strict=True):
        np.testing.assert_array_equal(vector, vectors[name])


def check_the_image_is_drawn(built: Built, folder: Path) -> None:
    with Image.open(built.graph.artifact.file("label_graph.png")) as image:
        assert image.width > 1500 and image.height > 700


def check_features_are_refused_in_one_line(built: Built, folder: Path) -> None:
    number = len(built.training)
    with pytest.raises(InputError, match=rf"none of the {number} training items has an image, .* a label graph alone"):
        extract_features.run(
            dataset=built.root / "dataset",
            params=FeaturesConfig(),
            cache=folder / "cache",
            features_out=folder / "features",
        )
    assert not list(folder.iterdir())


CHECKS = (
    check_the_data_set_is_texts_alone,
    check_counts_are_those_of_plain_counting,
    check_adjacency_and_its_normalisation_follow_the_formulas,
    check_node_vectors_are_those_of_the_file,
    check_the_image_is_drawn,
    check_features_are_refused_in_one_line,
)


@pytest.mark.parametrize("check", CHECKS)
def test_of_made_up_items(made_up: Built, tmp_path: Path, check: Callable[[Built, Path], None]) -> None:
    check(made_up, tmp_path)


@pytest.mark.slow
@needs_mirflickr
def test_the_same_of_mirflickr(built: Built, tmp_path: Path) -> None:
    assert len(built.names) == 24 and len(built.training) == 17_815
    assert Counter(row.split for row in built.rows) == {"test": NUM_QUERIES, "val": NUM_VAL, "train": 17_815}
    for check in CHECKS:
        check(built, tmp_path)


@pytest.mark.slow
@needs_mirflickr
def test_every_item_together_has_the_published_number_of_labels(built: Built) -> None:
    """The surviving files of the authors sum to 80 % of it."""
    assert len(built.rows) == 20_015
    assert sum(len(row.labels) for row in built.rows) == 75_640


@pytest.mark.slow
@needs_mirflickr
def test_circulating_counts_have_the_edges_of_all_items(built: Built) -> None:
    """Those of the training items differ in four, all of them close to the threshold."""
    with np.load(GOLDEN / "adjacency.npz", allow_pickle=False) as file:
        keys = ("cooccurrence_counts", "label_counts")
        counts, label_counts = (file[f"mirflickr_zero_diagonal/{key}"] for key in keys)
    circulating = conditional_probabilities(counts, label_counts)
    names = built.graph.label_names
    labels = np.array([[name in row.labels for name in names] for row in built.rows], dtype=np.uint8)
    everything = conditional_probabilities(*count_cooccurrences(labels))
    assert (everything >= THRESHOLD).sum() == 77
    np.testing.assert_array_equal(everything >= THRESHOLD, circulating >= THRESHOLD)
    training = built.graph.conditional
    assert ((training >= THRESHOLD) & (circulating < THRESHOLD)).sum() == 3
    assert ((training < THRESHOLD) & (circulating >= THRESHOLD)).sum() == 1
    differ = (training >= THRESHOLD) != (circulating >= THRESHOLD)
    assert abs(np.concatenate([training[differ], circulating[differ]]) - THRESHOLD).max() < 0.012


@pytest.mark.slow
@needs_mirflickr
def test_edges_say_what_everybody_knows(built: Built) -> None:
    graph = built.graph
    label = {name: number for number, name in enumerate(graph.label_names)}
    for b, a in (("sky", "clouds"), ("water", "sea"), ("people", "female"), ("plant_life", "tree"), ("animals", "dog")):
        assert graph.conditional[label[b], label[a]] > 0.7
        assert graph.normalized[label[a], label[b]] > 0  # a listens to b
    assert graph.conditional[label["food"], label["sky"]] < 0.05


@pytest.mark.slow
@needs_mirflickr
def test_vectors_learned_from_the_tags_know_related_labels(built: Built, tmp_path: Path) -> None:
    out = tmp_path / "label_graph"
    build_label_graph.run(dataset=built.root / "dataset", params=LabelGraphConfig(), label_graph_out=out)
    graph = LabelGraph.read(out, verify=True)
    unit = graph.embeddings / np.linalg.norm(graph.embeddings, axis=1, keepdims=True)
    similarity = unit @ unit.T - np.eye(24)
    nearest = {name: graph.label_names[row.argmax()] for name, row in zip(graph.label_names, similarity, strict=True)}
    pairs = {
        "bird": "animals",
        "car": "transport",
        "clouds": "sky",
        "male": "people",
        "sea": "water",
        "tree": "plant_life",
    }
    assert {name: nearest[name] for name in pairs} == pairs

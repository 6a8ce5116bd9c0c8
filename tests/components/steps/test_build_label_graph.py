import logging

import numpy as np
import pytest
from PIL import Image

from components.steps import build_label_graph
from dagnn_core.artifacts import write_artifact
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.data.dataset import Item
from dagnn_core.data.ingest.writer import DatasetWriter
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.label_graph.label_graph import LabelGraph
from tests.fixtures import forked

ITEMS = [("sail on blue waves", ["boat", "water"])] * 5 + [("blue tide", ["water"])] * 6 + [("red engine", ["car"])] * 4


def write_dataset(out, items=ITEMS, split_of=lambda row: "train"):
    names = ["boat", "car", "water"]
    with write_artifact(out, kind="dataset", provenance={"ancestors": {}}) as draft:
        with DatasetWriter(draft.path, names) as writer:
            for row, (text, labels) in enumerate(items):
                writer.add(Item(str(row), text, labels, None, "", split_of(row)))
            writer.write_rejected([])
        draft.content = writer.content
    return out


def test_step_writes_the_artifact_with_its_lineage(tmp_path, caplog):
    dataset, out = write_dataset(tmp_path / "dataset"), tmp_path / "label_graph"
    with caplog.at_level(logging.INFO):
        build_label_graph.run(dataset=dataset, params=LabelGraphConfig(threshold=0.6), label_graph_out=out)
    graph = LabelGraph.read(out, verify=True)
    assert graph.label_names == ("boat", "car", "water")
    np.testing.assert_array_equal(graph.label_counts, [5, 4, 11])
    assert graph.artifact.provenance["step"] == "build_label_graph"
    assert graph.artifact.provenance["params"]["label_graph"]["threshold"] == 0.6
    assert list(graph.artifact.provenance["ancestors"]) == ["dataset"]
    with Image.open(graph.artifact.file("label_graph.png")) as image:
        assert image.format == "PNG"
    assert "3 labels, 1 edges from 15 training items" in caplog.text


def test_another_threshold_replaces_the_artifact(tmp_path):
    dataset, out = write_dataset(tmp_path / "dataset"), tmp_path / "label_graph"
    for threshold, num_edges in ((0.4, 2), (0.9, 1)):
        build_label_graph.run(dataset=dataset, params=LabelGraphConfig(threshold=threshold), label_graph_out=out)
        assert LabelGraph.read(out).artifact.content["num_edges"] == num_edges


def test_a_label_only_in_test_stops_the_step_and_leaves_nothing(tmp_path):
    dataset = write_dataset(tmp_path / "dataset", split_of=lambda row: "train" if row < 11 else "test")
    with pytest.raises(InputError, match=r"dataset: no training item has label 'car'"):
        build_label_graph.run(dataset=dataset, params=LabelGraphConfig(), label_graph_out=tmp_path / "label_graph")
    assert [entry.name for entry in tmp_path.iterdir()] == ["dataset"]


def test_a_missing_data_set_names_the_stage_that_makes_it(tmp_path):
    with pytest.raises(ArtifactError, match=r"does not exist, expected a dataset artifact; run `dvc repro dataset`"):
        build_label_graph.run(dataset=tmp_path / "no", params=LabelGraphConfig(), label_graph_out=tmp_path / "graph")


def test_command_line(tmp_path):
    dataset, out = write_dataset(tmp_path / "dataset"), tmp_path / "label_graph"

    def command(params):
        arguments = ["--dataset", dataset, "--params", params, "--label-graph-out", out]
        return forked.run("components.steps.build_label_graph", *arguments)

    done = command('{"threshold": 0.6}')
    assert done.returncode == 0, done.stderr
    assert LabelGraph.read(out, verify=True).artifact.content["threshold"] == 0.6

    refused = command('{"embedding": "file", "embedding_file": "no.txt"}')
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: no.txt does not exist, expected word vectors; correct label_graph.embedding_file\n"
    )
    assert LabelGraph.read(out).artifact.content["threshold"] == 0.6  # what stood there stays

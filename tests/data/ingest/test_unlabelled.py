"""Few labels: which training items keep theirs, and what the steps make of the others."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.steps import build_label_graph, dataset, extract_features
from dagnn_core.config.dataset import DatasetConfig, FolderConfig
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.data.ingest.unlabelled import take_labels_away
from dagnn_core.data.raw import RawItem
from dagnn_core.errors import InputError
from dagnn_core.features.features import Features
from dagnn_core.label_graph.label_graph import LabelGraph
from dagnn_core.training.inputs import read_split

label_sets = st.lists(st.sets(st.sampled_from("abcdef"), min_size=1), min_size=20, max_size=60)


def make_items(label_sets, splits=("train", "train", "train", "val", "test")):
    return [
        RawItem(row, f"i{row}", "text", tuple(sorted(labels)), "", splits[row % len(splits)])
        for row, labels in enumerate(label_sets)
    ]


def labelled(items, fraction, seed=3):
    """Ids of the training items that keep their labels; the others lose nothing else, and other items nothing."""
    left = take_labels_away(items, labelled_fraction=fraction, seed=seed)
    lost = [before.id for before, after in zip(items, left, strict=True) if before != after]
    for before, after in zip(items, left, strict=True):
        assert after == (before._replace(labels=()) if before.id in lost else before)
    training = {item.id for item in items if item.split == "train"}
    assert set(lost) <= training
    return training - set(lost)


@given(label_sets, st.floats(0.6, 1), st.floats(0, 1))
def test_every_label_stays_on_an_item_and_a_larger_fraction_has_the_same_and_more(label_sets, fraction, share):
    items = make_items(label_sets)
    training = [item for item in items if item.split == "train"]
    kept = labelled(items, fraction)
    assert len(kept) == round(fraction * len(training))
    carried = {name for item in training if item.id in kept for name in item.labels}
    assert carried == {name for item in training for name in item.labels}
    assert kept <= labelled(items, fraction + share * (1 - fraction))


def test_which_items_keep_their_labels_is_pinned():
    """Another order would change experiments that are on record."""
    items = make_items([{"a"}] * 14 + [{"a", "b"}], splits=("train",))
    assert labelled(items, 0.2) == {"i6", "i12", "i14"}
    assert labelled(items, 0.2, seed=4) == {"i0", "i3", "i14"}


def test_too_few_for_an_item_of_every_label():
    items = make_items([{"a"}, {"b"}, {"c"}, {"a"}], splits=("train",))
    with pytest.raises(InputError, match=r"labelled_fraction is 0.5, .* 2 of 4 training items, expected at least 3"):
        take_labels_away(items, labelled_fraction=0.5, seed=1)


def test_the_steps_count_labelled_items_alone_and_read_all_texts(tmp_path):
    rows = [f"a{row},blue boat {row % 3},blue|boat,train" for row in range(8)]
    rows += [f"b{row},a rare harbour,sea|boat,train" for row in range(8)]
    rows += ["v0,sea,sea,val", "v1,boat,boat,val", "t0,boat,boat,test", "t1,sea,sea,test"]
    (tmp_path / "table.csv").write_text("id,text,labels,split\n" + "\n".join(rows) + "\n")
    vectors = np.arange(3 * len(rows), dtype=np.float32).reshape(len(rows), 3)
    np.savez(tmp_path / "vectors.npz", ids=[row.split(",")[0] for row in rows], features=vectors)
    folder = FolderConfig(table="table.csv", split_column="split", image_vectors="vectors.npz")
    params = DatasetConfig(layout="folder", source=str(tmp_path), labelled_fraction=0.25, folder=folder)
    dataset.run(params=params, work=tmp_path / "work", dataset_out=tmp_path / "dataset")
    extract_features.run(
        dataset=tmp_path / "dataset",
        params=FeaturesConfig(image="precomputed", min_word_count=5),
        cache=tmp_path / "cache",
        features_out=tmp_path / "features",
    )
    out = tmp_path / "label_graph"
    build_label_graph.run(dataset=tmp_path / "dataset", params=LabelGraphConfig(), label_graph_out=out)
    features, graph = Features.read(tmp_path / "features"), LabelGraph.read(out)
    split = read_split(features, "train")
    assert split.is_labelled is not None
    assert split.is_labelled.tolist() == features.labels[features.rows("train")].any(axis=1).tolist()
    assert int(split.is_labelled.sum()) == 4 == graph.artifact.content["num_items"]
    assert graph.label_counts.tolist() == features.labels[features.rows("train")].sum(axis=0).tolist()
    assert read_split(features, "val").is_labelled is None
    words = json.loads((tmp_path / "features/text_encoder/encoder.json").read_text())["vocabulary"]
    assert {"harbour", "blue"} <= set(words)  # of more texts than are labelled

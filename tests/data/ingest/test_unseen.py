"""Unseen labels: nothing that training or validation reads knows of them, and test items lose nothing."""

import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from components.steps import build_label_graph, dataset, extract_features
from dagnn_core.config.dataset import DatasetConfig, FolderConfig
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.data.ingest.unseen import choose_unseen, draw_labels, hold_back, set_apart, training_labels
from dagnn_core.data.raw import RawItem
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.features import Features
from dagnn_core.label_graph.label_graph import LabelGraph

NAMES = [f"label{number}" for number in range(12)]
items_of = st.lists(
    st.tuples(
        st.sampled_from(["train", "train", "val", "test"]), st.sets(st.sampled_from(NAMES), min_size=1, max_size=4)
    ),
    min_size=20,
    max_size=60,
)


def make_items(drawn):
    return [
        RawItem(row, f"i{row}", "text", tuple(sorted(labels)), "", split)
        for row, (split, labels) in enumerate(drawn, start=1)
    ]


def prepare(items, config):
    """What the import makes of the items, and the unseen labels; no example where these cannot be."""
    try:
        unseen = choose_unseen(items, config)
    except InputError:
        assume(False)
    trained = training_labels(items)
    left, lost = set_apart([item for item in items if not hold_back(item, unseen)], unseen, trained)
    return left, unseen, lost


@given(items_of, st.floats(0.05, 0.6), st.integers(0, 3))
def test_training_and_validation_see_no_unseen_label_and_test_items_keep_theirs(drawn, fraction, seed):
    items = make_items(drawn)
    left, unseen, lost = prepare(items, DatasetConfig(unseen_fraction=fraction, seed=seed))
    assert len(unseen) == round(fraction * len({name for item in items for name in item.labels}))
    before = {item.id: item for item in items}
    for item in left:
        assert unseen.isdisjoint(item.labels)
        assert set(item.labels) | set(item.unseen_labels) == set(before[item.id].labels) - lost
        if item.split != "test":
            assert not item.unseen_labels and unseen.isdisjoint(before[item.id].labels)
    assert not lost & (unseen | training_labels(left))
    gone = set(before) - {item.id for item in left}
    assert all(before[name].split != "test" and unseen & set(before[name].labels) for name in gone)


@given(st.sets(st.text(min_size=1)), st.floats(0, 0.99), st.floats(0, 1), st.integers(0, 3))
def test_the_draw_knows_names_and_seed_alone_and_a_larger_one_has_the_same_labels(labels, fraction, factor, seed):
    drawn = draw_labels(labels, fraction, seed=seed)
    assert drawn <= labels and len(drawn) == round(fraction * len(labels))
    assert draw_labels(sorted(labels), fraction, seed=seed) == drawn
    assert draw_labels(labels, factor * fraction, seed=seed) <= drawn


def test_which_labels_are_drawn_is_pinned():
    """Another order would change experiments that are on record."""
    assert draw_labels(NAMES, 0.25, seed=103) == {"label4", "label6", "label10"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"unseen_labels": ("label4", "Label1")}, "no item has the label 'Label1'.*did you mean 'label1'"),
        ({"unseen_labels": ("label2",)}, r"no test item has an unseen label \('label2'\)"),
        ({"unseen_labels": ("label0",)}, r"all 2 items of the split 'train' have an unseen label \('label0'\)"),
        ({"unseen_fraction": 0.01}, "dataset.unseen_fraction is 0.01 of 4 labels, expected at least one"),
    ],
)
def test_labels_that_cannot_be_unseen(config, message):
    items = make_items(
        [("train", {"label0", "label2"}), ("train", {"label0"}), ("val", {"label1"}), ("test", {"label0", "label4"})]
    )
    with pytest.raises(InputError, match=message):
        choose_unseen(items, DatasetConfig(**config))


def test_names_and_a_fraction_exclude_each_other():
    with pytest.raises(InputError, match=r"dataset.unseen_fraction must be 0 with dataset.unseen_labels, got 0.5"):
        DatasetConfig(unseen_labels=("a",), unseen_fraction=0.5)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A table of which two labels, red and its like crimson, are unseen: one by name, one with its last item."""
    folder = tmp_path_factory.mktemp("unseen")
    rows = [f"a{row},a blue boat {row},blue|boat,train" for row in range(4)]
    rows += ["b0,a red boat,red|boat,train", "b1,a crimson boat,red|crimson|boat,train", "b2,a red sea,red|sea,val"]
    rows += ["c0,a sea,sea,train", "c1,a sea,sea,val", "d0,a red boat,red|boat,test", "d1,all red,red,test"]
    rows += ["d2,a crimson boat,crimson|boat,test"]
    (folder / "table.csv").write_text("id,text,labels,split\n" + "\n".join(rows) + "\n")
    vectors = np.arange(3 * len(rows), dtype=np.float32).reshape(len(rows), 3)
    np.savez(folder / "vectors.npz", ids=[row.split(",")[0] for row in rows], features=vectors)
    params = DatasetConfig(
        layout="folder",
        source=str(folder),
        unseen_labels=("red",),
        folder=FolderConfig(table="table.csv", split_column="split", image_vectors="vectors.npz"),
    )
    dataset.run(params=params, work=folder / "work", dataset_out=folder / "dataset")
    extract_features.run(
        dataset=folder / "dataset",
        params=FeaturesConfig(image="precomputed", min_word_count=1),
        cache=folder / "cache",
        features_out=folder / "features",
    )
    build_label_graph.run(dataset=folder / "dataset", params=LabelGraphConfig(), label_graph_out=folder / "label_graph")
    return folder


def test_the_artifacts_know_unseen_labels_of_test_items_alone(imported):
    data = Dataset.read(imported / "dataset", verify=True)
    assert data.label_names == LabelGraph.read(imported / "label_graph").label_names == ("blue", "boat", "sea")
    assert data.unseen_label_names == ("red",)
    assert data.artifact.content["dropped_labels"] == {"crimson": 0}
    assert data.artifact.content["rejected"] == {"an unseen label, though in train or val": 3}
    features = Features.read(imported / "features", verify=True)
    for held in (data, features):
        assert dict(zip(held.ids, held.unseen_labels[:, 0].tolist(), strict=True)) == {
            **dict.fromkeys(("a0", "a1", "a2", "a3", "c0", "c1", "d2"), 0),
            **dict.fromkeys(("d0", "d1"), 1),
        }
    words = json.loads((imported / "features/text_encoder/encoder.json").read_text())["vocabulary"]
    assert "boat" in words and "red" not in words


def test_a_training_item_with_an_unseen_label_is_a_damaged_artifact(imported):
    data = Dataset.read(imported / "dataset")
    file = data.artifact.file("unseen_labels.npy")
    right = file.read_bytes()
    try:
        np.save(file, np.ones((len(data), 1), np.uint8))
        with pytest.raises(ArtifactError, match="something else than the unseen labels of test items"):
            Dataset.read(imported / "dataset")
    finally:
        file.write_bytes(right)

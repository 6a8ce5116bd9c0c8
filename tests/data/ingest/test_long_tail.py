"""A longer tail: which training items with a rare label stay."""

import math
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from components.steps import dataset
from dagnn_core.config.dataset import DatasetConfig, FolderConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.data.ingest.long_tail import thinned_items
from tests.data.ingest.test_unlabelled import label_sets, make_items


def rarest(training):
    counts = Counter(name for item in training for name in item.labels)
    return set(sorted(counts, key=lambda name: (counts[name], name))[: math.ceil(len(counts) / 4)])


@given(label_sets, st.floats(0.05, 1), st.floats(0, 1))
def test_a_fraction_of_the_items_with_a_rare_label_stays_and_every_label_on_one(label_sets, fraction, share):
    items = make_items(label_sets)
    training = [item for item in items if item.split == "train"]
    rare = {item.id for item in training if rarest(training) & set(item.labels)}
    out = thinned_items(items, rare_fraction=fraction, seed=3)
    assert out <= rare
    kept = [item for item in training if item.id not in out]
    assert {name for item in kept for name in item.labels} == {name for item in training for name in item.labels}
    num_kept = len(rare) - len(out)
    assert num_kept == round(fraction * len(rare)) or (num_kept > fraction * len(rare) and num_kept <= 6)
    assert thinned_items(items, rare_fraction=fraction + share * (1 - fraction), seed=3) <= out


def test_which_items_stay_is_pinned():
    """Another order would change experiments that are on record."""
    items = make_items([{"a"}] * 30 + [{"b"}] * 5 + [{"a", "b"}] * 3, splits=("train",))
    everyone = {f"i{row}" for row in range(30, 38)}
    assert everyone - thinned_items(items, rare_fraction=0.25, seed=3) == {"i30", "i37"}
    assert everyone - thinned_items(items, rare_fraction=0.25, seed=4) == {"i34", "i37"}


def test_the_import_leaves_them_out_and_says_so(tmp_path):
    rows = [f"a{row},a boat {row},boat,train" for row in range(20)]
    rows += [f"b{row},a harbour {row},harbour|boat,train" for row in range(10)]
    rows += ["v0,sea,harbour,val", "v1,boat,boat,val", "t0,boat,boat,test", "t1,sea,harbour,test"]
    (tmp_path / "table.csv").write_text("id,text,labels,split\n" + "\n".join(rows) + "\n")
    np.savez(tmp_path / "vectors.npz", ids=[row.split(",")[0] for row in rows], features=np.ones((len(rows), 2)))
    folder = FolderConfig(table="table.csv", split_column="split", image_vectors="vectors.npz")
    params = DatasetConfig(layout="folder", source=str(tmp_path), rare_fraction=0.3, max_rejected=0, folder=folder)
    dataset.run(params=params, work=tmp_path / "work", dataset_out=tmp_path / "dataset")
    made = Dataset.read(tmp_path / "dataset", verify=True)
    assert made.artifact.content["splits"] == {"train": 23, "val": 2, "test": 2}
    assert made.artifact.content["label_counts"]["train"] == {"boat": 23, "harbour": 3}
    rejected = pq.read_table(tmp_path / "dataset/rejected.parquet").to_pylist()
    assert {row["reason"] for row in rejected} == {"left out by dataset.rare_fraction"}
    assert len(rejected) == 7 and all(row["id"].startswith("b") for row in rejected)

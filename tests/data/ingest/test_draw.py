"""Copies of an image share a split where splits are drawn; nothing else moves."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagnn_core.config.dataset import DatasetConfig
from dagnn_core.data.ingest.draw import draw_splits
from dagnn_core.data.ingest.journal import _PRINT
from dagnn_core.data.raw import RawData, RawItem
from dagnn_core.data.splits import draw_split

CONFIG = DatasetConfig(val_fraction=0.3, test_fraction=0.3)


def source(items, **changes):
    settings = {"source": "table", "num_rows": len(items), "items": items, "rejections": [], "image_state": str}
    return RawData(**settings | {"image": lambda item: b""} | changes)


def prints_of(looks):
    """Fingerprints that are equal where the looks are, and far from each other where not."""
    prints = np.zeros(len(looks), _PRINT)
    prints["hash"] = [look * 0x9E3779B97F4A7C15 % 2**64 for look in looks]
    prints["tiles"] = np.array(looks)[:, None] * 20
    return prints


def item(row, name, **changes):
    return RawItem(row, name, "text", ("a",), f"{name}.jpg", "")._replace(**changes)


def split_of(name, config=CONFIG):
    return draw_split(name, seed=103, val_fraction=config.val_fraction, test_fraction=config.test_fraction)


def splits(drawn):
    return {item.id: item.split for item in drawn.items}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), min_size=1, max_size=12), st.randoms())
def test_groups_and_copies_are_together_and_the_order_does_not_matter(drawn, random):
    """Each item has a group and a look: those that are linked by either, over any number of items, share a split."""
    items = [item(row, f"i{row}", group=f"g{group}") for row, (group, _) in enumerate(drawn, 1)]
    looks = [look for _, look in drawn]
    found = draw_splits(source(items), items, prints_of(looks), CONFIG)
    linked = {entry.group: {entry.group} for entry in items}
    for one, look in zip(items, looks, strict=True):
        for other, other_look in zip(items, looks, strict=True):
            if look == other_look:
                union = linked[one.group] | linked[other.group]
                for group in union:
                    linked[group] = union
    assert splits(found) == {entry.id: split_of(min(linked[entry.group])) for entry in items}
    order = random.sample(range(len(items)), len(items))
    shuffled = [items[index] for index in order]
    again = draw_splits(source(shuffled), shuffled, prints_of([looks[index] for index in order]), CONFIG)
    assert splits(again) == splits(found)
    assert again.copies == found.copies


def test_items_without_copies_have_the_split_of_their_own_hash():
    items = [item(row, f"i{row}") for row in range(1, 200)]
    looks = list(range(199))
    looks[10] = looks[20] = looks[5]
    grouped = splits(draw_splits(source(items), items, prints_of(looks), CONFIG))
    alone = splits(draw_splits(source(items), items, np.zeros(0, _PRINT), CONFIG))
    assert alone == {entry.id: split_of(entry.id) for entry in items}
    copies = {"i6", "i11", "i21"}
    assert {name: split for name, split in grouped.items() if name not in copies} == {
        name: split for name, split in alone.items() if name not in copies
    }
    assert {grouped[name] for name in copies} == {split_of("i11")}  # the smallest of the three ids


def test_the_manifest_has_rule_and_counts():
    items = [item(row, f"i{row}") for row in range(1, 8)]
    found = draw_splits(source(items), items, prints_of([0, 1, 0, 2, 1, 0, 3]), CONFIG)
    assert found.copies == {
        "rule": "group",
        "near_distance": 4,
        "drawn_items": 7,
        "groups": 2,
        "items": 5,
        "largest_group": 3,
        "dropped": 0,
    }


def test_dropping_keeps_the_first_complete_one_and_the_items_of_its_group():
    items = [
        item(1, "first", has_text=False),
        item(2, "a-0", group="a"),
        item(3, "a-1", group="a"),
        item(4, "later"),
        item(5, "other"),
    ]
    config = replace(CONFIG, copies="drop")
    found = draw_splits(source(items), items, prints_of([1, 1, 1, 1, 2]), config)
    assert splits(found) == {"a-0": split_of("a"), "a-1": split_of("a"), "other": split_of("other")}
    assert [(entry.row, entry.id, entry.reason, entry.detail) for entry in found.rejections] == [
        (1, "first", "copy of another image", "of a-0"),
        (4, "later", "copy of another image", "of a-0"),
    ]
    assert found.copies["dropped"] == 2
    assert (found.copies["groups"], found.copies["items"], found.copies["drawn_items"]) == (1, 4, 5)


def test_a_copy_of_what_must_be_trained_on_is_trained_on():
    held_out = next(name for name in map(str, range(99)) if split_of(name) == "test")
    items = [item(1, held_out), item(2, "z", has_text=False)]
    assert splits(draw_splits(source(items), items, prints_of([1, 2]), CONFIG)) == {held_out: "test", "z": "train"}
    assert splits(draw_splits(source(items), items, prints_of([1, 1]), CONFIG)) == {held_out: "train", "z": "train"}


@pytest.mark.parametrize("copies", ["group", "drop"])
def test_splits_that_the_data_has_stay(copies):
    items = [item(1, "a", split="train"), item(2, "b", split="test"), item(3, "c", split="val"), item(4, "d")]
    config = replace(CONFIG, copies=copies)
    found = draw_splits(source(items), items, prints_of([1, 1, 1, 1]), config)
    assert splits(found) == {"a": "train", "b": "test", "c": "val", "d": split_of("d")}
    assert found.rejections == []
    assert found.copies["drawn_items"] == 1


def test_val_drawn_out_of_train_keeps_copies_together_and_test_apart():
    config = DatasetConfig(val_fraction=0.5)
    items = [item(row, f"i{row}", split="train") for row in range(1, 21)] + [item(21, "t", split="test")]
    found = splits(draw_splits(source(items, draws_val=True), items, prints_of([1] * 21), config))
    assert found.pop("t") == "test"
    assert len(set(found.values())) == 1 and set(found.values()) <= {"train", "val"}


def test_items_without_image_are_nobodys_copies():
    items = [item(row, f"i{row}", has_image=False) for row in range(1, 9)]
    assert draw_splits(source(items), items, prints_of([0] * 8), CONFIG).copies["groups"] == 0

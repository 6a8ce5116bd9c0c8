"""An import that is interrupted anywhere and resumes: equal artifacts, and nothing done twice that was finished."""

import io
import json
import random
import shutil
from collections import Counter
from dataclasses import replace
from itertools import count

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dagnn_core.artifacts import read_artifact, write_artifact
from dagnn_core.config.dataset import DatasetConfig
from dagnn_core.data.dataset import KIND, SPLITS, Dataset
from dagnn_core.data.ingest import journal as journal_module
from dagnn_core.data.ingest import shards as shards_module
from dagnn_core.data.ingest.build import write_dataset
from dagnn_core.data.ingest.work import images_digest
from dagnn_core.data.raw import RawData, RawItem
from dagnn_core.errors import InputError
from dagnn_core.work import work_folder
from tests.chaos.damage import DAMAGES, swap

NUM_ITEMS = 60
CONFIG = DatasetConfig(max_rejected=0.1)
NEVER = 10**6


def encode(index):
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), index, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


IMAGES = [encode(index) for index in range(NUM_ITEMS)]
IMAGES[7] = b"hello"
IMAGES[40] = IMAGES[40][:-20]
IMAGES[13] = None


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(journal_module, "BLOCK_ITEMS", 8)
    monkeypatch.setattr(shards_module, "ROW_GROUP_ITEMS", 4)


class Source:
    """Raw data that counts how often each image is read, and interrupts when the n-th is asked for."""

    def __init__(self, interrupt_at=NEVER, *, trusted=False):
        self.reads = Counter()
        self._turns = count(1)
        self._interrupt_at = interrupt_at
        images = [image if not trusted else image or b"" for image in IMAGES]
        self.raw = RawData(
            source="table.csv",
            num_rows=NUM_ITEMS,
            items=[
                RawItem(i + 1, f"i{i}", f"text {i}", ("boat", "water")[: 1 + i % 2], f"{i}.png", SPLITS[i % 3])
                for i in range(NUM_ITEMS)
            ],
            rejections=[],
            image=lambda item: self._read(images, item.row - 1),
            image_state=lambda item: "never changes",
            trusted_images=trusted,
            shard_bytes=600,
        )

    def _read(self, images, index):
        if next(self._turns) == self._interrupt_at:
            raise KeyboardInterrupt
        self.reads[index] += 1
        return images[index]


def ingest(source, root, config=CONFIG):
    folder = root / "work" / images_digest(source.raw, {})
    with (
        work_folder(folder, busy="another import of the same images is running"),
        write_artifact(root / "out", kind=KIND, provenance={}) as draft,
    ):
        draft.content = write_dataset(draft.path, source.raw, config, work=folder)
    return read_artifact(root / "out", KIND, verify=True)


def num_checked(root):
    journals = (root / "work").rglob("checks.jsonl")
    lines = [line for journal in journals for line in journal.read_text().splitlines()]
    return json.loads(lines[-1].partition(" ")[2])["num_checked"] if lines else 0


def written(root):
    """Indices of the items in finished shards."""
    shards = (root / "work").rglob("data-*.parquet")
    return {int(item_id[1:]) for shard in shards for item_id in pq.read_table(shard)["id"].to_pylist()}


@given(kills=st.lists(st.integers(1, 2 * NUM_ITEMS), min_size=1, max_size=4), trusted=st.booleans())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wherever_it_is_killed_the_next_run_goes_on(tmp_path_factory, kills, trusted):
    expected = ingest(Source(trusted=trusted), tmp_path_factory.mktemp("whole"))
    root = tmp_path_factory.mktemp("killed")
    artifact = None
    for kill in [*kills, NEVER]:
        checked, finished = num_checked(root), written(root)
        source = Source(kill, trusted=trusted)
        try:
            artifact = ingest(source, root)
        except KeyboardInterrupt:
            assert not (root / "out").exists()
        for index, reads in source.reads.items():
            assert reads <= (index >= checked and not trusted) + (index not in finished)
        if artifact is not None:
            break
    assert artifact.content_digest == expected.content_digest
    assert artifact.content == expected.content
    assert list((root / "work").iterdir()) == []


def interrupted(root, *, at, config=CONFIG):
    with pytest.raises(KeyboardInterrupt):
        ingest(Source(at), root, config)


def test_resuming_says_what_was_done_before(tmp_path, caplog):
    caplog.set_level("INFO")
    interrupted(tmp_path, at=50)
    interrupted(tmp_path, at=50)
    ingest(Source(), tmp_path)
    checked, checked_again, written_before = (line for line in caplog.messages if line.startswith("resuming"))
    assert checked == checked_again.replace("60 of 60", "48 of 60").replace("resuming: 60", "resuming: 48")
    assert checked.endswith("of 60 images were checked before")
    assert written_before.endswith("of 57 items were written before")


def test_checks_outlast_an_error_that_a_change_of_the_configuration_mends(tmp_path):
    with pytest.raises(InputError, match="3 of 60 rows cannot be used"):
        ingest(Source(), tmp_path, replace(CONFIG, max_rejected=0.01))
    source = Source()
    assert ingest(source, tmp_path).content["num_rows"] == NUM_ITEMS
    assert set(source.reads.values()) == {1}  # for writing alone


def change_config(raw):
    return raw, replace(CONFIG, train_without_text=0.5)


def change_text(raw):
    return replace(raw, items=[raw.items[0]._replace(text="another"), *raw.items[1:]]), CONFIG


def change_split(raw):
    return replace(raw, items=[raw.items[0]._replace(split="test"), *raw.items[1:]]), CONFIG


def keep_column(raw):
    items = [item._replace(columns={"camera": f"c{item.row % 3}"}) for item in raw.items]
    return replace(raw, items=items, columns=("camera",)), CONFIG


def drop_last_rows(raw):
    return replace(raw, items=raw.items[:50], num_rows=50), CONFIG


def change_state(raw):
    return replace(raw, image=lambda item: IMAGES[59], image_state=lambda item: "changed"), CONFIG


@pytest.mark.parametrize(
    "change", [change_config, change_text, change_split, keep_column, drop_last_rows, change_state]
)
def test_nothing_stale_is_reused(tmp_path, change):
    interrupted(tmp_path, at=50 + NUM_ITEMS)
    assert len(written(tmp_path)) > 20
    artifacts = []
    for root in (tmp_path, tmp_path / "fresh"):
        source = Source()
        source.raw, config = change(source.raw)
        artifacts.append(ingest(source, root, config))
    resumed, fresh = artifacts
    assert resumed.content_digest == fresh.content_digest
    assert resumed.content == fresh.content


def test_another_kept_column_costs_no_second_check_and_its_shards_are_resumed(tmp_path):
    interrupted(tmp_path, at=50 + NUM_ITEMS)
    without = written(tmp_path)
    kept = Source(30)
    kept.raw, _ = keep_column(kept.raw)
    with pytest.raises(KeyboardInterrupt):
        ingest(kept, tmp_path)
    assert set(kept.reads.values()) == {1} and min(kept.reads) == 0, "checks are reused, shards are not"
    assert len(without) > 20 and written(tmp_path) == without
    resumed = Source()
    resumed.raw, _ = keep_column(resumed.raw)
    artifact = ingest(resumed, tmp_path)
    assert 0 < len(resumed.reads) < NUM_ITEMS - 10 and 0 not in resumed.reads
    dataset = Dataset.of(artifact)
    assert dataset.columns == {"camera": tuple(f"c{(int(name[1:]) + 1) % 3}" for name in dataset.ids)}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("pattern", ["data-00000-*", "data-00001-*", "checks.jsonl"])
def test_damaged_work_is_done_again_and_said(tmp_path, caplog, pattern, damage):
    expected = ingest(Source(), tmp_path / "whole")
    interrupted(tmp_path, at=50 + NUM_ITEMS)
    [file] = (tmp_path / "work").rglob(pattern)
    for seed in range(3):
        caplog.clear()
        shutil.copytree(tmp_path / "work", tmp_path / str(seed) / "work")
        damaged = tmp_path / str(seed) / file.relative_to(tmp_path)
        DAMAGES[damage](damaged, random.Random(seed))
        is_torn = file.suffix == ".jsonl" and not damaged.read_bytes().endswith(b"\n")  # by a kill, which is no news
        result = ingest(Source(), tmp_path / str(seed))
        assert (result.content_digest, result.content) == (expected.content_digest, expected.content)
        if not is_torn:
            assert f"{damaged} is damaged: " in caplog.text or f"{damaged}, line " in caplog.text


def test_finished_shards_that_changed_places_are_not_taken(tmp_path):
    expected = ingest(Source(), tmp_path / "whole")
    interrupted(tmp_path, at=55 + NUM_ITEMS)
    first, second = sorted((tmp_path / "work").rglob("data-*.parquet"))[:2]
    swap(first, second)
    assert ingest(Source(), tmp_path).content_digest == expected.content_digest


def test_a_image_that_goes_away_between_the_passes_is_named(tmp_path):
    source = Source()
    read = source.raw.image
    source.raw = replace(source.raw, image=lambda item: read(item) if source.reads[item.row - 1] < 1 else None)
    with pytest.raises(InputError, match=r"table\.csv, row 1: the image 0\.png went away during the import; put it"):
        ingest(source, tmp_path)


def smooth(number, quality=90):
    """A smooth JPEG image; another quality gives other bytes of nearly the same one."""
    coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC).save(file, "JPEG", quality=quality)
    return file.getvalue()


NUM_DRAWN = 40
LOOKS = [index % 25 for index in range(NUM_DRAWN)]  # 25 to 39 are near copies of 0 to 14
ENCODED = [smooth(look, 95 if index < 25 else 85) for index, look in enumerate(LOOKS)]


class DrawnSource(Source):
    """The same, with splits to be drawn and copies among the images."""

    def __init__(self, interrupt_at=NEVER):
        super().__init__(interrupt_at)
        items = [RawItem(i + 1, f"i{i}", "text", ("boat", "water"), f"{i}.jpg", "") for i in range(NUM_DRAWN)]
        self.raw = replace(
            self.raw, num_rows=NUM_DRAWN, items=items, image=lambda item: self._read(ENCODED, item.row - 1)
        )


def split_by_id(artifact):
    return dict(zip((dataset := Dataset.of(artifact)).ids, dataset.splits.tolist(), strict=True))


@given(kills=st.lists(st.integers(1, 2 * NUM_DRAWN), min_size=1, max_size=3), copies=st.sampled_from(["group", "drop"]))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_copies_stay_together_wherever_it_is_killed(tmp_path_factory, kills, copies):
    config = DatasetConfig(copies=copies, val_fraction=0.3, test_fraction=0.3)
    expected = ingest(DrawnSource(), tmp_path_factory.mktemp("whole"), config)
    splits = split_by_id(expected)
    if copies == "group":
        assert [splits[f"i{index}"] for index in range(25, NUM_DRAWN)] == [splits[f"i{index}"] for index in range(15)]
    else:
        assert sorted(splits) == sorted(f"i{index}" for index in range(25))
        assert expected.content["rejected"] == {"copy of another image": 15}  # far above max_rejected: no faults
    root = tmp_path_factory.mktemp("killed")
    artifact = None
    for kill in [*kills, NEVER]:
        try:
            artifact = ingest(DrawnSource(kill), root, config)
        except KeyboardInterrupt:
            continue
        break
    assert artifact.content_digest == expected.content_digest
    assert artifact.content == expected.content


def test_an_import_that_did_not_look_for_copies_may_be_finished_by_one_that_does(tmp_path):
    config = DatasetConfig(val_fraction=0.3, test_fraction=0.3)
    with pytest.raises(KeyboardInterrupt):
        ingest(DrawnSource(30), tmp_path, replace(config, copies="keep"))
    resumed = ingest(DrawnSource(), tmp_path, config)
    assert resumed.content["copies"]["groups"] == 15
    assert ingest(DrawnSource(), tmp_path, replace(config, copies="keep")).content["copies"]["groups"] == 0


def test_copies_that_leave_a_split_empty_are_named(tmp_path):
    source = DrawnSource()
    source.raw = replace(source.raw, image=lambda item: smooth(1, 50 + item.row))
    with pytest.raises(InputError, match=r"no item is in the split .*; 40 have images that are copies of each other"):
        ingest(source, tmp_path)
    assert ingest(source, tmp_path, DatasetConfig(copies="keep")).content["num_items"] == NUM_DRAWN


def test_rows_with_rare_labels_only_are_no_faults(tmp_path, caplog):
    source = Source()
    labels = [("rare",) if index % 5 == 0 and index % 3 else ("boat", "water") for index in range(NUM_ITEMS)]
    items = [item._replace(labels=found) for item, found in zip(source.raw.items, labels, strict=True)]
    source.raw = replace(source.raw, items=items)
    content = ingest(source, tmp_path, DatasetConfig(min_label_count=2, max_rejected=0.05)).content
    assert content["rejected"] == {"rare labels only": 7, "undecodable image": 2, "image missing": 1}
    assert content["dropped_labels"] == {"rare": 0}

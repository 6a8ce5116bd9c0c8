"""An import that is interrupted anywhere and goes on: equal artifacts, and nothing done twice that was finished."""

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
from dagnn_core.data.dataset import KIND, SPLITS
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


def drop_last_rows(raw):
    return replace(raw, items=raw.items[:50], num_rows=50), CONFIG


def change_state(raw):
    return replace(raw, image=lambda item: IMAGES[59], image_state=lambda item: "changed"), CONFIG


@pytest.mark.parametrize("change", [change_config, change_text, change_split, drop_last_rows, change_state])
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

"""The cache of vectors: what is whole is taken, what is missing or damaged is computed again."""

import logging
import os
import re
import resource
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from dagnn_core.disk import DiskError
from dagnn_core.errors import BackendError
from dagnn_core.features.extraction import vector_cache
from dagnn_core.features.extraction.vector_cache import Part, VectorCache

NUM_ROWS = 11
KEY = {"encoder": "a"}
VECTORS = np.random.default_rng(0).random((NUM_ROWS, 3), dtype=np.float32)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(vector_cache, "SHARD_ROWS", 4)


def open_cache(root, key=KEY, num_rows=NUM_ROWS, dim=3):
    return VectorCache(root, key, num_rows=num_rows, dim=dim)


def fill(cache, *, vectors=VECTORS, fail_after=None):
    """Fill the cache, and return the shards that had to be computed, by their first rows."""
    computed = []

    def compute(shards):
        for rows in shards:
            if len(computed) == fail_after:
                raise KeyboardInterrupt
            computed.append(rows.start)
            yield torch.from_numpy(vectors[rows.start : rows.stop])

    with suppress(KeyboardInterrupt):
        cache.fill(compute, what="vectors")
    return computed


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_vectors_are_computed_once(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        assert fill(open_cache(tmp_path)) == [0, 4, 8]
    assert "from the cache" not in caplog.text
    np.testing.assert_array_equal(np.concatenate(list(open_cache(tmp_path).blocks())), VECTORS)
    with caplog.at_level(logging.INFO):
        assert fill(open_cache(tmp_path)) == []
    assert f"vectors: 11 of 11 rows from the cache {files(tmp_path)[0].parent}" in caplog.text
    assert [path.name for path in files(tmp_path)] == [f"shard-0000{n}.safetensors" for n in range(3)]


def test_what_was_finished_before_an_interruption_stays(tmp_path, caplog):
    assert fill(open_cache(tmp_path), fail_after=2) == [0, 4]
    with caplog.at_level(logging.INFO):
        assert fill(open_cache(tmp_path)) == [8]
    assert "vectors: 8 of 11 rows from the cache" in caplog.text


@pytest.mark.parametrize("change", [{"key": {"encoder": "b"}}, {"key": {"encoder": "a", "precision": "bf16"}}])
def test_another_key_shares_nothing(tmp_path, change):
    fill(open_cache(tmp_path))
    assert fill(open_cache(tmp_path, **change)) == [0, 4, 8]


def test_shards_of_another_size_are_others(tmp_path, monkeypatch):
    fill(open_cache(tmp_path))
    monkeypatch.setattr(vector_cache, "SHARD_ROWS", 6)
    assert fill(open_cache(tmp_path)) == [0, 6]


def _truncate(path):
    os.truncate(path, path.stat().st_size - 5)


def _flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _write_another_dimension(path):
    values = np.zeros((4, 2), dtype=np.float32)
    save_file({"vectors": values}, path, metadata={"sha256": vector_cache._sha256(values)})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(b"x" * 100), "cannot be read"),
        (_flip_a_bit, "is damaged"),
        (_write_another_dimension, "is damaged"),
        (lambda path: save_file({"vectors": VECTORS[4:8]}, path), "cannot be read"),
        (lambda path: save_file({"others": VECTORS[4:8]}, path, metadata={"sha256": ""}), "cannot be read"),
    ],
)
def test_a_damaged_shard_is_computed_again(tmp_path, caplog, damage, message):
    fill(open_cache(tmp_path))
    path = files(tmp_path)[1]
    damage(path)
    assert fill(open_cache(tmp_path)) == [4]
    assert re.search(rf"{path} {message}.*: its vectors are computed again", caplog.text)
    np.testing.assert_array_equal(np.concatenate(list(open_cache(tmp_path).blocks())), VECTORS)


def test_a_shard_that_goes_away_while_in_use_is_named(tmp_path):
    cache = open_cache(tmp_path)
    fill(cache)
    blocks = cache.blocks()
    next(blocks)
    files(tmp_path)[1].unlink()
    with pytest.raises(BackendError, match=r"shard-00001\.safetensors was removed or damaged while"):
        next(blocks)


def test_runs_at_the_same_time_leave_whole_shards(tmp_path):
    """The other run finishes everything while this one computes, with values that differ in their last bits."""
    others = VECTORS + np.float32(1e-6)

    def compute(shards):
        for rows in shards:
            fill(open_cache(tmp_path), vectors=others)
            yield torch.from_numpy(VECTORS[rows.start : rows.stop])

    open_cache(tmp_path).fill(compute, what="vectors")
    np.testing.assert_array_equal(np.concatenate(list(open_cache(tmp_path).blocks())), VECTORS)
    assert len(files(tmp_path)) == 3


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vector_cache.os, "fsync", refuse)
    with pytest.raises(DiskError, match=r"shard-00000\.safetensors: no space is left"):
        fill(open_cache(tmp_path))
    assert files(tmp_path) == []


@pytest.mark.parametrize("num_rows", [0, 1, 4, 5, 12, 37])
@pytest.mark.parametrize("num_parts", [1, 2, 3, 7, 20])
def test_parts_are_neighbouring_rows_that_cover_all(num_rows, num_parts, monkeypatch):
    monkeypatch.setattr(vector_cache, "SHARD_ROWS", 4)
    parts = [Part(number, num_parts).rows(num_rows) for number in range(num_parts)]
    assert [row for rows in parts for row in rows] == list(range(num_rows))
    sizes = [-(-len(rows) // 4) for rows in parts]  # in shards
    assert max(sizes) - min(sizes) <= 1
    assert all(rows.start % 4 == 0 for rows in parts if rows)
    assert not Part(num_parts, num_parts).rows(num_rows), "no such part"


def test_no_rows_are_no_shards(tmp_path):
    cache = open_cache(tmp_path, num_rows=0)
    assert fill(cache) == []
    assert list(cache.blocks()) == []


def test_a_shard_that_the_disk_refuses_is_named_and_leaves_nothing(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(
            DiskError, match=rf"^{tmp_path}/features/\w+/shard-00000\.safetensors: the file would be larger"
        ):
            fill(open_cache(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files(tmp_path) == []
    assert fill(open_cache(tmp_path)) == [0, 4, 8]

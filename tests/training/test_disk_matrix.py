"""Features on the disk: what is read, and that a training from the disk is that from memory to the bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dagnn_core.config.section import parse_section
from dagnn_core.config.train import TrainConfig
from dagnn_core.training import loop
from dagnn_core.training.disk_matrix import DiskMatrix
from dagnn_core.training.split import Split
from tests.training.test_training import CONFIG, MODEL, make_incomplete, make_split, run, same

CPU = torch.device("cpu")


def on_disk(split: Split, folder: Path) -> Split:
    """The same items, in the middle and in the other order of files that have more of them."""
    folder.mkdir(parents=True)
    rows = np.arange(len(split.labels))[::-1] + 3
    matrices = {}
    for name, matrix in (("image", split.image), ("text", split.text)):
        whole = np.full((len(rows) + 5, matrix.shape[1]), np.nan, np.float32)
        whole[rows] = matrix.numpy()
        np.save(folder / f"{name}.npy", whole)
        matrices[name] = DiskMatrix(np.load(folder / f"{name}.npy", mmap_mode="r"), rows, CPU)
    return split._replace(**matrices)


@pytest.fixture
def matrix(tmp_path: Path) -> DiskMatrix:
    """Row r of the file has the values 700 r, 700 r + 1 ...; a page of memory begins within a row."""
    np.save(tmp_path / "matrix.npy", np.arange(40 * 700, dtype=np.float32).reshape(40, 700))
    return DiskMatrix(np.load(tmp_path / "matrix.npy", mmap_mode="r"), np.arange(5, 35), CPU)


@pytest.mark.parametrize("rows", [[0], [29, 0, 7, 7], [], slice(None), slice(4, 9), slice(28, 99)], ids=str)
def test_rows_are_read_in_the_order_asked_for(matrix: DiskMatrix, rows: list[int] | slice) -> None:
    expected = torch.arange(40 * 700, dtype=torch.float32).reshape(40, 700)[5:35]
    wanted = rows if isinstance(rows, slice) else torch.tensor(rows, dtype=torch.int64)
    assert matrix.shape == (30, 700)
    assert torch.equal(matrix.read(wanted), expected[wanted])
    if not isinstance(wanted, slice):
        some = torch.tensor([3, 29, 3])
        assert torch.equal(matrix.select(some).read(torch.tensor([2, 1])), expected[some][[2, 1]])


@pytest.mark.parametrize("incomplete", ["skip", "mask", "reconstruct"])
def test_a_training_from_the_disk_is_that_from_memory_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, incomplete: str
) -> None:
    monkeypatch.setattr(loop, "VALIDATED_ITEMS", 24)
    config = replace(CONFIG, epochs=3, incomplete=incomplete, reconstruct_from=2)
    train_split, val_split = make_incomplete(make_split(129, seed=1)), make_split(60, seed=2)
    expected = run(tmp_path / "memory", config, train_split=train_split, val_split=val_split)
    from_disk = run(
        tmp_path / "disk",
        config,
        train_split=on_disk(train_split, tmp_path / "train"),
        val_split=on_disk(val_split, tmp_path / "val"),
    )
    assert same(expected, from_disk)


@pytest.mark.parametrize("changes", [{"kind": "ridge"}, {"preset": "best", "ranking": "hybrid"}], ids=str)
def test_what_looks_at_all_features_at_once_takes_them_from_the_disk_too(tmp_path: Path, changes: dict) -> None:
    model = parse_section(type(MODEL), {"embedding_dim": 8} | changes, "model")
    splits = {"train_split": make_split(129, seed=1), "val_split": make_split(60, seed=2)}
    config = TrainConfig(epochs=1, batch_size=16)
    expected = run(tmp_path / "memory", config, model_config=model, **splits)
    splits = {name: on_disk(split, tmp_path / name) for name, split in splits.items()}
    assert same(expected, run(tmp_path / "disk", config, model_config=model, **splits))


def test_batches_are_read_ahead_in_order_and_an_error_is_passed_on(tmp_path: Path) -> None:
    split = on_disk(make_split(70, seed=1), tmp_path / "files")
    batches = list(torch.randperm(70, generator=torch.Generator().manual_seed(1)).split(16))
    read = list(split.iterate(batches, reconstructed=False))
    assert len(read) == 5
    assert all(torch.equal(batch.image_labels, split.labels[rows]) for batch, rows in zip(read, batches, strict=True))
    with pytest.raises(IndexError):
        list(split.iterate([*batches, torch.tensor([70])], reconstructed=False))

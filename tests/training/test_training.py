"""The training loop: learns, is deterministic, resumes to the bit, stops early, and refuses to go on with NaN."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from dagnn_core.config import ModelConfig, TrainConfig
from dagnn_core.errors import InputError, SurroundingsError
from dagnn_core.training import checkpoint, loop
from dagnn_core.training.loop import Split, TrainingResult, train

MODEL = ModelConfig(embedding_dim=16, image_to_text_hidden=8, text_to_image_hidden=8, hops=2, batch_norm=True)
CONFIG = TrainConfig(epochs=6, batch_size=16, lr=3e-3)


class Recorder:
    """A logger that keeps what it is given, and can be interrupted."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.epochs: dict[int, dict[str, float]] = {}
        self.interrupt_at = interrupt_at

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        if step == self.interrupt_at:
            raise KeyboardInterrupt
        self.epochs[step] = dict(metrics)


def make_split(num_items: int, seed: int) -> Split:
    """Labels are visible in both modalities through two fixed random maps, with noise."""
    maps = np.random.default_rng(0)
    to_image, to_text = maps.normal(size=(4, 20)), maps.normal(size=(4, 12))
    rng = np.random.default_rng(seed)
    labels = (rng.random((num_items, 4)) < 0.4).astype(np.float32)
    labels[labels.sum(axis=1) == 0, 0] = 1
    image = labels @ to_image + 0.3 * rng.normal(size=(num_items, 20))
    text = labels @ to_text + 0.3 * rng.normal(size=(num_items, 12))
    return Split(*(torch.tensor(matrix, dtype=torch.float32) for matrix in (image, text, labels)))


def run(folder: Path, config: TrainConfig = CONFIG, **overrides: Any) -> TrainingResult:
    arguments: dict[str, Any] = {
        "train_split": make_split(129, seed=1),  # 8 batches of 16 and one item, which batch norm cannot train on
        "val_split": make_split(60, seed=2),
        "label_embeddings": np.random.default_rng(3).normal(size=(4, 6)),
        "adjacency": np.eye(4),
        "model_config": MODEL,
        "config": config,
        "logger": Recorder(),
        "checkpoint": folder / "checkpoint.safetensors",
        "checkpoint_seconds": 0.0,
    }
    return train(**(arguments | overrides))


def same(a: TrainingResult, b: TrainingResult) -> bool:
    weights = a.weights.keys() == b.weights.keys() and all(torch.equal(a.weights[k], b.weights[k]) for k in a.weights)
    return weights and a.history == b.history and a.val_metrics == b.val_metrics


def test_it_learns_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    recorder = Recorder()
    result = run(tmp_path, logger=recorder)
    history = [epoch["val_map_mean"] for epoch in result.history]
    assert history[-1] > history[0] + 0.05
    assert result.val_metrics["val_map_mean"] == max(history)
    assert result.val_metrics["best_epoch"] == 1 + history.index(max(history))
    assert recorder.epochs[2]["loss_total"] == result.history[1]["loss_total"]
    assert set(result.history[0]) == {
        "epoch", "loss_total", "loss_classification", "loss_modality_invariance", "loss_adversarial",
        "discriminator_accuracy_image", "discriminator_accuracy_text", "gradient_norm",
        "val_map_i2t", "val_map_t2i", "val_map_mean",
    }  # fmt: skip


def test_the_same_seed_gives_the_same_result_and_another_seed_another(tmp_path: Path) -> None:
    first = run(tmp_path / "a")
    assert same(first, run(tmp_path / "b"))
    other = TrainConfig(epochs=6, batch_size=16, lr=3e-3, seed=104)
    assert not same(first, run(tmp_path / "c", other))


@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_an_interrupted_training_resumes_to_the_bit(tmp_path: Path, epoch: int) -> None:
    expected = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "resumed", logger=Recorder(interrupt_at=epoch))
    recorder = Recorder()
    assert same(expected, run(tmp_path / "resumed", logger=recorder))
    assert min(recorder.epochs) == epoch, "finished epochs must not be trained again"


def test_a_damaged_checkpoint_means_training_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = run(tmp_path)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"half a file")
    with caplog.at_level(logging.WARNING):
        assert same(expected, run(tmp_path))
    assert "training starts over" in caplog.text


def test_a_disk_that_takes_no_checkpoint_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(SurroundingsError, match=r"checkpoint.safetensors: the checkpoint cannot be written .*No space"):
        run(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_it_stops_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = iter([0.5, 0.6, 0.55, 0.6, 0.4, 0.9])
    names = ("val_map_i2t", "val_map_t2i", "val_map_mean")
    monkeypatch.setattr(loop, "_validate", lambda *_: dict.fromkeys(names, next(figures)))
    result = run(tmp_path, TrainConfig(epochs=6, patience=3, batch_size=16))
    assert [epoch["val_map_mean"] for epoch in result.history] == [0.5, 0.6, 0.55, 0.6, 0.4]
    assert result.val_metrics["best_epoch"] == 2


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    broken = make_split(129, seed=1)
    broken.image[5, 3] = float("nan")
    with pytest.raises(InputError, match=r"loss is not finite in epoch 1, step \d+ .*classification nan"):
        run(tmp_path, train_split=broken)


def test_a_split_that_is_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the val split has 1 items, expected at least 2"):
        run(tmp_path, val_split=make_split(1, seed=2))


@given(num_items=st.integers(2, 200), batch_size=st.integers(2, 50), seed=st.integers(0, 5))
def test_batches_cover_every_item_once(num_items: int, batch_size: int, seed: int) -> None:
    batches = loop._batches(num_items, batch_size, torch.Generator().manual_seed(seed))
    rows = torch.cat(batches).tolist()
    left_out = 1 if num_items % batch_size == 1 else 0
    assert len(rows) == len(set(rows)) == num_items - left_out
    assert all(1 < len(batch) <= batch_size for batch in batches)

"""The training loop: learns, is deterministic, resumes to the bit, stops early, and stops at NaN."""

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from dagnn_core import tensors
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import parse_section
from dagnn_core.config.train import TrainConfig
from dagnn_core.errors import BackendError, InputError
from dagnn_core.model.kinds import build_network
from dagnn_core.nn.dagnn import DAGNN
from dagnn_core.nn.label_graphs import GraphTensors
from dagnn_core.training import loop
from dagnn_core.training.loop import TrainingResult, train
from dagnn_core.training.optimizer import learning_rate, reversal_strength
from dagnn_core.training.split import Split, reconstruct

SMALL = {
    "embedding_dim": 16,
    "image_to_text_hidden": 8,
    "text_to_image_hidden": 8,
    "hops": 2,
    "encoder_norm": "batch",
    "adversary_norm": "batch",
}
MODEL = parse_section(ModelConfig, SMALL, "model")
CONFIG = TrainConfig(epochs=6, batch_size=16, lr=3e-3)
GRAPH = GraphTensors(torch.randn(4, 6, generator=torch.Generator().manual_seed(3)), torch.eye(4), torch.eye(4), 0.4)


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
    matrices = (torch.tensor(matrix, dtype=torch.float32) for matrix in (image, text, labels))
    present = torch.ones(num_items, dtype=torch.bool)
    return Split(*matrices, present, present)


def make_incomplete(split: Split) -> Split:
    """Take modalities away, TPAMI 2022: of five items one stays complete, two keep their image, two their text."""
    position = torch.arange(len(split.labels)) % 5
    has_image, has_text = position <= 2, (position == 0) | (position > 2)
    return split._replace(
        # what must not be read would be seen at once
        image=torch.where(has_image[:, None], split.image, torch.nan),
        text=torch.where(has_text[:, None], split.text, torch.nan),
        has_image=has_image,
        has_text=has_text,
    )


def run(folder: Path, config: TrainConfig = CONFIG, **overrides: Any) -> TrainingResult:
    arguments: dict[str, Any] = {
        "train_split": make_split(129, seed=1),  # 8 batches of 16 and one item, which batch norm cannot train on
        "val_split": make_split(60, seed=2),
        "graph": GRAPH,
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


RECORDER = Recorder()
"""Of the undisturbed training."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """What the other trainings of these data have to come to."""
    return run(tmp_path_factory.mktemp("undisturbed"), logger=RECORDER)


def test_it_learns_and_keeps_the_best_epoch(undisturbed: TrainingResult) -> None:
    result = undisturbed
    history = [epoch["val_map_mean"] for epoch in result.history]
    assert history[-1] > history[0] + 0.05
    assert result.val_metrics["val_map_mean"] == max(history)
    assert result.val_metrics["best_epoch"] == 1 + history.index(max(history))
    assert RECORDER.epochs[2]["loss_total"] == result.history[1]["loss_total"]
    assert set(result.history[0]) == {
        "epoch", "loss_total", "loss_classification", "loss_modality_invariance", "loss_adversarial",
        "discriminator_accuracy_image", "discriminator_accuracy_text", "gradient_norm",
        "val_map_i2t", "val_map_t2i", "val_map_mean",
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "two_tower"},
        {"kind": "dscmr"},
        {"kind": "cca"},
        {"kind": "ridge"},
        {"preset": "tpami22", "graph_layer": "gat"},
        {"preset": "best"},
        {"discriminator": "none"},
        {"graph": "none"},
        {"aggregation": "last"},
        {"hops": 1},
    ],
    ids=str,
)
def test_every_kind_and_variant_learns(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = parse_section(ModelConfig, SMALL | changes, "model")
    result = run(tmp_path, TrainConfig(epochs=4, batch_size=16, lr=1e-2), model_config=model)
    relevant = make_split(60, seed=2).labels
    chance = (relevant @ relevant.T > 0).double().mean().item()
    assert result.val_metrics["val_map_mean"] > chance + 0.1
    assert "image_encoder" in {name.split(".")[0] for name in result.weights}
    assert len(result.history) == (1 if model.kind in ("cca", "ridge") else 4)


def test_incomplete_items_are_used_where_something_is_there(tmp_path: Path) -> None:
    incomplete = make_incomplete(make_split(400, seed=1))
    results = {
        how: run(tmp_path / how, replace(CONFIG, epochs=3, incomplete=how, reconstruct_from=3), train_split=incomplete)
        for how in ("skip", "mask", "reconstruct")
    }
    maps = {how: result.val_metrics["val_map_mean"] for how, result in results.items()}
    assert maps["mask"] > maps["skip"] + 0.02
    first, third = (
        results["mask"].history[number]["loss_total"] == results["reconstruct"].history[number]["loss_total"]
        for number in (0, 2)
    )
    assert first and not third, "reconstruction begins with epoch 3"
    complete = run(tmp_path / "complete", replace(CONFIG, epochs=3), train_split=incomplete.pairs())
    assert same(complete, results["skip"])


def test_reconstruction_leaves_what_is_there(tmp_path: Path) -> None:
    incomplete = make_incomplete(make_split(50, seed=1))
    network = build_network(MODEL, image_dim=20, text_dim=12, graph=GRAPH)
    assert isinstance(network, DAGNN)
    filled = reconstruct(incomplete, network)
    assert torch.equal(filled.image[incomplete.has_image], incomplete.image[incomplete.has_image])
    assert torch.isfinite(filled.image).all() and torch.isfinite(filled.text).all()
    batch = filled.batch(torch.arange(10), reconstructed=True)
    assert (len(batch.image), batch.num_real_image, len(batch.text), batch.num_real_text) == (10, 6, 10, 6)
    assert (batch.image_of_pair.tolist(), batch.text_of_pair.tolist()) == ([0, 3], [0, 3]), "items 0 and 5"
    rows = [0, 1, 2, 5, 6, 7, 3, 4, 8, 9]  # real ones first
    assert torch.equal(batch.image, filled.image[rows]) and torch.equal(batch.image_labels, filled.labels[rows])


def test_an_interrupted_training_with_everything_resumes_to_the_bit(tmp_path: Path) -> None:
    config = replace(
        CONFIG,
        epochs=4,
        weight_averaging=0.9,
        lr_schedule="cosine",
        warmup_epochs=2,
        weight_decay=0.1,
        reversal="ramp",
        incomplete="reconstruct",
        reconstruct_from=2,
    )
    split = make_incomplete(make_split(129, seed=1))
    model = replace(MODEL, image_dropout=0.2, text_dropout=0.1)
    expected = run(tmp_path / "whole", config, train_split=split, model_config=model)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "resumed", config, train_split=split, model_config=model, logger=Recorder(interrupt_at=3))
    assert same(expected, run(tmp_path / "resumed", config, train_split=split, model_config=model))


def test_averaged_weights_are_what_is_validated_and_kept(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", replace(CONFIG, epochs=1))
    averaged = run(tmp_path / "averaged", replace(CONFIG, epochs=1, weight_averaging=0.99))
    assert plain.history[0]["loss_total"] == averaged.history[0]["loss_total"]
    name = "image_encoder.linears.0.weight"
    start = torch.manual_seed(CONFIG.seed) and build_network(MODEL, image_dim=20, text_dim=12, graph=GRAPH)
    moved = [(weights[name] - start.state_dict()[name]).norm() for weights in (plain.weights, averaged.weights)]
    assert 0 < moved[1] < moved[0]


def test_schedules() -> None:
    config = TrainConfig(epochs=10, lr=2.0, lr_schedule="cosine", warmup_epochs=2, reversal="ramp")
    assert learning_rate(config, 1.0) == pytest.approx(2 * 0.5 * (1 + math.cos(math.pi / 10)) / 2)
    assert learning_rate(config, 5.0) == pytest.approx(1.0)
    assert learning_rate(config, 10.0) == pytest.approx(0.0)
    assert learning_rate(TrainConfig(lr=2.0), 7.3) == 2.0
    assert reversal_strength(config, 0.0) == 0.0
    assert reversal_strength(config, 5.0) == pytest.approx(2 / (1 + math.exp(-5)) - 1)
    assert reversal_strength(TrainConfig(), 0.0) == 1.0


def test_reconstruction_without_generators_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train.incomplete is reconstruct, .* model.discriminator is none; set"):
        run(tmp_path, TrainConfig(incomplete="reconstruct"), model_config=ModelConfig(discriminator="none"))


def test_batches_without_enough_of_a_modality_are_refused(tmp_path: Path) -> None:
    split = make_split(40, seed=1)
    has_text = torch.zeros(40, dtype=torch.bool)
    has_text[:3] = True
    split = split._replace(has_text=has_text)
    with pytest.raises(InputError, match=r"no batch of epoch 1 has 2 images and 2 texts; raise train.batch_size"):
        run(tmp_path, TrainConfig(batch_size=2, seed=5), train_split=split)
    with pytest.raises(InputError, match="the train split has 0 texts to work with, expected at least 2"):
        run(tmp_path, train_split=split._replace(has_text=torch.zeros(40, dtype=torch.bool)))


def test_the_same_seed_gives_the_same_result_and_another_seed_another(
    undisturbed: TrainingResult, tmp_path: Path
) -> None:
    assert same(undisturbed, run(tmp_path / "a"))
    assert not same(undisturbed, run(tmp_path / "b", replace(CONFIG, seed=104)))


def test_deterministic_algorithms_give_the_result_that_a_cpu_gives_in_any_case(
    undisturbed: TrainingResult, tmp_path: Path
) -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    try:
        assert same(undisturbed, run(tmp_path, replace(CONFIG, deterministic=True)))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("preset", ["aaai21", "tpami22", "best"])
def test_bf16_is_close_to_float32(tmp_path: Path, preset: str) -> None:
    model = parse_section(ModelConfig, SMALL | {"preset": preset}, "model")
    short = replace(CONFIG, epochs=3)
    single = run(tmp_path / "float32", short, model_config=model)
    half = run(tmp_path / "bf16", replace(short, precision="bf16"), model_config=model)
    for expected, got in zip(single.history, half.history, strict=True):
        assert expected["loss_total"] != got["loss_total"] == pytest.approx(expected["loss_total"], rel=1e-2)
        assert got["val_map_mean"] == pytest.approx(expected["val_map_mean"], abs=0.02)
    assert all(half.weights[name].dtype == weight.dtype for name, weight in single.weights.items())


@pytest.mark.parametrize("epoch", [1, 4])
def test_an_interrupted_training_resumes_to_the_bit(undisturbed: TrainingResult, tmp_path: Path, epoch: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, logger=Recorder(interrupt_at=epoch))
    recorder = Recorder()
    assert same(undisturbed, run(tmp_path, logger=recorder))
    assert min(recorder.epochs) == epoch, "finished epochs must not be trained again"


def test_a_damaged_checkpoint_means_training_again(
    undisturbed: TrainingResult, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"half a file")
    with caplog.at_level(logging.WARNING):
        assert same(undisturbed, run(tmp_path))
    assert "training starts over" in caplog.text


def test_a_disk_that_takes_no_checkpoint_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(tensors, "save_file", full)
    with pytest.raises(BackendError, match=r"checkpoint.safetensors: no space is left on its disk: "):
        run(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_it_stops_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.5, 0.6, 0.55, 0.6, 0.4, 0.9])
    names = ("val_map_i2t", "val_map_t2i", "val_map_mean")
    monkeypatch.setattr(loop, "_validate", lambda *_: dict.fromkeys(names, next(values)))
    result = run(tmp_path, TrainConfig(epochs=6, patience=3, batch_size=16))
    assert [epoch["val_map_mean"] for epoch in result.history] == [0.5, 0.6, 0.55, 0.6, 0.4]
    assert result.val_metrics["best_epoch"] == 2


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    broken = make_split(129, seed=1)
    broken.image[5, 3] = float("nan")
    with pytest.raises(InputError, match=r"loss is not finite in epoch 1, step \d+ .*classification nan"):
        run(tmp_path, train_split=broken)


def test_a_split_that_is_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the val split has 1 images to work with, expected at least 2"):
        run(tmp_path, val_split=make_split(1, seed=2))


@settings(max_examples=40)
@given(num_items=st.integers(2, 200), batch_size=st.integers(2, 50), seed=st.integers(0, 5))
def test_batches_cover_every_item_once(num_items: int, batch_size: int, seed: int) -> None:
    batches = make_split(num_items, 0).draw_batches(batch_size, torch.Generator().manual_seed(seed))
    rows = torch.cat(batches).tolist()
    left_out = 1 if num_items % batch_size == 1 else 0
    assert len(rows) == len(set(rows)) == num_items - left_out
    assert all(1 < len(batch) <= batch_size for batch in batches)

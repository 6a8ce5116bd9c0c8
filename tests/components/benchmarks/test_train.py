"""`dagnn bench train`: what is timed computes the same, and what is counted is right."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from components.benchmarks import train
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import parse_section
from dagnn_core.config.train import TrainConfig
from dagnn_core.training.kept_memory import kept_memory
from dagnn_core.training.loop import new_state, train_epoch
from pipeline.cli.main import app

CPU = torch.device("cpu")
SMALL = {"IMAGE_DIM": 32, "TEXT_DIM": 16, "ITEMS_PER_TURN": 16, "MATRIX_SIZE": 64, "ARRAY_ENTRIES": 1 << 16}
SMALL |= {"DISK_IMAGE_DIM": 20, "DISK_TEXT_DIM": 12}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(train, name, value)


@pytest.mark.parametrize("preset", ["aaai21", "tpami22"])
def test_the_naive_loop_learns_what_ours_learns(preset: str) -> None:
    model = parse_section(ModelConfig, {"preset": preset, "embedding_dim": 8}, "model")
    config = TrainConfig(batch_size=12)
    split = train._random_split(12, CPU)  # one batch, so that the order of the items does not matter
    graph = train._random_graph(split.labels.numpy())
    state = new_state(split, graph, model, config)
    naive = train._Naive(split, graph, model, config)
    for _ in range(2):
        assert naive.train(None) == pytest.approx(train_epoch(state, split, model, config)["loss_total"], rel=1e-5)
    for mine, theirs in zip(state.network.parameters(), naive.network.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-6)  # a step is 5e-5


def test_products_and_bytes_of_a_step_are_counted() -> None:
    model = parse_section(ModelConfig, {"preset": "best", "embedding_dim": 8, "graph": "none"}, "model")
    config = parse_section(TrainConfig, {"preset": "best", "batch_size": 10}, "train")
    split = train._random_split(10, CPU)
    state = new_state(split, train._random_graph(split.labels.numpy()), model, config)
    b, d, labels = 10, 8, train.NUM_LABELS
    features = train.IMAGE_DIM + train.TEXT_DIM
    encoders = 2 * b * features * d  # forward, and gradients of the weights
    scores = 2 * 3 * b * d * labels  # of images and texts, forward and both gradients
    pairs = 3 * 3 * b * d * b + 3 * b * labels * b  # (I, T), (I, I), (T, T), and the labels that they share
    assert train._count_flops(state, split, model) == 2 * (encoders + scores + pairs)
    weights = features * d + 2 * d + labels * d + (1 + labels) + (1 + 1)  # the last ones of the calibrations
    assert train._optimizer_bytes(state) == 4 * weights * (7 + 3)


@pytest.mark.slow
def test_rows_have_rates_ratios_and_memory(tmp_path: Path) -> None:
    arguments = ["bench", "train", "--preset", "aaai21", "--preset", "best", "--batch", "8", "--seconds", "0"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "rows.json")], catch_exceptions=False)
    rows = json.loads((tmp_path / "rows.json").read_text())
    table = (tmp_path / "rows.md").read_text()
    assert table in result.output
    assert [row["preset"] for row in rows[:2]] == ["aaai21", "best"]
    for row in rows[:2]:
        assert row["samples/s"] > 0 and row["naive: samples/s"] > 0 and row["turns"] == train.MIN_TURNS
        assert row["GFLOP/s"] == pytest.approx(row["samples/s"] / 8 * row["GFLOP a step"])
        assert row["of the matrix rate"] > 0 and row["of the bound"] > 0
    if not torch.cuda.is_available():
        assert rows[2:] == [{"device": "cuda", "samples/s": "not measured"}] and "not measured" in table


def test_items_on_the_disk_are_timed_by_their_number(tmp_path: Path) -> None:
    rows = train.run_sizes(sizes=[30, 60], batch_size=8, seconds=0.01, folder=tmp_path)
    assert [row["items"] for row in rows] == [30, 60]
    assert rows[1]["features: GB"] == pytest.approx(60 * 32 * 4 / 1e9)
    for row in rows:
        assert row["samples/s"] > 0 and row["CPU microseconds a sample"] > 0
    assert not list(tmp_path.iterdir()), "the features are removed"


def test_peak_memory_is_what_the_body_takes() -> None:
    with train._peak_memory(CPU) as peak, kept_memory():
        block = torch.ones(800 << 20, dtype=torch.uint8)
    assert 720 < peak() / train.MIB < 880  # the process gives other memory back meanwhile, or takes some
    del block

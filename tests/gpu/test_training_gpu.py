"""Training on a GPU: the same losses as on the CPU; the same to the bit where asked for; on several GPUs as on one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import parse_section
from dagnn_core.config.train import TrainConfig
from dagnn_core.nn.label_graphs import GraphTensors
from dagnn_core.training.loop import TrainingResult, train
from dagnn_core.training.split import Split
from tests.training import together
from tests.training.test_parallel import assert_equal_but_for_rounding, run_together

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SMALL = {"embedding_dim": 16, "image_to_text_hidden": 8, "text_to_image_hidden": 8, "hops": 2, "image_dropout": 0.0}
GRAPH = GraphTensors(torch.rand(4, 6), torch.eye(4), torch.eye(4), 0.4)


class NoLogger:
    def log_metrics(self, metrics: Any, step: int) -> None:
        """Take them, and forget them."""


def make_split(num_items: int, device: str) -> Split:
    generator = torch.Generator().manual_seed(num_items)
    labels = (torch.rand(num_items, 4, generator=generator) < 0.5).float()
    labels[:, 0] = 1
    image, text = (labels @ torch.rand(4, dim, generator=generator) for dim in (20, 12))
    present = torch.arange(num_items)
    has_image, has_text = present % 5 != 1, present % 5 != 2
    return Split(image.to(device), text.to(device), labels.to(device), has_image, has_text)


@pytest.mark.parametrize("preset", ["aaai21", "tpami22", "best"])
@pytest.mark.parametrize("incomplete", ["skip", "mask", "reconstruct"])
def test_losses_are_those_of_the_cpu(tmp_path: Path, preset: str, incomplete: Any) -> None:
    discriminator = {"discriminator": "relu"} if preset == "best" else {}
    model = parse_section(ModelConfig, {"preset": preset} | SMALL | discriminator, "model")
    config = parse_section(TrainConfig, {"preset": preset, "epochs": 3, "batch_size": 16}, "train")

    def run(device: str) -> TrainingResult:
        return train(
            train_split=make_split(80, device),
            val_split=make_split(40, device).pairs(),
            graph=GRAPH,
            model_config=model,
            config=replace(config, incomplete=incomplete, reconstruct_from=2),
            logger=NoLogger(),
            checkpoint=tmp_path / device / "checkpoint.safetensors",
            checkpoint_seconds=0.0,
        )

    cpu, gpu = run("cpu"), run("cuda")
    for expected, got in zip(cpu.history, gpu.history, strict=True):
        for name, value in expected.items():
            if name.startswith("loss"):
                assert got[name] == pytest.approx(value, rel=1e-3), name


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_deterministic_training_gives_the_same_weights_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    changes = {"preset": "tpami22", "reconstruction_weight": 0.3, "text_dropout": 0.1}
    weights = [
        train(
            train_split=make_split(80, "cuda"),
            val_split=make_split(40, "cuda").pairs(),
            graph=GRAPH,
            model_config=parse_section(ModelConfig, SMALL | changes, "model"),
            config=TrainConfig(epochs=3, batch_size=16, deterministic=True, precision=precision),
            logger=NoLogger(),
            checkpoint=tmp_path / name / "checkpoint.safetensors",
        ).weights
        for name in ("first", "second")
    ]
    torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(*weights, rtol=0, atol=0)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_give_the_result_of_one(tmp_path: Path) -> None:
    names = ["aaai21", "tpami22", "best", "incomplete"]
    together.run(names, tmp_path / "one", device="cuda")
    assert run_together(names, tmp_path / "two", device="cuda", num_processes=2) == 0
    for name in names:
        assert_equal_but_for_rounding(tmp_path / "one" / name, tmp_path / "two" / name)

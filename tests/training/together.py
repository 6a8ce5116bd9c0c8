"""A program for tests: train variants in the processes that torchrun starts, in float64, and write the results."""

import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import parse_section
from dagnn_core.config.train import TrainConfig
from dagnn_core.nn.label_graphs import GraphTensors
from dagnn_core.parallel import is_main, joined_processes
from dagnn_core.training.loop import train
from dagnn_core.training.split import Split

SMALL = {"embedding_dim": 16, "image_to_text_hidden": 8, "text_to_image_hidden": 8, "hops": 2}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "aaai21": ({}, {}),
    "tpami22": ({"preset": "tpami22"}, {}),
    "best": ({"preset": "best"}, {"preset": "best", "epochs": 3, "patience": 3}),
    "pair_memory": ({"preset": "few_labels", "pair_memory": 20}, {"preset": "best", "epochs": 2, "patience": 2}),
    "two_tower": ({"kind": "two_tower"}, {}),
    "dscmr": ({"kind": "dscmr"}, {}),
    "two_items_a_step": ({}, {"batch_size": 2, "epochs": 1}),
    "stops_early": ({}, {"epochs": 20, "patience": 1, "lr": 0.1}),
    "incomplete": (
        {"preset": "tpami22", "reconstruction_weight": 0.3, "text_dropout": 0.1},
        {"incomplete": "reconstruct", "reconstruct_from": 2, "weight_averaging": 0.9},
    ),
}
"""Name -> keys of the sections `model` and `train`."""


@dataclass
class Fatal:
    """A logger that kills its process, as running out of memory would."""

    epoch: int

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        if step == self.epoch:
            os.kill(os.getpid(), signal.SIGKILL)


def make_split(num_items: int, seed: int, device: str = "cpu") -> Split:
    """Labels are visible in both modalities through two fixed random maps, with noise; some items are incomplete."""
    maps = [torch.randn(4, dim, generator=torch.Generator().manual_seed(dim)) for dim in (20, 12)]
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(num_items, 4, generator=generator) < 0.4).to(maps[0])
    labels[:, 0] = 1
    image, text = (labels @ to + 0.3 * torch.randn(num_items, to.shape[1], generator=generator) for to in maps)
    position = torch.arange(num_items)
    matrices = (matrix.to(device) for matrix in (image, text, labels))
    return Split(*matrices, position % 5 != 1, position % 5 != 2)


def run(names: Iterable[str], out: Path, *, die_in_epoch: int = 0, device: str = "cpu") -> None:
    """Train these variants, and write the results below `out`, as the first process has them."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        _run(names, out, die_in_epoch, device)
    finally:
        torch.set_default_dtype(before)


def _run(names: Iterable[str], out: Path, die_in_epoch: int, device: str) -> None:
    graph = GraphTensors(torch.randn(4, 6, generator=torch.Generator().manual_seed(3)), torch.eye(4), torch.eye(4), 0.4)
    for name in names:
        model, config = VARIANTS[name]
        result = train(
            train_split=make_split(67, 1, device),
            val_split=make_split(50, 2, device).pairs(),
            graph=graph,
            model_config=parse_section(ModelConfig, SMALL | model, "model"),
            config=parse_section(
                TrainConfig, {"epochs": 3, "batch_size": 16, "lr": 3e-3, "incomplete": "skip"} | config, "train"
            ),
            logger=Fatal(die_in_epoch),
            checkpoint=(out if is_main() else out / "another disk") / name / "checkpoint.safetensors",
            checkpoint_seconds=0.0,
        )
        if is_main():
            save_file(result.weights, out / name / "weights.safetensors")
            (out / name / "history.json").write_text(json.dumps(result.history))


if __name__ == "__main__":
    with joined_processes(torch.device(sys.argv[3])):
        run(sys.argv[4:], Path(sys.argv[1]), die_in_epoch=int(sys.argv[2]), device=sys.argv[3])

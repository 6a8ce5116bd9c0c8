"""Several processes train what one process trains: same losses, weights and epochs, also after one of them has died."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dagnn_core import parallel
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.train import TrainConfig
from dagnn_core.errors import BackendError, InputError
from dagnn_core.nn.label_graphs import GraphTensors
from dagnn_core.training import loop
from tests.training.together import VARIANTS, Fatal, make_split, run

ROOT = Path(__file__).parents[2]
NUM_PROCESSES = 3  # shares of a batch are unequal, and of two items one share is empty


def run_together(
    names: Iterable[str], out: Path, *, die_in_epoch: int = 0, device: str = "cpu", num_processes: int = NUM_PROCESSES
) -> int:
    arguments = [str(out), str(die_in_epoch), device, *names]
    torchrun = ["-m", "torch.distributed.run", "--nnodes=1", f"--nproc-per-node={num_processes}"]
    torchrun += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]  # a free port
    return subprocess.run(
        [sys.executable, *torchrun, "-m", "tests.training.together", *arguments], cwd=ROOT, check=False, timeout=300
    ).returncode


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    run(VARIANTS, out)
    return out


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("together")
    assert run_together(VARIANTS, out) == 0
    return out


def assert_equal_but_for_rounding(expected: Path, got: Path) -> None:
    histories = [json.loads((folder / "history.json").read_text()) for folder in (expected, got)]
    assert len(histories[0]) == len(histories[1])
    for one, other in zip(*histories, strict=True):
        assert other == pytest.approx(one, rel=1e-9)
    torch.testing.assert_close(*weights(expected, got), rtol=1e-9, atol=1e-11)


def weights(*folders: Path) -> list[dict[str, torch.Tensor]]:
    return [load_file(folder / "weights.safetensors") for folder in folders]


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_the_result_is_that_of_one_process(alone: Path, together: Path, name: str) -> None:
    assert_equal_but_for_rounding(alone / name, together / name)


@pytest.mark.slow
def test_the_first_process_decides_when_to_stop(together: Path) -> None:
    assert 1 < len(json.loads((together / "stops_early" / "history.json").read_text())) < 20


@pytest.mark.slow
def test_when_one_process_dies_all_end_and_training_goes_on_to_the_bit(
    alone: Path, together: Path, tmp_path: Path
) -> None:
    name = "incomplete"
    assert run_together([name], tmp_path, die_in_epoch=3) != 0
    shutil.copytree(tmp_path, tmp_path / "alone")
    assert run_together([name], tmp_path) == 0
    history, resumed = ((folder / name / "history.json").read_text() for folder in (together, tmp_path))
    assert resumed == history
    torch.testing.assert_close(*weights(together / name, tmp_path / name), rtol=0, atol=0)
    run([name], tmp_path / "alone")
    assert_equal_but_for_rounding(alone / name, tmp_path / "alone" / name)


def train(folder: Path, model: ModelConfig) -> None:
    loop.train(
        train_split=make_split(40, seed=1),
        val_split=make_split(40, seed=2).pairs(),
        graph=GraphTensors(torch.eye(4), torch.eye(4), torch.eye(4), 0.4),
        model_config=model,
        config=TrainConfig(epochs=1),
        logger=Fatal(0),
        checkpoint=folder / "checkpoint.safetensors",
    )


def test_closed_form_baselines_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "num_processes", lambda: 2)
    with pytest.raises(InputError, match=r"model.kind ridge is fitted .* by one process, but torchrun started 2; run"):
        train(tmp_path, ModelConfig(kind="ridge"))


def test_a_lost_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_: torch.Tensor) -> None:
        raise RuntimeError("Connection closed by peer [127.0.0.1]:43210")

    monkeypatch.setattr(parallel, "num_processes", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", closed)
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    with pytest.raises(BackendError, match=r"another process .* has ended, .*; .* run the same command again"):
        parallel.average_gradients([weight])


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with (
        pytest.raises(InputError, match=r"more processes on this machine than it has GPUs \(2\), .*; lower --nproc"),
        parallel.joined_processes(torch.device("cuda")),
    ):
        raise AssertionError

"""Checkpoints of a training: one safetensors file, replaced atomically, from which training resumes to the bit."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from dagnn_core.disk import writing
from dagnn_core.losses.pair_memory import PairMemory
from dagnn_core.nn.cross_modal import CrossModalNetwork
from dagnn_core.tensors import num_bytes

log = logging.getLogger(__name__)

Epoch = dict[str, float]
_REMEMBERED = ("image", "text", "rows")


@dataclass(kw_only=True, slots=True)
class TrainingState:
    """All that changes while training: what a checkpoint saves and restores."""

    network: CrossModalNetwork
    average: AveragedModel | None
    """Moving average of the network's weights and buffers, where there is one."""
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    """Draws the order of the batches."""
    pair_memory: PairMemory | None = None
    """Pairs of earlier steps, where `model.pair_memory` asks for them."""
    history: list[Epoch] = field(default_factory=list)
    """One mapping per finished epoch."""
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    """Weights and buffers of the epoch with the best validation MAP."""
    best_metrics: Epoch = field(default_factory=dict)
    """Validation metrics of that epoch."""


def save_checkpoint(path: Path, state: TrainingState) -> None:
    """Write the state to `path`; a kill at any moment leaves the old checkpoint or the new one.

    Raises:
        DiskError: the disk refuses it.
    """
    # cloned, since safetensors takes no weights that two layers share
    tensors = {f"network.{name}": value.clone() for name, value in state.network.state_dict().items()}
    if state.average is not None:
        tensors |= {f"average.{name}": value.clone() for name, value in state.average.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in state.best_weights.items()}
    tensors["generator"] = state.generator.get_state()
    name, dropout = _dropout_generator(state)
    tensors[name] = dropout.get_rng_state()
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    if state.pair_memory is not None:
        tensors |= {f"pair_memory.{name}": getattr(state.pair_memory, name) for name in _REMEMBERED}
    record = json.dumps({"history": state.history, "best_metrics": state.best_metrics})
    header = {"record": record, "sha256": _digest(path, record, tensors)}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    try:
        with writing(path, need=num_bytes(tensors)):
            save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, metadata=header)
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def checkpoint_bytes(state: TrainingState) -> int:
    """Size of a checkpoint but for its header: weights, their average, the best ones, moments, remembered pairs."""
    weights = num_bytes(state.network.state_dict())
    trained = sum(parameter.nbytes for parameter in state.network.parameters())
    memory = state.pair_memory
    pairs = 0 if memory is None else memory.capacity * (2 * memory.image.shape[1] * 4 + 8)
    return (2 if state.average is None else 3) * weights + 2 * trained + pairs


def restore_checkpoint(path: Path, state: TrainingState) -> None:
    """Set `state` to what `path` holds; where there is no usable checkpoint, leave it as it is."""
    if not path.is_file():
        return
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, RuntimeError) as error:
        log.warning("%s cannot be read (%s): training starts over", path, error)
        return
    text = header.get("record", "")
    if header.get("sha256") != _digest(path, text, tensors):
        log.warning("%s is damaged: training starts over", path)
        return
    record = json.loads(text)
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _under(tensors, "optimizer.").items():
        index, _, moment = name.partition(".")
        moments.setdefault(int(index), {})[moment] = value
    state.network.load_state_dict(_under(tensors, "network."))
    if state.average is not None:
        state.average.load_state_dict(_under(tensors, "average."))
    state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": moments})
    state.generator.set_state(tensors["generator"])
    name, dropout = _dropout_generator(state)
    if name in tensors:  # not where a training resumes on another kind of device
        dropout.set_rng_state(tensors[name])
    if state.pair_memory is not None:
        for name, value in _under(tensors, "pair_memory.").items():
            setattr(state.pair_memory, name, value.to(state.pair_memory.rows.device))
    state.history = record["history"]
    state.best_weights = _under(tensors, "best.")
    state.best_metrics = record["best_metrics"]
    log.info("resuming after epoch %d from %s", len(state.history), path)


def _dropout_generator(state: TrainingState) -> tuple[str, ModuleType]:
    # dropout draws from the global generator of the device
    on_gpu = next(state.network.parameters()).is_cuda
    return ("dropout.cuda", torch.cuda) if on_gpu else ("dropout.cpu", torch.random)


def _digest(path: Path, record: str, tensors: Mapping[str, Tensor]) -> str:
    """Sha256 of all that a checkpoint holds, and of the folder's name, which stands for what it was trained on."""
    digest = hashlib.sha256(f"{path.parent.name}\0{record}".encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"\0{name} {value.dtype} {list(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

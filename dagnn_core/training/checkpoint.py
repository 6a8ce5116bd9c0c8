"""Checkpoints of a training: one safetensors file, replaced atomically, from which training resumes to the bit."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from dagnn_core.errors import ArtifactError
from dagnn_core.losses.pair_memory import PairMemory
from dagnn_core.nn.cross_modal import CrossModalNetwork
from dagnn_core.tensors import (
    num_bytes,
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    under,
    write_checkpoint,
)

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
    tensors |= optimizer_tensors(state.optimizer)
    if state.pair_memory is not None:
        tensors |= {f"pair_memory.{name}": getattr(state.pair_memory, name) for name in _REMEMBERED}
    record = json.dumps({"history": state.history, "best_metrics": state.best_metrics})
    write_checkpoint(path, tensors, record)


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
        tensors, text = read_checkpoint(path)
    except ArtifactError as error:
        log.warning("%s: training starts over", error)
        return
    record = json.loads(text)
    state.network.load_state_dict(under(tensors, "network."))
    if state.average is not None:
        state.average.load_state_dict(under(tensors, "average."))
    restore_optimizer(state.optimizer, tensors)
    state.generator.set_state(tensors["generator"])
    name, dropout = _dropout_generator(state)
    if name in tensors:  # not where a training resumes on another kind of device
        dropout.set_rng_state(tensors[name])
    if state.pair_memory is not None:
        for name, value in under(tensors, "pair_memory.").items():
            setattr(state.pair_memory, name, value.to(state.pair_memory.rows.device))
    state.history = record["history"]
    state.best_weights = under(tensors, "best.")
    state.best_metrics = record["best_metrics"]
    log.info("resuming after epoch %d from %s", len(state.history), path)


def _dropout_generator(state: TrainingState) -> tuple[str, ModuleType]:
    # dropout draws from the global generator of the device
    on_gpu = next(state.network.parameters()).is_cuda
    return ("dropout.cuda", torch.cuda) if on_gpu else ("dropout.cpu", torch.random)

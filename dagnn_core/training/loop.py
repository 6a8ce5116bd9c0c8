"""The training loop: all features on the device, one optimizer, the epoch with the best validation MAP is kept."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dagnn_core.config import ModelConfig, TrainConfig
from dagnn_core.errors import InputError
from dagnn_core.losses.adversarial import discriminator_accuracy
from dagnn_core.losses.objective import LossTerms, aaai21_objective
from dagnn_core.nn.dagnn import DAGNN
from dagnn_core.progress import track
from dagnn_core.retrieval.ranking import evaluate_retrieval
from dagnn_core.training.checkpoint import Epoch, TrainingState, restore_checkpoint, save_checkpoint
from dagnn_core.training.optimizer import make_optimizer

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 30.0  # a kill costs at most this and the epoch that was under way


class Split(NamedTuple):
    """Features and labels of one split, on the device that trains."""

    image: Tensor
    """[N, d_I]."""
    text: Tensor
    """[N, d_T]."""
    labels: Tensor
    """[N, C], 0 or 1."""


class MetricLogger(Protocol):
    """Where the figures of an epoch go beside the history."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Take the figures of epoch `step`."""


class TrainingResult(NamedTuple):
    """The outcome of a training."""

    weights: dict[str, Tensor]
    """Weights and buffers of the epoch with the best validation MAP, on the CPU."""
    history: list[Epoch]
    """Losses, discriminator accuracies and validation MAP of every epoch."""
    val_metrics: Epoch
    """All retrieval figures of the kept epoch on the validation split, and its number."""


def train(
    *,
    train_split: Split,
    val_split: Split,
    label_embeddings: NDArray[np.floating],
    adjacency: NDArray[np.floating],
    model_config: ModelConfig,
    config: TrainConfig,
    logger: MetricLogger,
    checkpoint: Path,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> TrainingResult:
    """Train a DAGNN; resume from `checkpoint` where one is found. Same seed, same machine: same result to the bit.

    Args:
        train_split: what the network learns from.
        val_split: what selects the epoch.
        label_embeddings: vectors of the label nodes, [C, e].
        adjacency: normalised adjacency of the label graph, [C, C].
        model_config: architecture and objective.
        config: optimisation.
        logger: gets the figures of every epoch.
        checkpoint: path of the checkpoint file; it stays until the caller removes it.
        checkpoint_seconds: least time between two checkpoints.

    Raises:
        InputError: a split is too small, or a loss is no longer finite.
    """
    for name, split in (("train", train_split), ("val", val_split)):
        if len(split.labels) < 2:
            raise InputError(
                f"the {name} split has {len(split.labels)} items, expected at least 2; "
                "correct the splits of the data set, or dataset.val_fraction where they are drawn"
            )
    device = train_split.image.device
    torch.manual_seed(config.seed)  # initial weights
    network = DAGNN(
        model_config,
        image_dim=train_split.image.shape[1],
        text_dim=train_split.text.shape[1],
        label_embeddings=torch.tensor(label_embeddings, dtype=torch.float32),
        adjacency=torch.tensor(adjacency, dtype=torch.float32),
    ).to(device)
    state = TrainingState(
        network=network,
        optimizer=make_optimizer(network, config),
        generator=torch.Generator().manual_seed(config.seed),
    )
    restore_checkpoint(checkpoint, state)
    saved = time.monotonic()
    while len(state.history) < config.epochs and _epochs_since_best(state) < config.patience:
        number = len(state.history) + 1
        epoch = {"epoch": number} | _train_epoch(state, train_split, model_config, config, number)
        val_metrics = _validate(state.network, val_split)
        epoch |= {name: val_metrics[name] for name in ("val_map_i2t", "val_map_t2i", "val_map_mean")}
        state.history.append(epoch)
        if val_metrics["val_map_mean"] > state.best_metrics.get("val_map_mean", -1.0):
            state.best_metrics = val_metrics | {"best_epoch": number}
            state.best_weights = {name: value.cpu().clone() for name, value in network.state_dict().items()}
        logger.log_metrics({name: value for name, value in epoch.items() if name != "epoch"}, number)
        log.info(
            "epoch %d of %d: loss %.4f, val MAP %.4f (best %.4f in epoch %d)",
            number,
            config.epochs,
            epoch["loss_total"],
            epoch["val_map_mean"],
            state.best_metrics["val_map_mean"],
            state.best_metrics["best_epoch"],
        )
        if time.monotonic() - saved >= checkpoint_seconds:
            save_checkpoint(checkpoint, state)
            saved = time.monotonic()
    return TrainingResult(state.best_weights, state.history, state.best_metrics)


def _epochs_since_best(state: TrainingState) -> float:
    return len(state.history) - state.best_metrics.get("best_epoch", 0)


def _train_epoch(
    state: TrainingState, split: Split, model_config: ModelConfig, config: TrainConfig, number: int
) -> Epoch:
    network, optimizer = state.network.train(), state.optimizer
    batches = _batches(len(split.labels), config.batch_size, state.generator)
    device = split.image.device
    sums = torch.zeros(len(LossTerms._fields) + 2, dtype=torch.float64, device=device)
    for step, rows in enumerate(track(batches, description=f"epoch {number}", total=len(batches)), start=1):
        batch = rows.to(device)
        output = network(split.image[batch], split.text[batch])
        losses = aaai21_objective(output, split.labels[batch], model_config)
        _check_finite(losses, number, step)
        optimizer.zero_grad()
        torch.autograd.backward(losses.total)
        optimizer.step()
        accuracies = discriminator_accuracy(output.modality)
        sums += len(rows) * torch.stack([*losses, *accuracies]).detach()
    means = (sums / sum(map(len, batches))).tolist()
    names = [f"loss_{name}" for name in LossTerms._fields]
    gradient_norm = torch.nn.utils.get_total_norm(
        parameter.grad for parameter in network.parameters() if parameter.grad is not None
    )
    return {
        **dict(zip([*names, "discriminator_accuracy_image", "discriminator_accuracy_text"], means, strict=True)),
        "gradient_norm": gradient_norm.item(),  # of the epoch's last step
    }


def _batches(num_items: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    batches = list(torch.split(torch.randperm(num_items, generator=generator), batch_size))
    # batch norm cannot train on a single item; the next epoch's order leaves out another one
    return batches if len(batches[-1]) > 1 else batches[:-1]


def _check_finite(losses: LossTerms, epoch: int, step: int) -> None:
    if not torch.isfinite(losses.total):
        values = ", ".join(f"{name} {value.item():.4g}" for name, value in losses._asdict().items())
        raise InputError(
            f"the loss is not finite in epoch {epoch}, step {step} ({values}), so training stopped before the update; "
            "lower train.lr or the weights of the loss terms in model"
        )


@torch.inference_mode()
def _validate(network: DAGNN, split: Split) -> Epoch:
    network.eval()
    image, text = network.image_encoder(split.image), network.text_encoder(split.text)
    metrics = evaluate_retrieval(image.cpu().numpy(), text.cpu().numpy(), split.labels.cpu().numpy().astype(np.uint8))
    return {f"val_{name}": value for name, value in metrics.items()}

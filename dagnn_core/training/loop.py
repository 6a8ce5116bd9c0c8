"""The training loop: one optimizer, the epoch with the best validation MAP is kept."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dagnn_core.config.model import ModelConfig
from dagnn_core.config.train import TrainConfig
from dagnn_core.disk import require_space
from dagnn_core.errors import InputError
from dagnn_core.losses.batch import Losses
from dagnn_core.losses.pair_memory import PairMemory
from dagnn_core.model.kinds import build_network, compute_losses, fit_closed_form, kind_of, takes_unlabelled
from dagnn_core.nn.cross_modal import CrossModalNetwork
from dagnn_core.nn.dagnn import DAGNN
from dagnn_core.nn.label_graphs import GraphTensors
from dagnn_core.parallel import average_gradients, file_of_main, from_main, is_main, num_processes
from dagnn_core.progress import track
from dagnn_core.retrieval.directions import MAP_METRICS
from dagnn_core.retrieval.metrics import evaluate_retrieval
from dagnn_core.tensors import num_bytes
from dagnn_core.training.checkpoint import Epoch, TrainingState, checkpoint_bytes, restore_checkpoint, save_checkpoint
from dagnn_core.training.hybrid import complete_hybrid
from dagnn_core.training.kept_memory import kept_memory
from dagnn_core.training.optimizer import learning_rate, make_optimizer, reversal_strength
from dagnn_core.training.split import MIN_ITEMS_PER_BATCH, Split, reconstruct

log = logging.getLogger(__name__)

VAL_MAP = tuple(f"val_{name}" for name in MAP_METRICS)
CHECKPOINT_SECONDS = 30.0  # a kill costs at most this and the epoch that was under way
VALIDATED_ITEMS = 1 << 15  # embedded at a time
HEADROOM_BYTES = 1 << 20  # for what a model has beside weights and encoders


class MetricLogger(Protocol):
    """Where the metrics of an epoch go beside the history."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Take the metrics of epoch `step`."""


class TrainingResult(NamedTuple):
    """The outcome of a training."""

    weights: dict[str, Tensor]
    """Weights and buffers of the epoch with the best validation MAP, on the CPU."""
    history: list[Epoch]
    """Losses, discriminator accuracies and validation MAP of every epoch."""
    val_metrics: Epoch
    """All retrieval metrics of the kept epoch on the validation split, and its number."""


def train(
    *,
    train_split: Split,
    val_split: Split,
    graph: GraphTensors,
    model_config: ModelConfig,
    config: TrainConfig,
    checkpoint: Path,
    logger: MetricLogger | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    model_out: Path | None = None,
    encoder_bytes: int = 0,
) -> TrainingResult:
    """Train a network, or fit it in closed form; resume from `checkpoint` where one is found.

    Same seed, same kind of machine, same number of processes: same result to the bit, on a GPU with
    `config.deterministic`. With another number of processes (see `parallel`): the same result but for rounding.

    Args:
        train_split: what the network learns from.
        val_split: what selects the epoch, complete items only.
        graph: label graph, of the training labels.
        model_config: kind, architecture and objective.
        config: optimisation.
        checkpoint: path of the checkpoint file; it stays until the caller removes it. Of several processes that of the
            first one counts; the others need not see it.
        logger: gets the metrics of every epoch, where there is one; of several processes that of the first one.
        checkpoint_seconds: least time between two checkpoints; one more is written after the last epoch.
        model_out: where the caller is going to write the model, so that its disk is known to have room for it.
        encoder_bytes: what the model has beside the weights.

    Returns:
        The result; the first process alone has all of it.

    Raises:
        InputError: a split is too small, reconstruction without generators, a loss is no longer finite, or several
            processes cannot train this together.
        BackendError: the disk has no room for checkpoints and model, or refuses a checkpoint.
    """
    kind = kind_of(model_config)
    if config.incomplete == "skip" or not kind.takes_incomplete:
        train_split = train_split.pairs()
    if config.unlabelled == "skip":
        train_split = train_split.labelled()
    every_item = train_split
    if not takes_unlabelled(model_config):
        train_split = train_split.labelled()
    _check(train_split, val_split, model_config, config)
    if kind.fit:
        fitted = fit_closed_form(model_config, train_split.in_memory(), val_split.in_memory())
        return _closed_form_result(fitted, val_split, logger)
    torch.use_deterministic_algorithms(config.deterministic)
    state = new_state(train_split, graph, model_config, config)
    with file_of_main(checkpoint) as first:
        restore_checkpoint(first, state)
    if is_main():
        require_space(_needs(state, config, checkpoint, model_out, encoder_bytes))
    network, average = state.network, state.average
    validated: CrossModalNetwork = network if average is None else average.module  # type: ignore[assignment]
    saved = time.monotonic()
    with kept_memory():
        while from_main(_goes_on(state, config)):
            number = len(state.history) + 1
            epoch = {"epoch": number} | train_epoch(state, train_split, model_config, config)
            state.history.append(epoch)
            if not is_main():
                continue
            val_metrics = _validate(validated, val_split)
            epoch |= {name: val_metrics[name] for name in VAL_MAP}
            if val_metrics["val_map_mean"] > state.best_metrics.get("val_map_mean", -1.0):
                state.best_metrics = val_metrics | {"best_epoch": number}
                state.best_weights = _weights(validated)
            if logger:
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
            # after the last epoch too: where the model cannot be written, the next run has nothing else to do
            if time.monotonic() - saved >= checkpoint_seconds or not _goes_on(state, config):
                save_checkpoint(checkpoint, state)
                saved = time.monotonic()
    result = TrainingResult(state.best_weights, state.history, state.best_metrics)
    if is_main() and isinstance(validated, DAGNN) and validated.hybrid is not None:
        return _with_hybrid(result, validated, every_item, val_split, model_config.hybrid_tolerance)
    return result


def new_state(train_split: Split, graph: GraphTensors, model_config: ModelConfig, config: TrainConfig) -> TrainingState:
    """What a training starts from, on the device of its split; weights are drawn from torch's global generator.

    Args:
        train_split: what the network is to learn from.
        graph: label graph, of the training labels.
        model_config: kind, architecture and objective.
        config: optimisation.
    """
    torch.manual_seed(config.seed)  # initial weights
    network = build_network(
        model_config, image_dim=train_split.image.shape[1], text_dim=train_split.text.shape[1], graph=graph
    ).to(train_split.device)
    average = None
    if config.weight_averaging > 0:
        moving_average = get_ema_multi_avg_fn(config.weight_averaging)  # type: ignore[no-untyped-call]
        average = AveragedModel(network, multi_avg_fn=moving_average, use_buffers=True)
    pair_memory = None
    if model_config.pair_memory > 0:
        pair_memory = PairMemory.empty(model_config.pair_memory, model_config.embedding_dim, train_split.device)
    return TrainingState(
        network=network,
        average=average,
        optimizer=make_optimizer(network, config),
        generator=torch.Generator().manual_seed(config.seed),
        pair_memory=pair_memory,
    )


def _with_hybrid(
    result: TrainingResult, network: DAGNN, train_split: Split, val_split: Split, tolerance: float
) -> TrainingResult:
    network.load_state_dict(result.weights)
    weights = complete_hybrid(network, train_split, val_split, tolerance)
    log.info("hybrid ranking: label weight %g, canonical share %g", *weights)
    val_metrics = _validate(network, val_split) | {"best_epoch": result.val_metrics["best_epoch"]}
    return TrainingResult(_weights(network), result.history, val_metrics)


def _check(train_split: Split, val_split: Split, model_config: ModelConfig, config: TrainConfig) -> None:
    takes_incomplete = kind_of(model_config).takes_incomplete
    if kind_of(model_config).fit and num_processes() > 1:
        raise InputError(
            f"model.kind {model_config.kind} is fitted in closed form, by one process, but torchrun started "
            f"{num_processes()}",
            "run `python -m components.steps.train` without torchrun; on a cluster, set train.nodes and gpu.count to 1",
        )
    for name, split in (("train", train_split.labelled()), ("val", val_split)):
        counts = {"images": int(split.has_image.sum()), "texts": int(split.has_text.sum())}
        for what, count in counts.items():
            if count < MIN_ITEMS_PER_BATCH:
                raise InputError(
                    f"the {name} split has {count} {what} to work with, expected at least {MIN_ITEMS_PER_BATCH}",
                    "correct the splits of the data set, or dataset.val_fraction where they are drawn",
                )
    if config.incomplete == "reconstruct" and model_config.discriminator == "none" and takes_incomplete:
        raise InputError(
            "train.incomplete is reconstruct, which takes the generators, but model.discriminator is none",
            "set model.discriminator to relu, or train.incomplete to mask",
        )


def _closed_form_result(network: CrossModalNetwork, val_split: Split, logger: MetricLogger | None) -> TrainingResult:
    val_metrics = _validate(network, val_split)
    metrics = {name: val_metrics[name] for name in VAL_MAP}
    if logger:
        logger.log_metrics(metrics, 1)
    return TrainingResult(_weights(network), [{"epoch": 1} | metrics], val_metrics | {"best_epoch": 1})


def _weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.cpu().clone() for name, value in network.state_dict().items()}


def _goes_on(state: TrainingState, config: TrainConfig) -> bool:
    since_best = len(state.history) - state.best_metrics.get("best_epoch", 0)
    return len(state.history) < config.epochs and since_best < config.patience


def _needs(
    state: TrainingState, config: TrainConfig, checkpoint: Path, model_out: Path | None, encoder_bytes: int
) -> dict[Path, int]:
    """Bytes that a training still writes: two checkpoints beside each other, unless it is over, and the model."""
    needs = {}
    if _goes_on(state, config):
        there = checkpoint.stat().st_size if checkpoint.is_file() else 0
        needs[checkpoint] = max(2 * checkpoint_bytes(state) - there, 0)
    if model_out:
        needs[model_out] = num_bytes(state.network.state_dict()) + encoder_bytes + HEADROOM_BYTES
    return needs


def train_epoch(state: TrainingState, split: Split, model_config: ModelConfig, config: TrainConfig) -> Epoch:
    """Train for one more epoch.

    Args:
        state: changed in place, but for its history.
        split: what the network learns from.
        model_config: kind and objective.
        config: optimisation.

    Returns:
        Means of losses and discriminator accuracies over the items, and the gradients' norm in the last step.

    Raises:
        InputError: a loss is no longer finite, or no batch has enough images and texts.
    """
    network, optimizer = state.network, state.optimizer
    number = len(state.history) + 1
    batches = split.draw_batches(config.batch_size, state.generator)
    if not batches:
        raise InputError(
            f"no batch of epoch {number} has {MIN_ITEMS_PER_BATCH} images and {MIN_ITEMS_PER_BATCH} texts",
            "raise train.batch_size",
        )
    reconstructed = config.incomplete == "reconstruct" and number >= config.reconstruct_from
    if reconstructed and isinstance(network, DAGNN):
        split = reconstruct(split, network)
    network.train()
    sums: Tensor | None = None
    shown = track(batches, description=f"epoch {number}", total=len(batches)) if is_main() else batches
    loaded = split.iterate(batches, reconstructed=reconstructed)
    for step, (rows, batch) in enumerate(zip(shown, loaded, strict=True)):
        epochs_done = number - 1 + step / len(batches)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, epochs_done + 1 / len(batches))
        with torch.autocast(batch.image.device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"):
            losses = compute_losses(
                network,
                batch._replace(pair_memory=state.pair_memory),
                model_config,
                reversal=reversal_strength(config, epochs_done),
            )
        _check_finite(losses, number, step + 1)
        optimizer.zero_grad()
        torch.autograd.backward(losses.total)
        average_gradients(network.parameters())
        optimizer.step()
        if state.average is not None:
            state.average.update_parameters(network)
        values = len(rows) * torch.stack([losses.total, *losses.terms.values(), *losses.accuracies.values()]).detach()
        sums = values.double() if sums is None else sums + values
    assert sums is not None
    means = (sums / sum(map(len, batches))).tolist()
    names = ["loss_total", *(f"loss_{name}" for name in losses.terms), *losses.accuracies]
    gradient_norm = torch.nn.utils.get_total_norm(
        parameter.grad for parameter in network.parameters() if parameter.grad is not None
    )
    return {
        **dict(zip(names, means, strict=True)),
        "gradient_norm": gradient_norm.item(),  # of the epoch's last step
    }


def _check_finite(losses: Losses, epoch: int, step: int) -> None:
    if not torch.isfinite(losses.total):
        values = ", ".join(f"{name} {value.item():.4g}" for name, value in losses.terms.items())
        raise InputError(
            f"the loss is not finite in epoch {epoch}, step {step} ({values}), so training stopped before the update",
            "lower train.lr or the weights of the loss terms in model",
        )


def _blocks(split: Split) -> list[slice]:
    """What is validated at a time: all items, but where that are so many that they take gigabytes."""
    return [slice(start, start + VALIDATED_ITEMS) for start in range(0, len(split.labels), VALIDATED_ITEMS)]


@torch.inference_mode()
def _validate(network: CrossModalNetwork, split: Split) -> Epoch:
    network.eval()
    blocks = _blocks(split)
    image = torch.cat([network.embed_image(split.features("image", rows)) for rows in blocks])
    text = torch.cat([network.embed_text(split.features("text", rows)) for rows in blocks])
    metrics = evaluate_retrieval(image.cpu().numpy(), text.cpu().numpy(), split.labels.cpu().numpy().astype(np.uint8))
    return {f"val_{name}": value for name, value in metrics.items()}

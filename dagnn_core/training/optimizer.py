"""The optimizer, one Adam over all parameters as published, and what changes from step to step."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from dagnn_core.config.train import TrainConfig

EARLY_BYTES = 1 << 20  # matrices from this size on take their step early


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Adam with the configured rate, betas and eps, fused; decoupled weight decay of matrices, not of vectors."""
    parameters = list(network.parameters())
    matrices, vectors = ([p for p in parameters if (p.ndim > 1) == is_matrix] for is_matrix in (True, False))
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=config.lr,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_eps,
        fused=True,
    )


@contextmanager
def stepping_early(optimizer: torch.optim.AdamW) -> Iterator[None]:
    """In the body, large matrices take their step within the backward pass; `optimizer.step()` does the rest.

    A gradient is complete when all that read its matrix has been differentiated, so the result is the same to the bit.
    But the gradient is still in the cache then, and its memory serves the next one. It is gone after the step.
    """
    hooks = [
        parameter.register_post_accumulate_grad_hook(partial(_step_alone, _part_of(optimizer, group, parameter), group))
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.nbytes >= EARLY_BYTES
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _part_of(optimizer: torch.optim.AdamW, group: dict[str, object], parameter: Tensor) -> torch.optim.AdamW:
    """An optimizer of one parameter, with the state of the whole."""
    part = torch.optim.AdamW([{**group, "params": [parameter]}])
    part.state = optimizer.state
    return part


def _step_alone(part: torch.optim.AdamW, group: dict[str, object], parameter: Tensor) -> None:
    part.param_groups[0]["lr"] = group["lr"]
    part.step()
    parameter.grad = None


def learning_rate(config: TrainConfig, epochs_done: float) -> float:
    """Rate after a part of the training, counted in epochs: linear warm-up times the schedule."""
    rate = config.lr
    if config.warmup_epochs > 0:
        rate *= min(1.0, epochs_done / config.warmup_epochs)
    if config.lr_schedule == "cosine":
        rate *= (1 + math.cos(math.pi * epochs_done / config.epochs)) / 2
    return rate


def reversal_strength(config: TrainConfig, epochs_done: float) -> float:
    """Strength λ of the gradient reversal; `ramp` as in DANN (Ganin et al., JMLR 2016): 0 at the start, towards 1."""
    if config.reversal == "constant":
        return 1.0
    return 2 / (1 + math.exp(-10 * epochs_done / config.epochs)) - 1

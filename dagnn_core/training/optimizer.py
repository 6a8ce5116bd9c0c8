"""The optimizer, one Adam over all parameters as published, and what changes from step to step."""

import math

import torch
from torch import nn

from dagnn_core.config.train import TrainConfig


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

"""The optimizer: one Adam over all parameters, as published."""

import torch
from torch import nn

from dagnn_core.config import TrainConfig


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Adam:
    """Adam with the configured rate and betas, eps 1e-8, no weight decay; one fused kernel a step."""
    return torch.optim.Adam(
        network.parameters(), lr=config.lr, betas=(config.adam_beta1, config.adam_beta2), eps=1e-8, fused=True
    )

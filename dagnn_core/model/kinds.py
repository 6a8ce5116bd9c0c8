"""Kinds of models: the network that a configuration names, and how it learns."""

from typing import Any

from dagnn_core.config.model import KINDS, ModelConfig, ModelKind
from dagnn_core.errors import InputError
from dagnn_core.losses.batch import Batch, Losses
from dagnn_core.nn.cross_modal import CrossModalNetwork
from dagnn_core.nn.label_graphs import GraphTensors
from dagnn_core.registry import load

_KEY = "model.kind"


def kind_of(config: ModelConfig) -> ModelKind:
    """The parts of the kind that a configuration names.

    Raises:
        InputError: there is no such kind.
    """
    if config.kind in KINDS:
        return KINDS[config.kind]
    found = load(config.kind, _KEY)
    if not isinstance(found, ModelKind):
        raise InputError(f"{_KEY}: {config.kind} is {found!r}, expected a dagnn_core.config.model.ModelKind")
    return found


def takes_unlabelled(config: ModelConfig) -> bool:
    """Whether what is trained or fitted learns from items without labels.

    Raises:
        InputError: there is no such kind.
    """
    return kind_of(config).takes_unlabelled and (config.kind != "dagnn" or config.has_unlabelled_terms)


def build_network(config: ModelConfig, *, image_dim: int, text_dim: int, graph: GraphTensors) -> CrossModalNetwork:
    """Make the network, its weights drawn from torch's global generator.

    Args:
        config: kind and architecture.
        image_dim: d_I.
        text_dim: d_T.
        graph: label graph, of the training labels; the baselines take the number of labels from it, at most.
    """
    build = load(kind_of(config).network, _KEY)
    network: CrossModalNetwork = build(config, image_dim=image_dim, text_dim=text_dim, graph=graph)
    return network


def compute_losses(network: CrossModalNetwork, batch: Batch, config: ModelConfig, *, reversal: float = 1.0) -> Losses:
    """Run a batch through the network and compute its objective.

    Args:
        network: what is trained.
        batch: the batch; the baselines take pairs only.
        config: kind, weights and options of the terms.
        reversal: strength λ of the gradient reversal.
    """
    objective = load(kind_of(config).objective, _KEY)
    losses: Losses = objective(network, batch, config, reversal=reversal)
    return losses


def fit_closed_form(config: ModelConfig, train: Any, val: Any) -> CrossModalNetwork:
    """Fit a kind that needs no training loop, on complete items; its settings are selected on val.

    Args:
        config: the kind.
        train: the training split, as `dagnn_core.baselines.linear_towers.Pairs`.
        val: the validation split.
    """
    network: CrossModalNetwork = load(kind_of(config).fit, _KEY)(train, val)
    return network

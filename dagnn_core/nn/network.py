"""Which network a configuration names."""

from dagnn_core.baselines.networks import DSCMR, LinearTowers, TwoTower
from dagnn_core.config.model import ModelConfig
from dagnn_core.nn.dagnn import DAGNN
from dagnn_core.nn.label_graphs import GraphTensors

Network = DAGNN | TwoTower | DSCMR | LinearTowers


def build_network(config: ModelConfig, *, image_dim: int, text_dim: int, graph: GraphTensors) -> Network:
    """Make the network, its weights drawn from torch's global generator.

    Args:
        config: kind and architecture.
        image_dim: d_I.
        text_dim: d_T.
        graph: label graph, of the training labels; the baselines take the number of labels from it, at most.
    """
    dims = {"image_dim": image_dim, "text_dim": text_dim}
    if config.kind == "dagnn":
        return DAGNN(config, **dims, graph=graph)
    if config.kind == "two_tower":
        return TwoTower(**dims, dim=config.embedding_dim, norm=config.encoder_norm)
    if config.kind == "dscmr":
        return DSCMR(**dims, dim=config.embedding_dim, num_labels=len(graph.embeddings))
    return LinearTowers(**dims, dim=config.embedding_dim)

"""Two affine maps, fitted in closed form: the network of the linear baselines."""

from typing import Protocol

from torch import Tensor, nn

from dagnn_core.config.model import ModelConfig
from dagnn_core.nn.cross_modal import CrossModalNetwork
from dagnn_core.nn.label_graphs import GraphTensors


class Pairs(Protocol):
    """Complete items of one split."""

    @property
    def image(self) -> Tensor:
        """[N, d_I]."""

    @property
    def text(self) -> Tensor:
        """[N, d_T]."""

    @property
    def labels(self) -> Tensor:
        """[N, C], 0 or 1."""


class LinearTowers(CrossModalNetwork):
    """Two affine maps, fitted in closed form (CCA, ridge regression)."""

    def __init__(self, *, image_dim: int, text_dim: int, dim: int) -> None:
        super().__init__()
        self.image_encoder = nn.Linear(image_dim, dim)
        self.text_encoder = nn.Linear(text_dim, dim)


def build(config: ModelConfig, *, image_dim: int, text_dim: int, graph: GraphTensors) -> LinearTowers:
    """Make the network, to be filled with fitted weights; the graph is not used."""
    return LinearTowers(image_dim=image_dim, text_dim=text_dim, dim=config.embedding_dim)


def linear_towers(image_weight: Tensor, image_bias: Tensor, text_weight: Tensor, text_bias: Tensor) -> LinearTowers:
    """Towers x W + b.

    Shape:
        image_weight [d_I, k], image_bias [k], text_weight [d_T, k], text_bias [k].
    """
    (image_dim, dim), text_dim = image_weight.shape, len(text_weight)
    towers = LinearTowers(image_dim=image_dim, text_dim=text_dim, dim=dim)
    towers.load_state_dict(
        {
            "image_encoder.weight": image_weight.T,
            "image_encoder.bias": image_bias,
            "text_encoder.weight": text_weight.T,
            "text_encoder.bias": text_bias,
        }
    )
    return towers

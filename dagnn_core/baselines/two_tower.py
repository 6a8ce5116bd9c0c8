"""InfoNCE on two towers, as CLIP trains them (Radford et al., 2021)."""

import math

import torch
from torch import Tensor, nn

from dagnn_core.config.model import ModelConfig
from dagnn_core.losses.batch import Batch, Losses
from dagnn_core.losses.info_nce import info_nce_loss
from dagnn_core.nn.cross_modal import CrossModalNetwork, PairOutput
from dagnn_core.nn.feed_forward import FeedForward, Norm
from dagnn_core.nn.label_graphs import GraphTensors


class TwoTower(CrossModalNetwork):
    """A multilayer perceptron for each modality, and the inverse temperature that InfoNCE learns (CLIP, 2021).

    Shape:
        image [N, d_I], text [N, d_T] -> embeddings [N, d].
    """

    def __init__(self, *, image_dim: int, text_dim: int, dim: int, norm: Norm) -> None:
        super().__init__()
        relu, identity = nn.ReLU(), nn.Identity()
        self.image_encoder = FeedForward([image_dim, dim, dim], hidden=relu, output=identity, norm=norm)
        self.text_encoder = FeedForward([text_dim, dim, dim], hidden=relu, output=identity, norm=norm)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, image: Tensor, text: Tensor) -> PairOutput:
        """Embed a batch of pairs."""
        return PairOutput(self.image_encoder(image), self.text_encoder(text))


def build(config: ModelConfig, *, image_dim: int, text_dim: int, graph: GraphTensors) -> TwoTower:
    """Make the network; the graph is not used."""
    return TwoTower(image_dim=image_dim, text_dim=text_dim, dim=config.embedding_dim, norm=config.encoder_norm)


def objective(network: TwoTower, batch: Batch, config: ModelConfig, *, reversal: float) -> Losses:
    """InfoNCE alone; it takes pairs only."""
    image, text = network(batch.image, batch.text)
    loss = info_nce_loss(image, text, network.log_scale)
    return Losses(loss, {"info_nce": loss}, {})

"""DSCMR: deep supervised cross-modal retrieval (Zhen et al., CVPR 2019)."""

from torch import Tensor, nn
from torch.linalg import vector_norm

from dagnn_core.config.model import ModelConfig
from dagnn_core.losses.batch import Batch, Losses
from dagnn_core.losses.classification import classification_loss
from dagnn_core.losses.modality_invariance import modality_invariance_loss
from dagnn_core.nn.cross_modal import CrossModalNetwork, PairOutput
from dagnn_core.nn.label_graphs import GraphTensors
from dagnn_core.parallel import by_rows

SIMILARITY_WEIGHT = 1e-3  # as published, of the pairwise similarity
DISTANCE_WEIGHT = 1e-1  # and of the distance between the two embeddings of an item


class DSCMR(CrossModalNetwork):
    """Deep supervised cross-modal retrieval (Zhen et al., CVPR 2019): towers with a common last layer, one classifier.

    Shape:
        image [N, d_I], text [N, d_T] -> embeddings [N, d].
    """

    def __init__(self, *, image_dim: int, text_dim: int, dim: int, num_labels: int) -> None:
        super().__init__()
        relu = nn.ReLU()
        shared = nn.Linear(dim, dim)
        self.image_encoder = nn.Sequential(nn.Linear(image_dim, dim), relu, shared, relu)
        self.text_encoder = nn.Sequential(nn.Linear(text_dim, dim), relu, shared, relu)
        self.classifier = nn.Linear(dim, num_labels)

    def forward(self, image: Tensor, text: Tensor) -> PairOutput:
        """Embed a batch of pairs, in training."""
        return PairOutput(by_rows(self.image_encoder, image), by_rows(self.text_encoder, text))


def build(config: ModelConfig, *, image_dim: int, text_dim: int, graph: GraphTensors) -> DSCMR:
    """Make the network; the graph says how many labels there are."""
    return DSCMR(image_dim=image_dim, text_dim=text_dim, dim=config.embedding_dim, num_labels=len(graph.embeddings))


def objective(network: DSCMR, batch: Batch, config: ModelConfig, *, reversal: float) -> Losses:
    """The published objective; it takes pairs only."""
    return dscmr_objective(network, network(batch.image, batch.text), batch.image_labels)


def dscmr_objective(network: DSCMR, pairs: PairOutput, labels: Tensor) -> Losses:
    """DSCMR: classification + 1e-3 pairwise similarity (shares a label or not) + 1e-1 distance within pairs.

    Shape:
        labels Y [N, C], in the dtype of the embeddings.
    """
    image, text = pairs
    classification = classification_loss(network.classifier(image), labels)
    classification = classification + classification_loss(network.classifier(text), labels)
    similarity = modality_invariance_loss(image, text, labels, labels, similarity="binary")
    distance = vector_norm(image - text, dim=1).mean()
    total = classification + SIMILARITY_WEIGHT * similarity + DISTANCE_WEIGHT * distance
    terms = {"classification": classification, "modality_invariance": similarity, "distance": distance}
    return Losses(total, terms, {})

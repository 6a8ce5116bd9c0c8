"""Section `model`: architecture and objective."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from dagnn_core.config.section import Count, Named, Positive, Preset, Rate, Share, Weight, require, section


class ModelKind(NamedTuple):
    """Where the parts of a kind of model are, as import paths; see `dagnn_core.model.kinds`."""

    network: str
    """`build(config, *, image_dim, text_dim, graph) -> CrossModalNetwork`."""
    objective: str = ""
    """`objective(network, batch, config, *, reversal) -> Losses`, of a kind that is trained."""
    fit: str = ""
    """`fit(train, val) -> CrossModalNetwork`, of a kind that is fitted in closed form instead."""
    takes_incomplete: bool = False
    """Whether it learns from items without an image or a text."""
    takes_unlabelled: bool = False
    """Whether it can learn from items without labels."""


KINDS = {
    "dagnn": ModelKind(
        "dagnn_core.nn.dagnn:build", "dagnn_core.nn.objective:objective", takes_incomplete=True, takes_unlabelled=True
    ),
    "two_tower": ModelKind(
        "dagnn_core.baselines.two_tower:build", "dagnn_core.baselines.two_tower:objective", takes_unlabelled=True
    ),
    "dscmr": ModelKind("dagnn_core.baselines.dscmr:build", "dagnn_core.baselines.dscmr:objective"),
    "cca": ModelKind(
        "dagnn_core.baselines.linear_towers:build", fit="dagnn_core.baselines.cca:fit", takes_unlabelled=True
    ),
    "ridge": ModelKind("dagnn_core.baselines.linear_towers:build", fit="dagnn_core.baselines.ridge:fit"),
    "pretrained": ModelKind("dagnn_core.baselines.linear_towers:build", fit="dagnn_core.baselines.pretrained:fit"),
}
"""Kind of model -> its parts."""

_BEST: dict[str, object] = {
    "embedding_dim": 512,
    "encoder_norm": "unit",
    "image_dropout": 0.2,
    "discriminator": "none",
    "hops": 2,
    "classification": "cross_entropy",
    "classification_weight": 0.3,
    "modality_invariance_weight": 0.0,
    "relevance_weight": 1.0,
    "intra_modal_weight": 0.5,
    "label_similarity": "binary",
    "ranking": "labels",
}


@section
class ModelConfig:
    """Architecture and objective. The defaults are the preset `aaai21`: DAGNN as published for MIRFlickr."""

    NAME: ClassVar[str] = "model"

    kind: Annotated[str, Named(KINDS)] = "dagnn"
    """DAGNN or a baseline: InfoNCE on two towers, DSCMR, CCA, ridge regression to the labels, features as they are.

    Of the keys below the baselines take `embedding_dim`, and the two towers `encoder_norm`.
    """
    preset: Preset = "aaai21"
    """Named set of values for the keys below; keys written out override it."""
    embedding_dim: Count = 1024
    """Dimension d of the common space."""
    encoder_norm: Literal["none", "batch", "unit"] = "none"
    """At the encoders' entry: features as they are (2021), batch normalisation (2022), or scaled to length √dim."""
    adversary_norm: Literal["none", "batch"] = "none"
    """Batch normalisation at the entry of generators and discriminators (2022)."""
    image_dropout: Rate = 0.0
    """Probability that an entry of the image features is dropped at the encoder's entry."""
    text_dropout: Rate = 0.0
    """The same of the text features."""
    discriminator: Literal["affine", "relu", "none"] = "affine"
    """Nonlinearity between the discriminators' layers: none in 2021, ReLU in 2022.

    `none`: neither discriminators nor generators, and none of their losses.
    """
    image_to_text_hidden: Count = 512
    """Hidden width of the generator that makes pseudo text features."""
    text_to_image_hidden: Count = 2048
    """Hidden width of the generator that makes pseudo image features."""
    graph: Literal["fixed", "learned", "none"] = "fixed"
    """Label graph: counted (P-GNN), learned (I-GNN), or none: independent classifiers."""
    graph_metrics: Count = 8
    """Number k of weighted cosine metrics of the learned graph."""
    graph_mix: Share = 0.5
    """Share of the label vectors' similarities at the start in the learned graph; the rest is learned."""
    graph_layer: Literal["gcn", "gat"] = "gcn"
    """Graph convolution or graph attention."""
    attention_heads: Count = 1
    """Heads of graph attention, averaged (`graph_layer: gat` only)."""
    hops: Count = 5
    """Number L of graph layers."""
    aggregation: Literal["concat", "max", "attention", "last"] = "concat"
    """Layer aggregation: all hops concatenated (published), their maximum, a learned mean, or the last hop alone."""
    classification: Literal["distance", "cross_entropy"] = "distance"
    """Distance of the scores from the labels (published), or cross-entropy of calibrated scores, summed over labels."""
    classification_weight: Weight = 1.0
    """Weight of the classification loss (alpha of TPAMI 2022)."""
    modality_invariance_weight: Weight = 0.2
    """Weight of the pairwise multi-label similarity loss (alpha of AAAI 2021)."""
    contrastive_weight: Weight = 0.0
    """Weight of the soft multi-label contrastive loss (1 in TPAMI 2022)."""
    temperature: Positive = 0.22
    """Its temperature tau."""
    denominator_scale: Positive = 1.06
    """Its factor within the log-sum-exp: 1.06 as published, without a reason; 1 makes a log-probability."""
    relevance_weight: Weight = 0.0
    """Weight of the likelihood of relevance, the pairwise loss with learned scale and bias (not published)."""
    intra_modal_weight: Weight = 0.14
    """Weight gamma of the pairs within a modality, of the contrastive loss and the likelihood of relevance."""
    label_similarity: Literal["count", "binary", "jaccard"] = "count"
    """Target of the pairwise losses: number of shared labels (2021), 1 where one is shared (2022), Jaccard overlap."""
    ranking: Literal["embedding", "labels", "hybrid"] = "embedding"
    """What is ranked: the cosine of the embeddings (published), the expected number of shared labels, or a weighted
    sum of both and of the cosine of CCA's variates (`hybrid`); the validation split chooses the weights."""
    hybrid_tolerance: Rate = 0.002
    """Validation MAP that the hybrid ranking may give up for what is no label: unseen labels and the own partner."""
    adversarial_weight: Weight = 0.2
    """Weight beta of the adversarial loss."""
    reconstruction_weight: Weight = 0.0
    """Weight of the generators' squared error on complete pairs (not published: they only deceive discriminators)."""
    pair_weight: Weight = 0.0
    """Weight of InfoNCE on the embeddings, for which the own partner alone is right; it needs no labels."""
    pair_memory: Annotated[int, Field(ge=0)] = 0
    """Pairs of the last steps that InfoNCE takes as further wrong partners, as they were embedded then; 0: none."""
    agreement_weight: Weight = 0.0
    """Weight of the agreement of the label probabilities of an image and its text, each the target of the other; it
    needs no labels."""

    custom_loss: str = ""
    """Import path (`package.module:name`) of a loss term of your own: `loss(image_embedding, text_embedding,
    image_labels, text_labels)`, of [B_I, d], [B_T, d], [B_I, C] and [B_T, C], gives a scalar."""
    custom_loss_weight: Weight = 0.0
    """Its weight; 0: it takes no part."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "aaai21": {},
        "tpami22": {
            "encoder_norm": "batch",
            "adversary_norm": "batch",
            "discriminator": "relu",
            "graph": "learned",
            "classification_weight": 0.5,
            "modality_invariance_weight": 0.0,
            "contrastive_weight": 1.0,
            "label_similarity": "binary",
            "adversarial_weight": 2.0,
        },
        "best": _BEST,
        "unseen_labels": _BEST | {"ranking": "hybrid", "hybrid_tolerance": 0.01},
        "few_labels": _BEST | {"pair_weight": 0.3, "pair_memory": 2000},
    }

    @property
    def has_unlabelled_terms(self) -> bool:
        """Whether a term of the objective needs no labels."""
        return self.discriminator != "none" or self.pair_weight > 0 or self.agreement_weight > 0

    def __post_init__(self) -> None:
        weights = (
            *("classification_weight", "modality_invariance_weight", "contrastive_weight", "relevance_weight"),
            "custom_loss_weight",
        )
        given = [getattr(self, key) for key in weights]
        require(any(given), f"one of {', '.join(f'model.{key}' for key in weights)}", "> 0", given)
        has_loss = self.custom_loss_weight == 0 or self.custom_loss != ""
        require(has_loss, "model.custom_loss", "an import path with custom_loss_weight above 0", self.custom_loss)
        if self.relevance_weight > 0:
            expected = "binary or jaccard with relevance_weight above 0 (a probability)"
            require(self.label_similarity != "count", "model.label_similarity", expected, self.label_similarity)
        is_calibrated = self.classification == "cross_entropy" and self.classification_weight > 0
        if self.agreement_weight > 0:
            expected = "0, since label probabilities take classification cross_entropy with a weight above 0"
            require(is_calibrated, "model.agreement_weight", expected, self.agreement_weight)
        if self.pair_memory > 0:
            require(self.pair_weight > 0, "model.pair_memory", "0 without pair_weight above 0", self.pair_memory)
        if self.ranking != "embedding":
            expected = "embedding, since label probabilities take classification cross_entropy with a weight above 0"
            require(is_calibrated, "model.ranking", expected, self.ranking)
        if self.graph_layer == "gcn":
            expected = "1 with graph_layer gcn (heads are an option of graph_layer gat)"
            require(self.attention_heads == 1, "model.attention_heads", expected, self.attention_heads)

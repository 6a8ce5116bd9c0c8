"""Section `label_graph`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dagnn_core.config.section import Count, Positive, require, section


@section
class LabelGraphConfig:
    """The label graph (P-GNN, AAAI 2021) and the vectors of its nodes."""

    NAME: ClassVar[str] = "label_graph"

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Label pairs with a conditional probability of at least this are connected; I-GNN cuts its cosines there."""
    conditional: Literal["i_given_j", "j_given_i"] = "i_given_j"
    """Which probability makes A_ij: P(i | j) as in the authors' code, or P(j | i) as in ML-GCN (Chen et al., 2019)."""
    edge_weight: Positive = 0.5
    """Weight of an edge after thresholding (re-weighting)."""
    self_loop: Positive = 1.0
    """Weight of a label's edge to itself (1.5: what counting the diagonal makes of it)."""
    embedding: Literal["auto", "ppmi_svd", "file", "learned"] = "auto"
    """`ppmi_svd`: from the training texts; `auto`: the same, or from the labels where there are no texts; `file`: from
    `embedding_file`; `learned`: drawn, then trained with the network (published, where no vectors are given)."""
    embedding_dim: Count = 300
    """Dimension of vectors that are not read from a file (less where there are fewer words, or labels)."""
    embedding_file: str = ""
    """Word vectors: text lines `word x1 x2 ...`, or `.npz` with `names` and `vectors` (`FILE.npz#KEY`: matrix KEY)."""
    embedding_norm: Literal["raw", "unit"] = "raw"
    """Length of the vectors: `raw`, as given (published), or `unit`: 1."""

    def __post_init__(self) -> None:
        if self.embedding == "file":
            require(
                self.embedding_file != "", "label_graph.embedding_file", "a path (embedding: file)", self.embedding_file
            )

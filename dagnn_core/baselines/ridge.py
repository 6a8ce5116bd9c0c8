"""Ridge regression from each modality to the labels: the linear supervised baseline. Embeddings are label scores.

Shapes: N items, d features, C labels.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dagnn_core.baselines.linear_towers import LinearTowers, Pairs, linear_towers
from dagnn_core.retrieval.metrics import evaluate_retrieval

REGULARIZATIONS = (0.01, 0.1, 1.0, 10.0)


class Ridge(NamedTuple):
    """Label scores of one modality: x W + b."""

    weight: Tensor
    """[d, C]."""
    bias: Tensor
    """[C]."""

    def scores(self, features: Tensor) -> Tensor:
        """Features [N, d] to label scores [N, C]."""
        return features.double() @ self.weight + self.bias


class SelectedRidge(NamedTuple):
    """The regressions with the best validation MAP."""

    image: Ridge
    text: Ridge
    val_map_mean: float


def fit_ridge(features: Tensor, labels: Tensor, *, regularization: float) -> Ridge:
    """Minimise ‖X W + b - Y‖² + λ N v ‖W‖² with the mean variance v of a feature.

    Shape:
        features X [N, d], labels Y [N, C].
    """
    x, y = features.double(), labels.double()
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    x, y = x - x_mean, y - y_mean
    covariance = x.T @ x / len(x)
    covariance.diagonal().add_(regularization * covariance.diagonal().mean())
    weight = torch.linalg.solve(covariance, x.T @ y / len(x))
    return Ridge(weight, y_mean - x_mean @ weight)


def select_ridge(train: tuple[Tensor, Tensor, Tensor], val: tuple[Tensor, Tensor, Tensor]) -> SelectedRidge:
    """Fit both modalities on train; the regularisation of each is the pair with the best validation MAP.

    Shape:
        image [N, d_I], text [N, d_T], labels [N, C], of each split.
    """
    *train_features, train_labels = train
    fitted = [
        [fit_ridge(features, train_labels, regularization=value) for value in REGULARIZATIONS]
        for features in train_features
    ]

    def candidates() -> Iterator[SelectedRidge]:
        for image, text in itertools.product(*fitted):
            scores = image.scores(val[0]).numpy(), text.scores(val[1]).numpy()
            metrics = evaluate_retrieval(*scores, val[2].numpy().astype("uint8"))
            yield SelectedRidge(image, text, metrics["map_mean"])

    return max(candidates(), key=lambda candidate: candidate.val_map_mean)


def fit(train: Pairs, val: Pairs) -> LinearTowers:
    """Ridge regression to the labels as two affine maps: fitted on train, its settings selected on val."""
    splits = [(split.image.cpu(), split.text.cpu(), split.labels.cpu()) for split in (train, val)]
    ridge = select_ridge(*splits)
    return linear_towers(*ridge.image, *ridge.text)

"""Regularised linear canonical correlation analysis: the classical baseline on the same features (Hotelling 1936).

Shapes: N pairs, d_I and d_T feature dimensions, k components.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dagnn_core.artifacts import rerun
from dagnn_core.baselines.linear_towers import LinearTowers, Pairs, linear_towers
from dagnn_core.errors import InputError
from dagnn_core.retrieval.metrics import Labels, evaluate_retrieval

REGULARIZATIONS = (0.01, 0.1, 1.0, 10.0)
NUM_COMPONENTS = (16, 64, 4096)  # as far as the features have so many
POWERS = (0, 1, 2)

Features = NDArray[np.floating[Any]]


class CCA(NamedTuple):
    """Linear maps of both modalities into a common space."""

    image_mean: Tensor
    """[d_I]."""
    text_mean: Tensor
    """[d_T]."""
    image_projection: Tensor
    """[d_I, k]."""
    text_projection: Tensor
    """[d_T, k]."""
    correlations: Tensor
    """Canonical correlations (of the regularised problem), decreasing, [k]."""

    def embed_images(self, features: Features) -> NDArray[np.float64]:
        """Map image features [N, d_I] into the common space, [N, k]."""
        embeddings: NDArray[np.float64] = ((_float64(features) - self.image_mean) @ self.image_projection).numpy()
        return embeddings

    def embed_texts(self, features: Features) -> NDArray[np.float64]:
        """Map text features [N, d_T] into the common space, [N, k]."""
        embeddings: NDArray[np.float64] = ((_float64(features) - self.text_mean) @ self.text_projection).numpy()
        return embeddings

    def scaled(self, num_components: int, power: int) -> "CCA":
        """Keep the first components and scale each by a power of its correlation (Gong et al., IJCV 2014)."""
        correlations = self.correlations[:num_components]
        weights = correlations**power
        return self._replace(
            image_projection=self.image_projection[:, :num_components] * weights,
            text_projection=self.text_projection[:, :num_components] * weights,
            correlations=correlations,
        )


class SelectedCCA(NamedTuple):
    """The CCA with the best validation MAP, and what was chosen."""

    cca: CCA
    regularization: float
    num_components: int
    power: int
    val_map_mean: float


class _Moments(NamedTuple):
    """Means and covariances of the training features."""

    image_mean: Tensor
    text_mean: Tensor
    image: Tensor
    text: Tensor
    cross: Tensor


def fit_cca(image: Features, text: Features, *, regularization: float) -> CCA:
    """Fit a CCA: the maps W_I, W_T with W_Iᵀ(C_II + λ_I I)W_I = W_Tᵀ(C_TT + λ_T I)W_T = I and W_Iᵀ C_IT W_T diagonal.

    Args:
        image: image features of the training pairs.
        text: text features of the same pairs.
        regularization: λ over the mean variance of a feature, for each modality; above 0 there may be fewer pairs
            than features.

    Shape:
        image [N, d_I], text [N, d_T]; min(d_I, d_T) components.

    Raises:
        InputError: a feature is not finite.
    """
    return _fit(_moments(image, text), regularization)


def select_cca(
    train_image: Features, train_text: Features, val_image: Features, val_text: Features, val_labels: Labels
) -> SelectedCCA:
    """Fit CCAs on the training pairs; regularisation, components and power are those with the best validation MAP.

    Shape:
        train_image [N, d_I], train_text [N, d_T], val_image [M, d_I], val_text [M, d_T], val_labels [M, C].

    Raises:
        InputError: no validation item has a label, or a feature is not finite.
    """
    moments = _moments(train_image, train_text)

    def candidates() -> Iterator[SelectedCCA]:
        for regularization in REGULARIZATIONS:
            full = _fit(moments, regularization)
            components = sorted({min(number, len(full.correlations)) for number in NUM_COMPONENTS})
            for num_components, power in itertools.product(components, POWERS):
                cca = full.scaled(num_components, power)
                metrics = evaluate_retrieval(cca.embed_images(val_image), cca.embed_texts(val_text), val_labels)
                yield SelectedCCA(cca, regularization, num_components, power, metrics["map_mean"])

    return max(candidates(), key=lambda candidate: candidate.val_map_mean)


def _moments(image: Features, text: Features) -> _Moments:
    image_ND, text_ND = _float64(image), _float64(text)
    for modality, features in (("image", image_ND), ("text", text_ND)):
        finite = features.isfinite().all(dim=1)
        if not finite.all():
            raise InputError(
                f"{modality} features of the training pairs: row {int(finite.int().argmin())} is not finite, "
                "expected finite numbers",
                rerun("--force extract_features"),
            )
    image_mean, text_mean = image_ND.mean(dim=0), text_ND.mean(dim=0)
    image_ND, text_ND = image_ND - image_mean, text_ND - text_mean
    covariances = [one.T @ other / len(one) for one, other in ((image_ND,) * 2, (text_ND,) * 2, (image_ND, text_ND))]
    return _Moments(image_mean, text_mean, *covariances)


def _fit(moments: _Moments, regularization: float) -> CCA:
    image_root, text_root = (_root(covariance, regularization) for covariance in (moments.image, moments.text))
    whitened = torch.linalg.solve_triangular(image_root, moments.cross, upper=False)
    whitened = torch.linalg.solve_triangular(text_root, whitened.T, upper=False).T
    image_basis, correlations, text_basis = torch.linalg.svd(whitened, full_matrices=False)
    return CCA(
        image_mean=moments.image_mean,
        text_mean=moments.text_mean,
        image_projection=torch.linalg.solve_triangular(image_root.T, image_basis, upper=True),
        text_projection=torch.linalg.solve_triangular(text_root.T, text_basis.T, upper=True),
        correlations=correlations,
    )


def _root(covariance: Tensor, regularization: float) -> Tensor:
    """Cholesky factor of the regularised covariance."""
    variance = covariance.diagonal().mean().clamp(min=torch.finfo(covariance.dtype).tiny)  # 0: constant features
    ridge = regularization * variance * torch.eye(len(covariance), dtype=covariance.dtype)
    root: Tensor = torch.linalg.cholesky(covariance + ridge)
    return root


def _float64(features: Features) -> Tensor:
    return torch.from_numpy(np.array(features, dtype=np.float64))


def fit(train: Pairs, val: Pairs) -> LinearTowers:
    """CCA as two affine maps: fitted on train, its settings selected on val."""
    cca = select_cca(
        train.image.cpu().numpy(),
        train.text.cpu().numpy(),
        val.image.cpu().numpy(),
        val.text.cpu().numpy(),
        val.labels.cpu().numpy().astype("uint8"),
    ).cca
    return linear_towers(
        cca.image_projection,
        -cca.image_mean @ cca.image_projection,
        cca.text_projection,
        -cca.text_mean @ cca.text_projection,
    )

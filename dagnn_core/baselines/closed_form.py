"""Baselines without a training loop: fitted on train, their settings selected on val."""

from torch import Tensor

from dagnn_core.baselines.cca import select_cca
from dagnn_core.baselines.networks import LinearTowers
from dagnn_core.baselines.ridge import select_ridge
from dagnn_core.training.split import Split


def fit_cca_towers(train: Split, val: Split) -> LinearTowers:
    """CCA (`retrieval.cca`) as two affine maps."""
    cca = select_cca(
        train.image.cpu().numpy(),
        train.text.cpu().numpy(),
        val.image.cpu().numpy(),
        val.text.cpu().numpy(),
        val.labels.cpu().numpy().astype("uint8"),
    ).cca
    return _towers(
        cca.image_projection,
        -cca.image_mean @ cca.image_projection,
        cca.text_projection,
        -cca.text_mean @ cca.text_projection,
    )


def fit_ridge_towers(train: Split, val: Split) -> LinearTowers:
    """Ridge regression to the labels (`retrieval.ridge`) as two affine maps."""
    splits = [(split.image.cpu(), split.text.cpu(), split.labels.cpu()) for split in (train, val)]
    ridge = select_ridge(*splits)
    return _towers(*ridge.image, *ridge.text)


def _towers(image_weight: Tensor, image_bias: Tensor, text_weight: Tensor, text_bias: Tensor) -> LinearTowers:
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

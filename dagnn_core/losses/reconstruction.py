"""Reconstruction loss of the cross-modal generators."""

from torch import Tensor


def reconstruction_loss(translated: Tensor, real: Tensor) -> Tensor:
    """Squared error of translated features, relative to the squares of the real ones: ‖x̃ - x‖² / ‖x‖² over a batch.

    The authors' code has no such loss, although the AAAI 2021 abstract speaks of cross-reconstruction: its generators
    only have to deceive the discriminators.

    Shape:
        translated, real: [P, dim], of the same items -> scalar; 0 of no items.
    """
    error, size = (translated - real).square().sum(), real.square().sum()
    return error / size.clamp_min(1e-12)

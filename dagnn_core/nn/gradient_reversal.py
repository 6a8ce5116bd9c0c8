"""Gradient reversal (Ganin and Lempitsky, 2015): one backward pass trains both sides of an adversarial game."""

from typing import Any

import torch
from torch import Tensor


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


def reverse_gradient(x: Tensor) -> Tensor:
    """Return `x` itself; in the backward pass its gradient changes sign.

    Shape:
        any -> the same.
    """
    reversed_x: Tensor = _ReverseGradient.apply(x)  # type: ignore[no-untyped-call]
    return reversed_x

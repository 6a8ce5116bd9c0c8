"""Which device the networks run on."""

from typing import Literal

import torch

from dagnn_core.errors import InputError


def choose_device(wanted: Literal["auto", "cpu", "cuda"], *, key: str) -> torch.device:
    """The device that is asked for; `auto` takes a GPU where there is one.

    Args:
        wanted: what the configuration says.
        key: where it says so, for the message.

    Raises:
        InputError: there is no GPU where one is asked for.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError(f"{key} is cuda, but this machine has no usable GPU; set {key} to auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")

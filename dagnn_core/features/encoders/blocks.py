"""The last blocks of a pretrained network, whatever its library calls them: found by running it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dagnn_core.errors import InputError


def train_last_blocks(network: nn.Module, count: int, run: Callable[[], Tensor], *, key: str, model: str) -> None:
    """Let the last blocks of a network learn, and what runs after them (norm, pooler, projection); freeze the rest.

    The blocks are those of the longest `nn.ModuleList` that a run goes through and that lies in no other one: layers of
    a transformer, stages of a convolutional network. What the vectors do not depend on stays frozen.

    Args:
        network: its parameters are changed in `requires_grad` alone.
        count: how many blocks, from 1.
        run: embeds an example.
        key: what asks for so many, for the message.
        model: names the model, for the message.

    Raises:
        InputError: there are fewer blocks.
    """
    began: dict[nn.Module, int] = {}

    def note(module: nn.Module, _: object) -> None:
        began.setdefault(module, len(began))

    network.requires_grad_(True)
    hooks = [module.register_forward_pre_hook(note) for module in network.modules()]
    try:
        with torch.enable_grad():
            vectors = run()
    finally:
        for hook in hooks:
            hook.remove()
    blocks = _blocks(network, began)
    if len(blocks) < count:
        found = f"has {len(blocks)}" if len(blocks) else "has no list of blocks (nn.ModuleList)"
        remedy = f"set it to at most {len(blocks)}" if len(blocks) else "set it to 0, or choose another model"
        raise InputError(f"{key} is {count}, but {model} {found}", remedy)
    first = began[blocks[-count]]
    # whole modules, since some take the weights of their parts without calling these
    late = {parameter for module, place in began.items() if place >= first for parameter in module.parameters()}
    candidates = [parameter for parameter in network.parameters() if parameter in late]
    gradients = torch.autograd.grad(vectors.sum(), candidates, allow_unused=True)
    network.requires_grad_(False)
    for parameter, gradient in zip(candidates, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


def _blocks(network: nn.Module, began: dict[nn.Module, int]) -> nn.ModuleList:
    """The longest list of modules that ran; of lists of equal length the last one to begin."""
    lists = [
        part
        for part in network.modules()
        if isinstance(part, nn.ModuleList) and len(part) and all(block in began for block in part)
    ]
    inner = {part for blocks in lists for part in blocks.modules() if part is not blocks}
    outer = [blocks for blocks in lists if blocks not in inner]
    return max(outer, key=lambda blocks: (len(blocks), began[blocks[0]]), default=nn.ModuleList())

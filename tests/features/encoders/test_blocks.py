"""Which parameters the last blocks of a network are, for networks that are built in different ways."""

import pytest
import torch
from torch import nn

from dagnn_core.errors import InputError
from dagnn_core.features.encoders.blocks import train_last_blocks
from tests.features.small_backbones import convolutions


class Layered(nn.Module):
    """Two towers, of which one runs; a layer that two blocks share; one that nothing depends on."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.shared = nn.Linear(3, 3)
        self.blocks = nn.ModuleList(Block(self.shared) for _ in range(3))
        self.other_tower = nn.ModuleList(nn.Linear(3, 3) for _ in range(9))
        self.norm = nn.LayerNorm(3)
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        self.unused(x)
        return self.norm(x)


class Block(nn.Module):
    def __init__(self, shared):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(5))
        self.shared = shared

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).relu()
        return x + self.shared(x)


def learns(network, count, shape=(2, 3)):
    x = torch.ones(shape)
    train_last_blocks(network, count, lambda: network(x), key="features.image_tuned_blocks", model="net")
    return {name.rpartition(".")[0] for name, value in network.named_parameters() if value.requires_grad}


def test_the_blocks_are_the_longest_list_that_runs_and_lies_in_no_other():
    blocks = [{f"blocks.{block}.layers.{layer}" for layer in range(5)} for block in range(3)]
    assert learns(Layered(), 1) == {"norm", "shared"} | blocks[2]
    assert learns(Layered(), 2) == {"norm", "shared"} | blocks[2] | blocks[1]
    assert learns(Layered(), 3) == {"norm", "shared"} | blocks[2] | blocks[1] | blocks[0]


@pytest.mark.parametrize(
    ("network", "count", "shape", "message"),
    [
        (Layered(), 4, (2, 3), r"image_tuned_blocks is 4, but net has 3; set it to at most 3"),
        (convolutions(), 1, (1, 3, 16, 16), r"is 1, but net has no list of blocks \(nn\.ModuleList\); set it to 0, or"),
    ],
)
def test_too_few_blocks_are_refused(network, count, shape, message):
    with pytest.raises(InputError, match=message):
        learns(network, count, shape)

"""Section `train`: optimisation."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dagnn_core.config.section import DEFAULT_SEED, Count, Positive, Preset, Rate, Seed, Weight, require, section

_BEST: dict[str, object] = {
    "epochs": 20,
    "patience": 20,
    "batch_size": 128,
    "lr": 1e-3,
    "lr_schedule": "cosine",
    "warmup_epochs": 1,
    "weight_decay": 10.0,
    "weight_averaging": 0.99,
    "adam_beta1": 0.9,
}


@section
class TrainConfig:
    """Optimisation: Adam over all parameters, the epoch with the best validation MAP is kept."""

    NAME: ClassVar[str] = "train"

    preset: Preset = "aaai21"
    """Named set of values for the keys below; keys written out override it."""
    seed: Seed = DEFAULT_SEED
    """Initial weights and the order of batches."""
    epochs: Count = 40
    """Passes over the training split, at most."""
    patience: Count = 10
    """Stop after so many epochs without a better validation MAP."""
    batch_size: Annotated[int, Field(ge=2)] = 100
    """Items a step."""
    lr: Positive = 5e-5
    """Learning rate of Adam, at its highest."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """`cosine` falls to zero over `epochs`, step by step."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs over which the learning rate rises linearly from zero."""
    weight_decay: Weight = 0.0
    """Decoupled weight decay (AdamW)."""
    weight_averaging: Rate = 0.0
    """Decay of the moving average of the weights after every step, which is validated and kept; 0: no averaging."""
    adam_beta1: Rate = 0.5
    """Decay of the first moment."""
    adam_beta2: Rate = 0.999
    """Decay of the second moment."""
    adam_eps: Positive = 1e-8
    """Added to the root of the second moment."""
    reversal: Literal["constant", "ramp"] = "constant"
    """Strength of the gradient reversal: 1, or 2 / (1 + exp(-10 p)) - 1 at the fraction p of all steps (DANN)."""
    incomplete: Literal["skip", "mask", "reconstruct"] = "mask"
    """Items without an image or a text: left out; each modality learns from what is there; `reconstruct`: from epoch
    `reconstruct_from` on the generators make the missing features. The baselines always leave them out."""
    reconstruct_from: Count = 6
    """First epoch with reconstructed features."""
    unlabelled: Literal["use", "skip"] = "use"
    """Training items without labels: whatever needs no labels learns from them, or they are left out."""
    precision: Literal["auto", "float32", "bf16"] = "float32"
    """Arithmetic of forward and backward passes; weights, optimizer and validation are float32 in any case. `auto`
    takes bf16 where the device multiplies matrices faster in it, by measurement."""
    memory_budget: Weight = 0.0
    """GiB of memory that features may take on the device that trains; 0: half of what is free. More of them stay on
    the disk and are read batch by batch, with the same result. They are in memory in any case for baselines that are
    fitted in closed form, for `incomplete: reconstruct` and for `model.ranking: hybrid`."""
    deterministic: bool = False
    """On a GPU, take algorithms that give the same result every time; on a CPU they do in any case."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU where there is one."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "aaai21": {},
        "tpami22": {},
        "best": _BEST,
        "unseen_labels": _BEST,
        "few_labels": _BEST,
    }

    def __post_init__(self) -> None:
        require(self.warmup_epochs < self.epochs, "train.warmup_epochs", "below train.epochs", self.warmup_epochs)

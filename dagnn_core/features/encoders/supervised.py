"""The text encoder `supervised_bow`: the hidden layer of a label classifier on a bag of words.

The papers' text features have 300 dimensions, and the authors' code holds a classifier of a 1386-d bag of words with a
hidden layer of that width, which it never calls; their origin is otherwise unknown. The classifier here has this one
hidden layer. It learns from the training items alone; validation items say when to stop.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from dagnn_core.arrays import opening
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.encoders.state import write_state
from dagnn_core.features.encoders.words import LabelledTexts, WordEncoder
from dagnn_core.progress import track
from dagnn_core.tensors import save_tensors

log = logging.getLogger(__name__)

MAX_EPOCHS = 100
PATIENCE = 5  # epochs without a lower loss on the validation items
BATCH = 100
LEARNING_RATE = 1e-3
DROPOUT = 0.5  # of the hidden layer
WORDS = "words"
LAYER = "hidden.safetensors"


@dataclass(frozen=True, slots=True)
class SupervisedEncoder:
    """ReLU(W b + c) of the bag of words b. A text without any word of the vocabulary is the zero vector."""

    words: WordEncoder
    weight: Tensor
    """W, [dim, number of words]."""
    bias: Tensor
    """c, [dim]."""

    @property
    def kind(self) -> str:
        """Name of the encoder in the configuration."""
        return "supervised_bow"

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return len(self.bias)

    @classmethod
    def fit_texts(cls, train: LabelledTexts, val: LabelledTexts, config: FeaturesConfig) -> "SupervisedEncoder":
        """Fit a bag of words on all training texts, then the classifier on the labelled ones.

        Raises:
            InputError: as `fit`, and as `WordEncoder.fit`.
        """
        words = WordEncoder.fit(
            train.texts, kind="bow", min_word_count=config.min_word_count, max_words=config.max_words
        )
        labelled = np.flatnonzero(train.labels.any(axis=1)).tolist()
        train = LabelledTexts([train.texts[row] for row in labelled], train.labels[labelled])
        return cls.fit(words, train, val, dim=config.supervised_dim, seed=config.seed)

    @classmethod
    def fit(
        cls, words: WordEncoder, train: LabelledTexts, val: LabelledTexts, *, dim: int, seed: int
    ) -> "SupervisedEncoder":
        """Train the classifier by binary cross-entropy, and keep the epoch with the lowest loss on `val`.

        Same seed, same machine: same weights to the bit.

        Args:
            words: the bag of words, fitted on the training texts.
            train: what the classifier learns from.
            val: what says when to stop.
            dim: width of the hidden layer.
            seed: draws initial weights, batches and dropout.

        Raises:
            InputError: `val` is empty.
        """
        if not val.texts:
            raise InputError(
                "features.text is supervised_bow, which stops by the validation texts, but there are none",
                "correct the splits of the data set, or choose bow",
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            hidden, output = nn.Linear(words.dim, dim), nn.Linear(dim, train.labels.shape[1])
            optimizer = torch.optim.Adam([*hidden.parameters(), *output.parameters()], lr=LEARNING_RATE)
            best_loss, best_epoch = float("inf"), 0
            for epoch in range(1, MAX_EPOCHS + 1):
                rows = torch.split(torch.randperm(len(train.texts)), BATCH)
                for batch in track(rows, description=f"text classifier, epoch {epoch}", total=len(rows)):
                    optimizer.zero_grad()
                    x, y = _tensors(words, train, batch.tolist())
                    logits = output(functional.dropout(functional.relu(hidden(x)), DROPOUT))
                    torch.autograd.backward(functional.binary_cross_entropy_with_logits(logits, y))
                    optimizer.step()
                loss = _loss(words, val, hidden, output)
                if loss < best_loss:
                    best_loss, best_epoch = loss, epoch
                    encoder = cls(words, hidden.weight.detach().clone(), hidden.bias.detach().clone())
                elif epoch - best_epoch == PATIENCE:
                    break
        log.info("text classifier of epoch %d, val loss %.4f", best_epoch, best_loss)
        return encoder

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts.

        Shape:
            B texts -> [B, dim].
        """
        bags = torch.from_numpy(self.words.encode(texts))
        hidden = functional.relu(functional.linear(bags, self.weight, self.bias))
        vectors: NDArray[np.float32] = (hidden * bags.any(dim=1, keepdim=True)).numpy()
        return vectors

    @classmethod
    def load(cls, directory: Path) -> "SupervisedEncoder":
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing or damaged.
        """
        words, path = WordEncoder.load(directory / WORDS), directory / LAYER
        with opening(path, "rebuild it"):
            state = load_file(path)
            weight, bias = state["weight"].float(), state["bias"].float()
        if weight.shape != (*bias.shape, words.dim):
            raise ArtifactError(
                f"{path}: weight {list(weight.shape)} and bias {list(bias.shape)} do not fit each other and the "
                f"{words.dim} words",
                "rebuild it",
            )
        return cls(words, weight, bias)

    def save(self, directory: Path) -> None:
        """Write the state into a directory."""
        write_state(directory, {"kind": self.kind, "dim": self.dim})
        (directory / WORDS).mkdir()
        self.words.save(directory / WORDS)
        save_tensors(directory / LAYER, {"weight": self.weight, "bias": self.bias})


def _tensors(words: WordEncoder, data: LabelledTexts, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    bags = words.encode([data.texts[row] for row in rows])
    return torch.from_numpy(bags), torch.tensor(data.labels[rows], dtype=torch.float32)


@torch.no_grad()
def _loss(words: WordEncoder, data: LabelledTexts, hidden: nn.Linear, output: nn.Linear) -> float:
    """Mean binary cross-entropy over all items and labels."""
    total = 0.0
    for rows in torch.split(torch.arange(len(data.texts)), BATCH):
        x, y = _tensors(words, data, rows.tolist())
        logits = output(functional.relu(hidden(x)))
        total += functional.binary_cross_entropy_with_logits(logits, y, reduction="sum").item()
    return total / data.labels.size

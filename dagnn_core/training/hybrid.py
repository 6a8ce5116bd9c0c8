"""Complete a trained network whose ranking is hybrid: CCA on the training pairs, and the two weights on val.

The score of an image and a text is s = w p·q + (1-v) cos(f_I, f_T) + v cos(c_I, c_T), see `dagnn_core.nn.lifted`.
Label probabilities rank best what the labels say, and worst what they do not. So w and v are those that find most of
what is no label, among those that lose next to nothing of what is one:

    (w, v) = argmax U(w, v)  over  M(w, v) ≥ max M - t, t = model.hybrid_tolerance
    M = MAP of s, relevance by all labels
    U = R@10 of the own partner + mean over folds F of the labels of
        MAP of s without the labels of F in p·q, relevance by the labels of F

A fold of the labels is a simulation of unseen labels. It is optimistic for f, which was trained with them, and honest
for p·q and c; the own partner is honest for all three.

Shapes: N items, C labels.
"""

import itertools
import statistics
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dagnn_core.baselines.cca import fit_cca
from dagnn_core.config.section import DEFAULT_SEED
from dagnn_core.nn.dagnn import DAGNN
from dagnn_core.nn.lifted import Parts, lift_hybrid
from dagnn_core.retrieval.metrics import evaluate_retrieval
from dagnn_core.training.split import Split

LABEL_WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
CANONICAL_SHARES = (0.0, 0.5, 1.0)
NUM_FOLDS = 5
MAX_ITEMS = 1000  # of val, drawn: the weights need no more
REGULARIZATION, POWER = 1.0, 2  # of CCA, as `dagnn_core.baselines.cca` selects them on most features


class Weights(NamedTuple):
    """Weights of the hybrid ranking."""

    label_weight: float
    """w."""
    canonical_share: float
    """v."""


@torch.no_grad()
def complete_hybrid(network: DAGNN, train_split: Split, val_split: Split, tolerance: float) -> Weights:
    """Fit CCA on the training pairs and choose the weights on val; the network is changed in place.

    Args:
        network: trained, with `model.ranking: hybrid`.
        train_split: what it was trained on; the complete items count.
        val_split: complete items.
        tolerance: t, `model.hybrid_tolerance`.

    Returns:
        The weights.

    Raises:
        InputError: a feature is not finite, or no validation item has a label.
    """
    assert network.hybrid is not None
    network.eval()
    pairs = train_split.pairs()
    image, text = (pairs.features(modality).cpu().numpy() for modality in ("image", "text"))
    cca = fit_cca(image, text, regularization=REGULARIZATION)
    cca = cca.scaled(len(network.hybrid.get_buffer("image_offset")), POWER)
    for name, value in (
        ("image_projection", cca.image_projection),
        ("image_offset", -cca.image_mean @ cca.image_projection),
        ("text_projection", cca.text_projection),
        ("text_offset", -cca.text_mean @ cca.text_projection),
    ):
        network.hybrid.get_buffer(name).copy_(value)
    rows = _draw_rows(val_split.labels)
    weights = choose_weights(
        network.hybrid_parts(val_split.features("image", rows), "image"),
        network.hybrid_parts(val_split.features("text", rows), "text"),
        val_split.labels[rows.to(val_split.device)].cpu().numpy().astype(np.uint8),
        tolerance,
    )
    network.hybrid.label_weight.fill_(weights.label_weight)
    network.hybrid.canonical_share.fill_(weights.canonical_share)
    return weights


def choose_weights(image: Parts, text: Parts, labels: NDArray[np.uint8], tolerance: float) -> Weights:
    """The weights w and v, as this module says; of several equally good ones the first of the grid.

    Args:
        image: parts of the images of some pairs.
        text: parts of their texts.
        labels: label matrix.
        tolerance: t, `model.hybrid_tolerance`.

    Shape:
        labels [N, C].

    Raises:
        InputError: no item has a label.
    """
    grid = [Weights(*pair) for pair in itertools.product(LABEL_WEIGHTS, CANONICAL_SHARES)]
    metrics = {weights: _evaluate(image, text, labels, weights) for weights in grid}
    least = max(found["map_mean"] for found in metrics.values()) - tolerance
    folds = label_folds(labels)

    def outside_labels(weights: Weights) -> float:
        found = metrics[weights]
        simulated = [_simulate_unseen(image, text, labels, weights, fold) for fold in folds]
        return (found["recall_i2t_at_10"] + found["recall_t2i_at_10"]) / 2 + statistics.mean(simulated)

    return max((weights for weights in grid if metrics[weights]["map_mean"] >= least), key=outside_labels)


def label_folds(labels: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """The labels that an item carries, drawn into folds of nearly equal size; every one is in one fold.

    Shape:
        labels [N, C].
    """
    carried = np.flatnonzero(labels.any(axis=0))
    order = np.random.default_rng(DEFAULT_SEED).permutation(carried)
    return [np.sort(order[first::NUM_FOLDS]) for first in range(min(NUM_FOLDS, len(carried)))]


def _simulate_unseen(
    image: Parts, text: Parts, labels: NDArray[np.uint8], weights: Weights, fold: NDArray[np.int64]
) -> float:
    """MAP with relevance by the labels of a fold, which the label probabilities lack."""
    rest = np.setdiff1d(np.arange(labels.shape[1]), fold)
    image, text = (parts._replace(probabilities=parts.probabilities[:, rest]) for parts in (image, text))
    return _evaluate(image, text, labels[:, fold], weights)["map_mean"]


def _evaluate(image: Parts, text: Parts, labels: NDArray[np.uint8], weights: Weights) -> dict[str, float]:
    options = {name: torch.tensor(value) for name, value in weights._asdict().items()}
    image_vectors = lift_hybrid(image, "image", **options).cpu().numpy()
    text_vectors = lift_hybrid(text, "text", **options).cpu().numpy()
    return evaluate_retrieval(image_vectors, text_vectors, labels)


def _draw_rows(labels: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(DEFAULT_SEED)
    return torch.randperm(len(labels), generator=generator)[:MAX_ITEMS]

"""The hybrid ranking after the training: its weights by their definition, CCA as it is, the network as it was."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dagnn_core.baselines.cca import fit_cca
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import parse_section
from dagnn_core.config.train import TrainConfig
from dagnn_core.model.kinds import build_network
from dagnn_core.nn.dagnn import DAGNN
from dagnn_core.nn.label_graphs import GraphTensors
from dagnn_core.nn.lifted import Parts
from dagnn_core.retrieval.metrics import evaluate_retrieval
from dagnn_core.training.hybrid import CANONICAL_SHARES, LABEL_WEIGHTS, choose_weights, label_folds
from dagnn_core.training.loop import TrainingResult, train

from .test_training import GRAPH, make_incomplete, make_split

HYBRID = parse_section(ModelConfig, {"preset": "best", "embedding_dim": 16, "ranking": "hybrid"}, "model")


def unit(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def average_precision(scores: NDArray[np.float64], relevant: NDArray[np.bool_]) -> float:
    """MAP of one direction, by a loop over queries."""
    found = []
    for score, wanted in zip(scores, relevant, strict=True):
        ranked = wanted[np.argsort(-score, kind="stable")]
        if ranked.any():
            found.append(np.mean([ranked[: rank + 1].mean() for rank in np.flatnonzero(ranked)]))
    return float(np.mean(found))


def both(scores: NDArray[np.float64], relevant: NDArray[np.bool_]) -> float:
    return (average_precision(scores, relevant) + average_precision(scores.T, relevant.T)) / 2


@pytest.mark.parametrize(("seed", "tolerance"), [(0, 0.002), (1, 0.002), (2, 0.05)])
def test_the_weights_are_those_of_the_equation(seed: int, tolerance: float) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random((40, 7)) < 0.3).astype(np.uint8)
    labels[:, 6] = 0  # a label of no item is in no fold
    p, q = (np.clip(0.8 * labels + 0.4 * rng.random(labels.shape), 0, 1) for _ in range(2))
    hidden = rng.normal(size=(40, 5))
    f, g, c, d = (hidden + noise * rng.normal(size=(40, 5)) for noise in (1.0, 1.0, 2.0, 2.0))
    folds = label_folds(labels)
    assert sorted(label for fold in folds for label in fold) == list(range(6))

    def score(w: float, v: float, without: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        kept = np.setdiff1d(np.arange(7), [] if without is None else without)
        result: NDArray[np.float64] = (
            w * p[:, kept] @ q[:, kept].T + (1 - v) * unit(f) @ unit(g).T + v * unit(c) @ unit(d).T
        )
        return result

    def recall(scores: NDArray[np.float64]) -> float:
        queries = labels.any(axis=1)
        ranks = (scores > np.diag(scores)[:, None]).sum(axis=1), (np.diag(scores)[:, None] < scores.T).sum(axis=1)
        return float(np.mean([(rank[queries] < 10).mean() for rank in ranks]))

    seen, outside = {}, {}
    for w, v in itertools.product(LABEL_WEIGHTS, CANONICAL_SHARES):
        seen[w, v] = both(score(w, v), labels @ labels.T > 0)
        simulated = [both(score(w, v, fold), labels[:, fold] @ labels[:, fold].T > 0) for fold in folds]
        outside[w, v] = recall(score(w, v)) + np.mean(simulated)
    allowed = [weights for weights in seen if seen[weights] >= max(seen.values()) - tolerance]
    parts = (Parts(*(torch.tensor(part) for part in parts)) for parts in ((p, f, c), (q, g, d)))
    chosen = choose_weights(*parts, labels, tolerance)
    assert tuple(chosen) in allowed
    assert outside[tuple(chosen)] == pytest.approx(max(outside[weights] for weights in allowed), abs=1e-6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train(
        train_split=make_split(200, seed=1),
        val_split=make_split(60, seed=2),
        graph=GRAPH,
        model_config=HYBRID,
        config=TrainConfig(epochs=3, batch_size=16, lr=3e-3),
        checkpoint=tmp_path_factory.mktemp("hybrid") / "checkpoint.safetensors",
    )


def test_a_trained_hybrid_has_the_variates_of_cca_and_the_metrics_of_its_weights(trained: TrainingResult) -> None:
    network = build_network(HYBRID, image_dim=20, text_dim=12, graph=empty(GRAPH))
    network.load_state_dict(trained.weights)
    assert isinstance(network.eval(), DAGNN) and network.hybrid is not None
    split, val = make_split(200, seed=1), make_split(60, seed=2)
    cca = fit_cca(split.image.numpy(), split.text.numpy(), regularization=1.0).scaled(12, 2)
    with torch.no_grad():
        for modality, features, expected in (
            ("image", val.image, cca.embed_images(val.image.numpy())),
            ("text", val.text, cca.embed_texts(val.text.numpy())),
        ):
            got = network.hybrid.canonical(features, modality)
            np.testing.assert_allclose(got.numpy(), expected, rtol=1e-3, atol=1e-4)
        metrics = evaluate_retrieval(
            network.embed_image(val.image).numpy(),
            network.embed_text(val.text).numpy(),
            val.labels.numpy().astype(np.uint8),
        )
    assert network.hybrid.label_weight.item() in LABEL_WEIGHTS
    assert network.hybrid.canonical_share.item() in CANONICAL_SHARES
    assert trained.val_metrics["val_map_mean"] == pytest.approx(metrics["map_mean"], abs=1e-9)
    assert trained.val_metrics["best_epoch"] in (1, 2, 3)


def test_incomplete_items_take_no_part_in_cca(tmp_path: Path) -> None:
    result = train(
        train_split=make_incomplete(make_split(200, seed=1)),
        val_split=make_split(60, seed=2),
        graph=GRAPH,
        model_config=HYBRID,
        config=TrainConfig(epochs=1, batch_size=50),
        checkpoint=tmp_path / "checkpoint.safetensors",
    )
    assert all(value.isfinite().all() for value in result.weights.values())


def empty(graph: GraphTensors) -> GraphTensors:
    return graph._replace(embeddings=torch.zeros_like(graph.embeddings))

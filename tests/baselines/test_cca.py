"""The CCA baseline: its defining equations, its choice on the validation pairs, and its corner cases."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dagnn_core.baselines import cca
from dagnn_core.baselines.cca import fit_cca, select_cca
from dagnn_core.errors import InputError
from dagnn_core.retrieval.metrics import evaluate_retrieval

Pairs = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint8]]


def make_pairs(num: int, image_dim: int = 30, text_dim: int = 20, seed: int = 0) -> Pairs:
    """Labels are visible in both modalities through two fixed random maps, with noise of unequal size."""
    maps, rng = np.random.default_rng(99), np.random.default_rng(seed)
    to_image, to_text = maps.normal(size=(6, image_dim)), maps.normal(size=(6, text_dim))
    labels = (rng.random((num, 6)) < 0.35).astype(np.uint8)
    noise = np.linspace(0.2, 3.0, image_dim)
    image = labels @ to_image + noise * rng.normal(size=(num, image_dim)) + 5.0
    text = labels @ to_text + rng.normal(size=(num, text_dim)) - 2.0
    return image, text, labels


@pytest.mark.parametrize("num", [200, 12])  # 12: fewer pairs than features
def test_projections_whiten_the_regularised_covariances_and_diagonalise_their_product(num: int) -> None:
    image, text, _ = make_pairs(num)
    found = fit_cca(image, text, regularization=0.1)
    covariance = np.cov(image, text, rowvar=False, bias=True)
    image_covariance, text_covariance, cross = covariance[:30, :30], covariance[30:, 30:], covariance[:30, 30:]
    for matrix, projection in (
        (image_covariance, found.image_projection.numpy()),
        (text_covariance, found.text_projection.numpy()),
    ):
        ridge = 0.1 * np.trace(matrix) / len(matrix) * np.eye(len(matrix))
        np.testing.assert_allclose(projection.T @ (matrix + ridge) @ projection, np.eye(20), atol=1e-9)
    correlations = found.image_projection.numpy().T @ cross @ found.text_projection.numpy()
    np.testing.assert_allclose(correlations, np.diag(found.correlations.numpy()), atol=1e-9)
    assert (found.correlations.diff() <= 0).all() and found.correlations[-1] >= 0 and found.correlations[0] < 1


def test_correlations_are_those_of_the_embeddings_without_regularisation() -> None:
    image, text, _ = make_pairs(500)
    found = fit_cca(image, text, regularization=0.0)
    one, other = found.embed_images(image), found.embed_texts(text)
    measured = [np.corrcoef(one[:, k], other[:, k])[0, 1] for k in range(20)]
    np.testing.assert_allclose(measured, found.correlations.numpy(), atol=1e-9)


def test_scaling_keeps_the_first_components_and_weights_them() -> None:
    image, text, _ = make_pairs(100)
    full = fit_cca(image, text, regularization=0.1)
    scaled = full.scaled(num_components=3, power=2)
    expected = full.embed_images(image)[:, :3] * full.correlations[:3].numpy() ** 2
    np.testing.assert_allclose(scaled.embed_images(image), expected, atol=1e-12)
    assert scaled.embed_texts(text).shape == (100, 3)


def test_selection_takes_the_best_on_validation() -> None:
    train, val, test = (make_pairs(num, seed=seed) for seed, num in enumerate((400, 150, 150)))
    selected = select_cca(*train[:2], *val)
    scores = []
    for regularization in cca.REGULARIZATIONS:
        full = fit_cca(*train[:2], regularization=regularization)
        for num_components in (16, 20):  # as many as there are: 20
            for power in cca.POWERS:
                candidate = full.scaled(num_components, power)
                embeddings = candidate.embed_images(val[0]), candidate.embed_texts(val[1])
                scores.append(evaluate_retrieval(*embeddings, val[2])["map_mean"])
    assert selected.val_map_mean == max(scores) > min(scores)
    metrics = evaluate_retrieval(selected.cca.embed_images(test[0]), selected.cca.embed_texts(test[1]), test[2])
    assert metrics["map_mean"] > 0.85, "the labels are linear in the features"


def test_constant_and_single_precision_features() -> None:
    image, text, labels = make_pairs(60)
    image[:, 3] = 7.0  # a word that no training text has
    selected = select_cca(image.astype(np.float16), text.astype(np.float32), image[:20], text[:20], labels[:20])
    assert selected.val_map_mean > 0.7
    constant = fit_cca(np.zeros_like(image), text, regularization=1.0)
    assert torch.equal(constant.correlations, torch.zeros(20, dtype=torch.float64))


def test_features_that_are_not_finite_are_refused() -> None:
    image, text, labels = make_pairs(60)
    image[5, 1] = np.nan
    with pytest.raises(InputError, match=r"image features of the training pairs: row 5 is not finite"):
        select_cca(image, text, image[:20], text[:20], labels[:20])

"""Retrieval metrics on a machine with a GPU: the same to the bit as by products on the CPU."""

import numpy as np
import pytest
import torch

from dagnn_core.retrieval import metrics
from dagnn_core.retrieval.metrics import chance_scores, relevant_fraction, score_pairs_with_curves

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_products_of_a_gpu_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image, text = (rng.standard_normal((1500, 300), dtype=np.float32) for _ in range(2))
    text[3] = image[5] = 0
    text[7:20] = text[6]  # ties
    labels = (rng.random((1500, 24)) < 0.2).astype(np.uint8)

    def measure() -> list[np.ndarray]:
        both = score_pairs_with_curves(image, text, labels)
        scores = [column for one in both for column in (*one.scores, one.precision)]
        return [*scores, *chance_scores(labels, labels), relevant_fraction(labels, labels)]

    assert metrics._columns(text).is_cuda
    on_gpu = measure()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not metrics._columns(text).is_cuda
    for got, expected in zip(on_gpu, measure(), strict=True):
        np.testing.assert_array_equal(got, expected)

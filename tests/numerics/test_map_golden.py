"""Average precisions equal those of the authors' published implementation (LivXue/GNN4CMR), in float64."""

import os
from pathlib import Path

import numpy as np
import pytest

from dagnn_core.retrieval.metrics import evaluate_retrieval, score_queries

GOLDEN = Path(os.environ.get("DAGNN_GOLDEN", Path(__file__).parents[1] / "golden"))


@pytest.mark.parametrize("case", [f"case{number}" for number in range(5)])
def test_average_precision_equals_the_published_code(case: str) -> None:
    with np.load(GOLDEN / "map.npz", allow_pickle=False) as file:
        golden = {key.removeprefix(f"{case}/"): file[key] for key in file.files if key.startswith(f"{case}/")}
    image, text, labels = (golden[key] for key in ("image_embedding", "text_embedding", "labels"))
    own = np.arange(len(labels))
    for direction, query, gallery in (("image_to_text", image, text), ("text_to_image", text, image)):
        scores = score_queries(query, gallery, labels, labels, partners=own)
        expected = golden[f"average_precision_{direction}"]
        np.testing.assert_allclose(scores.average_precision, expected, rtol=0, atol=1e-12)
    metrics = evaluate_retrieval(image, text, labels)
    assert metrics["map_i2t"] == pytest.approx(float(golden["map_image_to_text"]), abs=1e-12)
    assert metrics["map_t2i"] == pytest.approx(float(golden["map_text_to_image"]), abs=1e-12)

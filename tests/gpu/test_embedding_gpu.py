"""Features on a GPU: the same as on the CPU, in float32 and, less exactly, in bf16."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dagnn_core.config.features import FeaturesConfig
from dagnn_core.features.extraction import image_loader, vector_cache
from dagnn_core.features.extraction.extract import extract_with_image_backbone
from tests.features.small_backbones import SmallImageBackbone, make_dataset

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bf16", 2e-2)])
def test_vectors_are_those_of_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, tolerance: float
) -> None:
    monkeypatch.setattr(vector_cache, "SHARD_ROWS", 20)
    monkeypatch.setattr(image_loader, "IMAGES_PER_WORKER", 10)
    dataset = make_dataset(tmp_path / "dataset", 90)
    config = FeaturesConfig(batch_size=8, workers=2)
    matrices = {}
    for device, settings in (("cpu", config), ("cuda", replace(config, precision=precision))):
        path = tmp_path / f"{device}.npy"
        extract_with_image_backbone(
            dataset, SmallImageBackbone(), replace(settings, device=device), tmp_path / device, path
        )
        matrices[device] = np.load(path)
    scale = np.abs(matrices["cpu"]).max()
    np.testing.assert_allclose(matrices["cuda"], matrices["cpu"], atol=tolerance * scale)
    assert not matrices["cuda"][~dataset.has_image].any()

"""The benchmark of extraction, on a tiny model."""

import pytest

from components.benchmarks import features
from dagnn_core.errors import InputError


def test_figures_are_rates_and_their_quotient(model_folder):
    figures = features.run(model=str(model_folder("vit")), num_images=20, precision="bf16", repeats=1)
    ways = ("network alone", "extraction", "classic", "classic, from the cache")
    assert all(figures[f"{way}: images/s"] > 0 for way in ways)
    assert figures["extraction / network alone"] == pytest.approx(
        figures["extraction: images/s"] / figures["network alone: images/s"]
    )
    assert (figures["precision"], figures["images"], figures["batch size"]) == ("bf16", 20, 64)


def test_a_model_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="nothing-here"):
        features.run(model=str(tmp_path / "nothing-here"), num_images=1, precision="float32")


@pytest.mark.slow
def test_vit_small_is_the_published_size(tmp_path):
    from dagnn_core.config.features import FeaturesConfig
    from dagnn_core.features.encoders.registry import open_image_backbone

    features._save_vit_small(tmp_path / "model")
    backbone = open_image_backbone(FeaturesConfig(image="huggingface", image_model=str(tmp_path / "model")))
    assert backbone.dim == 384
    assert backbone.preprocess(features._image(0)).shape == (3, 224, 224)

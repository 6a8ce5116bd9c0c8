import io
import warnings

import numpy as np
import pytest
from PIL import Image

from dagnn_core.errors import InputError
from dagnn_core.features.encoders.decoding import decode


def encoded(image, file_format="PNG"):
    file = io.BytesIO()
    image.save(file, file_format)
    return file.getvalue()


@pytest.mark.parametrize(("size", "decoded"), [((300, 200), (300, 200)), ((1600, 1200), (400, 300))])
def test_a_large_jpeg_is_decoded_at_a_fraction(size, decoded):
    assert decode(encoded(Image.new("RGB", size, "red"), "JPEG"), 300).size == decoded
    assert decode(encoded(Image.new("RGB", size, "red")), 300).size == size


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    image = decode(encoded(Image.new("RGB", (20, 10), "white").convert(mode), "TIFF"), 10)
    assert image.mode == "RGB"
    assert (np.asarray(image) == 255).all()


@pytest.mark.parametrize("side", [35, 60])  # where Pillow only warns, and where it refuses by itself
def test_images_above_the_limit_are_refused(monkeypatch, side):
    image = encoded(Image.new("RGB", (side, side)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(InputError, match=r"cannot be decoded \(.*(pixels are more than 1000|exceeds limit)"):
            decode(image, 10)

"""Decoding of images, the same for every image encoder."""

import io

from PIL import Image, ImageOps

from dagnn_core.data.images import FORMATS
from dagnn_core.errors import InputError


def decode(encoded: bytes, at_least: int) -> Image.Image:
    """Decode an image (JPEG, PNG ...) to RGB, upright, transparent parts on white.

    Args:
        encoded: the encoded image.
        at_least: pixels that each side keeps where it has as many: a large JPEG is decoded at a fraction of its size,
            which is much faster.

    Raises:
        InputError: Pillow cannot decode it, or it has more pixels than Pillow's limit.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise InputError(f"{image.width} x {image.height} pixels are more than {limit}")
            image.draft("RGB", (at_least, at_least))
            upright: Image.Image = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):
                upright = upright.convert("I").point(lambda value: value / 257)  # else 16-bit greys are cut off at 255
            if upright.has_transparency_data:
                upright = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
            return upright.convert("RGB")
    except Exception as error:  # a damaged file makes the decoders raise nearly anything
        raise InputError(f"cannot be decoded ({error}), expected one of {', '.join(FORMATS)}", "replace it") from error

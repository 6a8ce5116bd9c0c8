"""Small copies of images, to be put into a page."""

import base64
import io
from typing import Literal

from dagnn_core.data.images import decode

THUMBNAIL_PIXELS = 240  # of the longer side: sharp in the page, and a hundred of them stay below two readable_size
JPEG_QUALITY = 82


def thumbnail(encoded: bytes, pixels: int = THUMBNAIL_PIXELS) -> bytes:
    """A small copy as JPEG, upright, on white where the image is transparent.

    Args:
        encoded: the image.
        pixels: of the longer side.

    Raises:
        InputError: the image cannot be decoded.
    """
    stream = io.BytesIO()
    image = decode(encoded)
    image.thumbnail((pixels, pixels))
    image.save(stream, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return stream.getvalue()


def data_uri(encoded: bytes, kind: Literal["jpeg", "png"]) -> str:
    """An image as the address of itself."""
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode('ascii')}"

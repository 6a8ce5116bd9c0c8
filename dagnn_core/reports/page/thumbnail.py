"""Small copies of images, to be put into a page."""

import base64
import io
from typing import Literal

from PIL import Image, ImageOps

from dagnn_core.data.images import FORMATS

THUMBNAIL_PIXELS = 240  # of the longer side: sharp in the page, and a hundred of them stay below two readable_size
JPEG_QUALITY = 82


def thumbnail(encoded: bytes) -> bytes:
    """A small copy as JPEG, upright, on white where the image is transparent."""
    stream = io.BytesIO()
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        upright = ImageOps.exif_transpose(image).convert("RGBA")
        upright.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        flat = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
        flat.save(stream, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return stream.getvalue()


def data_uri(encoded: bytes, kind: Literal["jpeg", "png"]) -> str:
    """An image as the address of itself."""
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode('ascii')}"

"""Encoded images: the one way in which they are decoded, within a budget of pixels, and on threads."""

import io
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from dagnn_core.errors import InputError

# formats that need no outside program (EPS starts Ghostscript) and that every image encoder reads
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
SUFFIXES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""How their files are named."""
READ_AHEAD = 32  # images in flight: enough to keep the threads busy, few enough to stay small in memory
PIXELS_IN_FLIGHT = 64 << 20  # decoded at once, on all threads or processes: 4 bytes each, 12 with transparency
MAX_ASPECT = 32  # longer side to shorter one, in an encoder
_PIXELS_PER_PERMIT = 1 << 20

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the image upright."""

# Pillow allocates large images in blocks. Blocks above 32 MB go back to the system when they are freed; those of its
# default size, 16 MB, stay with the thread that had them, so that memory would grow with the number of threads.
Image.core.set_block_size(64 << 20)  # type: ignore[attr-defined]

T = TypeVar("T")
R = TypeVar("R")


def image_names(folder: Path) -> list[str]:
    """Paths of the images in a folder and the folders below it, by their suffixes, sorted.

    Raises:
        InputError: it has none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise InputError(f"{folder} has no images, expected a folder with files {', '.join(SUFFIXES)}")
    return [path.relative_to(folder).as_posix() for path in found]


class PixelBudget:
    """Bounds the pixels that threads, or processes, decode at the same time; a larger image is decoded alone."""

    def __init__(self, context: Any = threading) -> None:
        """Make a budget of PIXELS_IN_FLIGHT.

        Args:
            context: what has Lock and Semaphore: `threading`, or a context of `multiprocessing`.
        """
        self._num_permits = PIXELS_IN_FLIGHT // _PIXELS_PER_PERMIT
        self._permits = context.Semaphore(self._num_permits)
        self._turn = context.Lock()  # one at a time collects permits, else two could wait for each other

    @contextmanager
    def spend(self, pixels: int) -> Iterator[None]:
        """Wait until so many pixels fit, and hold them in the body."""
        wanted = min(-(-pixels // _PIXELS_PER_PERMIT), self._num_permits)
        with self._turn:
            for _ in range(wanted):
                self._permits.acquire()
        try:
            yield
        finally:
            for _ in range(wanted):
                self._permits.release()


_budget = PixelBudget()


def share_budget(budget: PixelBudget) -> None:
    """Make this process, one of several that decode, spend their common budget."""
    global _budget  # noqa: PLW0603 -- one for the process, whatever decodes in it
    _budget = budget


class ImageHeader(NamedTuple):
    """What the first bytes of an encoded image say."""

    format: str
    """As Pillow calls it: JPEG, PNG ..."""
    width: int
    height: int


def read_header(encoded: bytes) -> ImageHeader:
    """Read format and size of an image, before its orientation; no pixel is decoded.

    Raises:
        InputError: it is no image in one of FORMATS.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            return ImageHeader(str(image.format), *image.size)
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        raise _undecodable(error) from error


@contextmanager
def decoded(encoded: bytes, at_least: int | None = None) -> Iterator[Image.Image]:
    """Decode an image to RGB, upright, transparent parts on white; in the body it counts as in flight.

    Greys of 16 bits are scaled to 8, whole numbers and floats of 32 bits by the range that holds all of them: 0 to 1
    (floats), 255, 65,535, else their own. An orientation that cannot be read is passed over. Of several frames the
    first counts. A thread that is in the body of one image must not decode another.

    Args:
        encoded: the encoded image, in one of FORMATS.
        at_least: pixels that each side keeps where it has as many: a large JPEG is decoded at a fraction of its size,
            which is much faster. None: decode the image whole.

    Raises:
        InputError: Pillow cannot decode it, or it has more pixels than Pillow's limit.
    """
    with _opened(encoded, at_least) as image, _budget.spend(image.width * image.height):
        try:
            rgb = _to_rgb(image)
        except Exception as error:  # a damaged file makes the decoders raise nearly anything
            raise _undecodable(error) from error
        yield rgb


def decode(encoded: bytes, at_least: int | None = None) -> Image.Image:
    """Decode an image like `decoded`, for those who have few of them at a time: it only counts until it is returned.

    Args:
        encoded: the encoded image, in one of FORMATS.
        at_least: pixels that each side keeps where it has as many; None: all.

    Raises:
        InputError: Pillow cannot decode it, or it has more pixels than Pillow's limit.
    """
    with decoded(encoded, at_least) as image:
        return image


def trim(image: Image.Image) -> Image.Image:
    """An image, or the middle of one longer than MAX_ASPECT times its shorter side.

    An encoder that resizes the shorter side to its own size would else make gigabytes of a line of pixels.
    """
    longest = MAX_ASPECT * min(image.size)
    if max(image.size) <= longest:
        return image
    left, top = (max(side - longest, 0) // 2 for side in image.size)
    return image.crop((left, top, left + min(image.width, longest), top + min(image.height, longest)))


def decoding_fault(encoded: bytes) -> str:
    """Why an image cannot be decoded; empty where it can. The whole image is decoded."""
    try:
        with decoded(encoded):
            return ""
    except InputError as error:
        return _why(error.__cause__ or error)


def map_in_order(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`map` on threads: results in the order of the items, at most READ_AHEAD of them in memory."""
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor() as threads:
        for item in items:
            pending.append(threads.submit(function, item))
            if len(pending) == READ_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@contextmanager
def _opened(encoded: bytes, at_least: int | None) -> Iterator[Image.Image]:
    """The image with its header read, of a size that is allowed."""
    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            raise ValueError(f"{image.width} x {image.height} pixels are more than {limit}")
        if at_least is not None:
            image.draft("RGB", (at_least, at_least))
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        raise _undecodable(error) from error
    with image:
        yield image


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if image.mode == "F" or image.mode.startswith("I"):
        image = _to_8_bits(image)
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")  # a copy of a large image takes a third of a gigabyte


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # malformed EXIF: the image is good without it
        return None


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale greys of 16 or 32 bits; those that the file declares transparent become white."""
    values = np.asarray(image)
    low, high = _grey_range(image, values)
    with np.errstate(all="ignore"):  # floats may be infinite, or nearly so
        scaled = np.nan_to_num((values.astype(np.float32) - low) * 255 / (high - low))
    greys = scaled.clip(0, 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        greys[values == transparent] = 255
    return Image.fromarray(greys)


def _grey_range(image: Image.Image, values: Any) -> tuple[float, float]:
    """Which values are black and white."""
    if image.mode.startswith("I;16"):
        tags = getattr(image, "tag_v2", {})  # a TIFF may use 12 bits of the 16, or have 0 for white
        most = float((1 << tags.get(258, (16,))[0]) - 1)
        return (most, 0.0) if tags.get(262) == 0 else (0.0, most)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    tops = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    top = next((top for top in tops if low >= 0 and high <= top), None)
    return (0.0, top) if top else (low, max(high, low + 1))


def _undecodable(error: Exception) -> InputError:
    return InputError(f"cannot be decoded ({_why(error)}), expected one of {', '.join(FORMATS)}", "replace it")


def _why(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):  # its own words name a stream in memory
        return f"not an image in one of the formats {', '.join(FORMATS)}"
    return f"{type(error).__name__}: {error}"

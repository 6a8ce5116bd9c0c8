"""Encoded images: the formats that are read, what makes one undecodable, and decoding on threads."""

import io
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

# formats that need no outside program (EPS starts Ghostscript) and that every image encoder reads
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
READ_AHEAD = 32  # images in flight: enough to keep the threads busy, few enough to stay small in memory

T = TypeVar("T")
R = TypeVar("R")


def decoding_fault(encoded: bytes) -> str:
    """Why an image cannot be decoded; empty where it can. The whole image is decoded."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            image.load()
    except UnidentifiedImageError:
        return f"not an image in one of the formats {', '.join(FORMATS)}"
    except Exception as error:  # a damaged file makes the decoders raise nearly anything
        return f"{type(error).__name__}: {error}"
    return ""


@contextmanager
def refuse_huge_images() -> Iterator[None]:
    """Make every image above Pillow's limit of pixels a decoding fault, where Pillow only warns up to twice it.

    Enter it once around the threads that decode: filters of warnings belong to the whole process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


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

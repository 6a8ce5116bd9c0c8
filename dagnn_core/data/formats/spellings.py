"""The other ways in which a table may spell the path of an image that is there."""

import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagnn_core.data.formats.archives import FileState, Images


def spellings(path: str) -> Iterator[str]:
    """A path as it is written, then without space around it, with slashes for backslashes, and in other Unicode forms.

    Tables made on Windows have backslashes. macOS decomposes the names of files (NFD); tables compose them (NFC).
    """
    slashed = path.strip().replace("\\", "/")
    yield from dict.fromkeys((path, slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))))


class AnySpelling:
    """Images by path, however that is spelled; the spelling of the table comes first."""

    def __init__(self, images: "Images") -> None:
        self._images = images

    def read(self, path: str) -> bytes | None:
        """The encoded image, or None where there is none.

        Raises:
            ImageError: it is too large, or damaged.
        """
        found = (self._images.read(spelling) for spelling in spellings(path))
        return next((encoded for encoded in found if encoded is not None), None)

    def state(self, path: str) -> "FileState | None":
        """What changes when the image does."""
        found = (self._images.state(spelling) for spelling in spellings(path))
        return next((state for state in found if state is not None), None)

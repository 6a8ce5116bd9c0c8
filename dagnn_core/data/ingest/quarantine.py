"""Tell usable rows of raw data from those with a fault, before any image is read."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from dagnn_core.data.dataset import Modality, Rejection
from dagnn_core.data.formats.archives import leaves_folder
from dagnn_core.data.raw import (
    MAX_ID_CHARACTERS,
    MAX_LABEL_CHARACTERS,
    MAX_PATH_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    RawItem,
    Reason,
)
from dagnn_core.data.vectors import PrecomputedVectors
from dagnn_core.text import clip


class Sorted(NamedTuple):
    """Rows, sorted into usable ones and others."""

    items: list[RawItem]
    rejections: list[Rejection]


def quarantine(
    rows: Iterable[RawItem],
    *,
    keep_incomplete: bool,
    vectors: Mapping[Modality, PrecomputedVectors] | None = None,
    needs_split: bool = False,
) -> Sorted:
    """Reject every row by its first fault.

    Args:
        rows: all rows, one at a time.
        keep_incomplete: whether a row without text, or without a precomputed vector, is an item that lacks this
            modality and no fault.
        vectors: precomputed vectors, which usable items have.
        needs_split: whether an item without a split is of no use.
    """
    vectors = vectors or {}
    found = Sorted([], [])
    seen: set[str] = set()
    for item in rows:
        faults = {
            Reason.NO_ID: not item.id.strip(),
            Reason.ID_TOO_LONG: len(item.id) > MAX_ID_CHARACTERS,
            Reason.DUPLICATE_ID: item.id in seen,
            Reason.EMPTY_TEXT: not item.has_text and not keep_incomplete,
            Reason.TEXT_TOO_LONG: len(item.text) > MAX_TEXT_CHARACTERS,
            Reason.NO_LABEL: not item.labels,
            Reason.LABEL_TOO_LONG: any(len(label) > MAX_LABEL_CHARACTERS for label in item.labels),
            Reason.NO_SPLIT: needs_split and not item.split,
            Reason.IMAGE_OUTSIDE: leaves_folder(item.image_path),
            Reason.PATH_TOO_LONG: len(item.image_path) > MAX_PATH_CHARACTERS,
            Reason.NO_VECTOR: not keep_incomplete and any(item.id not in ready.row_of for ready in vectors.values()),
            Reason.BAD_VECTOR: any(item.id in ready.not_finite for ready in vectors.values()),
        }
        seen.add(item.id)
        reason = next((reason for reason, applies in faults.items() if applies), None)
        if reason is None:
            found.items.append(_without_vectorless(item, vectors))
        else:
            found.rejections.append(Rejection(item.row, clip(item.id, MAX_ID_CHARACTERS), reason))
    return found


def _without_vectorless(item: RawItem, vectors: Mapping[Modality, PrecomputedVectors]) -> RawItem:
    """The item without the modalities that have precomputed vectors, but none of this item."""
    missing = {modality for modality, ready in vectors.items() if item.id not in ready.row_of}
    if not missing:
        return item
    return item._replace(
        text="" if "text" in missing else item.text,
        has_image=item.has_image and "image" not in missing,
        has_text=item.has_text and "text" not in missing,
    )

"""Raw data, opened: what every layout offers so that it can be made into a data set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from dagnn_core.data.dataset import SHARD_BYTES, Modality, Rejection
from dagnn_core.data.vectors import PrecomputedVectors

MAX_ID_CHARACTERS = MAX_LABEL_CHARACTERS = 1_000
MAX_TEXT_CHARACTERS = 1_000_000
MAX_PATH_CHARACTERS = 4_096


class Reason(StrEnum):
    """Why a row cannot be used. A row with several faults has the one that comes first here."""

    NO_ID = "no id"
    ID_TOO_LONG = "id of more than 1,000 characters"
    DUPLICATE_ID = "duplicate id"
    EMPTY_TEXT = "empty text"
    TEXT_TOO_LONG = "text of more than 1,000,000 characters"
    NO_LABEL = "no label"
    LABEL_TOO_LONG = "label of more than 1,000 characters"
    NO_SPLIT = "in no split"
    IMAGE_OUTSIDE = "image path leaves the folder"
    PATH_TOO_LONG = "image path of more than 4,096 characters"
    NO_VECTOR = "no precomputed vector"
    BAD_VECTOR = "NaN or infinity in a precomputed vector"
    IMAGE_MISSING = "image missing"
    IMAGE_UNDECODABLE = "undecodable image"
    NO_MODALITY = "neither image nor text"
    HELD_OUT_INCOMPLETE = "no image or no text, though in val or test"
    COPY = "copy of another image"
    UNSEEN_LABEL = "an unseen label, though in train or val"
    RARE_LABELS = "rare labels only"
    THINNED = "left out by dataset.rare_fraction"

    @property
    def is_fault(self) -> bool:
        """Whether something is wrong with the row, which counts against `dataset.max_rejected`."""
        return self not in (Reason.COPY, Reason.UNSEEN_LABEL, Reason.RARE_LABELS, Reason.THINNED)


class RawItem(NamedTuple):
    """One usable row of raw data."""

    row: int
    """Row of the table, from 1."""
    id: str
    text: str
    """Empty where the item has no text, or a precomputed vector of it only."""
    labels: tuple[str, ...]
    image_path: str
    """Path of the image; empty where the data has no images."""
    split: str
    """train, val or test; empty where it is to be drawn."""
    group: str = ""
    """Items of one group share a split where splits are drawn, such as the captions of one image; empty: the id."""
    has_image: bool = True
    """Whether it has what the data knows of images: an image, a precomputed vector, or both."""
    has_text: bool = True
    """Whether it has what the data knows of texts: a text, a precomputed vector, or both."""
    unseen_labels: tuple[str, ...] = ()
    """Further labels, of a test item alone, that training must not see."""
    columns: Mapping[str, str] = {}
    """Cells of the columns that are kept, in the order of `RawData.columns`."""

    @property
    def is_complete(self) -> bool:
        """Whether it has both modalities."""
        return self.has_image and self.has_text


@dataclass(frozen=True, kw_only=True, slots=True)
class RawData:
    """Raw data whose tables are read and checked, and whose images are read when asked for."""

    source: str
    """What messages call it: the path of the table."""
    num_rows: int
    """Rows of the table, rejected ones included."""
    items: Sequence[RawItem]
    rejections: Sequence[Rejection]
    image: Callable[[RawItem], bytes | None] | None
    """Reads the encoded image of an item, or None where it is missing; an `ImageError` says why it cannot be read.
    Safe to call from several threads. None where the data has precomputed vectors only, or texts alone."""
    image_state: Callable[[RawItem], object] | None
    """What has another `repr` when the image of an item has changed, without reading it: see `Images.state`.
    None where `image` is."""
    trusted_images: bool = False
    """Whether every image is known to decode and to be no copy, since this program has just made it."""
    shard_bytes: int = SHARD_BYTES
    """Images of at least so many bytes make a shard; an interruption loses one at most."""
    label_order: tuple[str, ...] = ()
    """All labels in the order of the label matrix; empty: those found, sorted."""
    draws_val: bool = False
    """Whether val is drawn out of train, since the data itself knows train and test alone."""
    vectors: Mapping[Modality, PrecomputedVectors] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    """Columns of the source that the data set keeps; none is called id, text, labels or split."""
    place: Callable[[int], str] = "row {}".format
    """Where a row is, for messages."""

    @property
    def is_text_alone(self) -> bool:
        """Whether it has neither images nor precomputed vectors of them: enough for a label graph."""
        return self.image is None and "image" not in self.vectors

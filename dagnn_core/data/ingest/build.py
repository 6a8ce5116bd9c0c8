"""Make a data set of raw data: quarantine what cannot be used, split, choose the labels, write."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dagnn_core.config.dataset import DatasetConfig
from dagnn_core.data.dataset import SPLITS, Item, Rejection
from dagnn_core.data.formats.archives import ImageError
from dagnn_core.data.formats.links import LinkOutsideError
from dagnn_core.data.images import decoded, decoding_fault, map_in_order
from dagnn_core.data.ingest.draw import can_be_held_out, draw_splits, is_drawn
from dagnn_core.data.ingest.incomplete import take_away
from dagnn_core.data.ingest.journal import CheckJournal, UnusableImage
from dagnn_core.data.ingest.long_tail import thinned_items
from dagnn_core.data.ingest.near_copies import DECODED_PIXELS, Fingerprint, fingerprint
from dagnn_core.data.ingest.unlabelled import take_labels_away
from dagnn_core.data.ingest.unseen import choose_unseen, hold_back, set_apart, training_labels
from dagnn_core.data.ingest.work import rows_digest
from dagnn_core.data.ingest.writer import DatasetWriter
from dagnn_core.data.labels import choose_labels, fold_case
from dagnn_core.data.raw import RawData, RawItem, Reason
from dagnn_core.errors import InputError
from dagnn_core.progress import track
from dagnn_core.text import quote

log = logging.getLogger(__name__)

NUM_SHOWN = 3  # rejected rows in an error message


def write_dataset(out: Path, raw: RawData, config: DatasetConfig, *, work: Path) -> dict[str, Any]:
    """Write raw data as the files of a `dataset` artifact; memory does not grow with the images.

    Images are read twice: decoded once to find those that cannot be used and, where splits are drawn, copies of each
    other, since labels and splits depend on which rows are left, then copied as they are. An interrupted call leaves
    what it has done in `work`, and the next one resumes it.

    Args:
        out: an empty folder.
        raw: the opened raw data.
        config: splits, rare labels, incomplete items, and how many rows may be rejected.
        work: folder for the unfinished work on these images alone, see `work_folder` and `images_digest`.

    Returns:
        What the manifest says about the files.

    Raises:
        InputError: too many rows cannot be used, a split is empty, no training item is complete, or the labels cannot
            be learned.
    """
    rejections: list[Rejection] = []

    def reject(more: Iterable[Rejection]) -> None:
        rejections.extend(more)
        _check_rejected(raw, rejections, config)

    def quarantine(items: Sequence[RawItem], reason: Reason, applies: Callable[[RawItem], bool]) -> list[RawItem]:
        reject(Rejection(item.row, item.id, reason) for item in items if applies(item))
        return [item for item in items if not applies(item)]

    reject(raw.rejections)
    faults, fingerprints = _check_images(raw, config, work / "checks.jsonl")
    items, unusable = _without_faulty(raw, faults, config)
    reject(unusable)
    items = quarantine(items, Reason.NO_MODALITY, lambda item: not item.has_image and not item.has_text)
    drawn = draw_splits(raw, items, fingerprints, config)
    reject(drawn.rejections)
    _report_copies(drawn.copies)
    items = drawn.items
    _check_complete(raw, items, config)
    items = quarantine(
        items, Reason.HELD_OUT_INCOMPLETE, lambda item: item.split != "train" and not can_be_held_out(raw, item)
    )
    _check_splits(raw, items, drawn.copies)
    if config.label_case == "fold":
        items = fold_case(items, raw.label_order)
    unseen = choose_unseen(items, config)
    trained = training_labels(items)
    items = quarantine(items, Reason.UNSEEN_LABEL, lambda item: hold_back(item, unseen))
    items, lost = set_apart(items, unseen, trained)
    order = [name for name in raw.label_order if name not in unseen | lost]
    labels = choose_labels(items, order, config.min_label_count)
    items = [item._replace(labels=tuple(name for name in item.labels if name not in labels.dropped)) for item in items]
    items = quarantine(items, Reason.RARE_LABELS, lambda item: not item.labels and not item.unseen_labels)
    thinned = thinned_items(items, rare_fraction=config.rare_fraction, seed=config.seed)
    items = quarantine(items, Reason.THINNED, lambda item: item.id in thinned)
    _check_splits(raw, items, drawn.copies)
    items = take_away(
        items,
        without_image=config.train_without_image,
        without_text=config.train_without_text,
        seed=config.seed,
    )
    _check_complete(raw, items, config)
    items = take_labels_away(items, labelled_fraction=config.labelled_fraction, seed=config.seed)
    shards = work / rows_digest(items)
    shards.mkdir(exist_ok=True)
    with DatasetWriter(
        out, labels.names, columns=raw.columns, unfinished=shards, shard_bytes=raw.shard_bytes
    ) as writer:
        _write_items(writer, raw, items)
        _write_vectors(writer, raw, items)
        if unseen:
            writer.write_unseen_labels(sorted(unseen), [item.unseen_labels for item in items])
        writer.write_rejected(sorted(rejections))
    return writer.content | {
        "num_rows": raw.num_rows,
        "dropped_labels": labels.dropped | dict.fromkeys(sorted(lost), 0),
        "copies": drawn.copies,
    }


def _write_items(writer: DatasetWriter, raw: RawData, items: Sequence[RawItem]) -> None:
    done = writer.take_finished(_item(item, None) for item in items)
    if done:
        log.info("resuming: %s of %s items were written before", f"{done:,}", f"{len(items):,}")
    rest = items[done:]
    images = map_in_order(lambda item: _read(raw, item), rest)
    pairs = zip(rest, images, strict=True)
    for item, encoded in track(pairs, description="writing items", total=len(items), done=done):
        writer.add(_item(item, encoded))


def _read(raw: RawData, item: RawItem) -> bytes | None:
    if raw.image is None or not item.has_image:
        return None
    encoded = raw.image(item)
    if encoded is None:
        raise InputError(
            f"{raw.source}, {raw.place(item.row)}: the image {item.image_path} went away during the import",
            "put it back, or run again without it",
        )
    return encoded


def _item(item: RawItem, encoded: bytes | None) -> Item:
    kept = (item.split, item.has_image, item.has_text, item.columns)
    return Item(item.id, item.text, item.labels, encoded, item.image_path, *kept)


def _write_vectors(writer: DatasetWriter, raw: RawData, items: Sequence[RawItem]) -> None:
    for modality, vectors in raw.vectors.items():
        present = [item.has_image if modality == "image" else item.has_text for item in items]
        ids = [item.id if has_it else None for item, has_it in zip(items, present, strict=True)]
        writer.write_vectors(modality, vectors.features, vectors.rows_of(ids))


class _Checked(NamedTuple):
    """What is known of the images."""

    faults: Mapping[int, UnusableImage]
    """Index of an item -> what is wrong with its image."""
    fingerprints: NDArray[np.void]
    """Of all items; empty where copies are not looked for."""


def _check_images(raw: RawData, config: DatasetConfig, journal_path: Path) -> _Checked:
    image = raw.image
    if image is None or raw.trusted_images:
        return _Checked({}, np.zeros(0, np.void))
    finds_copies = config.copies != "keep" and any(is_drawn(raw, item) for item in raw.items)

    def check(item: RawItem) -> tuple[UnusableImage | None, Fingerprint | None]:
        if not item.has_image:
            return None, None
        try:
            encoded = image(item)
        except LinkOutsideError as error:
            return UnusableImage(Reason.IMAGE_OUTSIDE, str(error)), None
        except ImageError as error:
            return UnusableImage(Reason.IMAGE_UNDECODABLE, f"{item.image_path}: {error}"), None
        if encoded is None:
            return UnusableImage(Reason.IMAGE_MISSING, item.image_path), None
        why = decoding_fault(encoded)
        if not why and finds_copies:
            with decoded(encoded, DECODED_PIXELS) as small:
                return None, fingerprint(small)
        return (UnusableImage(Reason.IMAGE_UNDECODABLE, f"{item.image_path}: {why}") if why else None), None

    with CheckJournal(journal_path, fingerprints=finds_copies) as journal:
        done, total = journal.num_checked, len(raw.items)
        if done:
            log.info("resuming: %s of %s images were checked before", f"{done:,}", f"{total:,}")
        results = map_in_order(check, islice(raw.items, done, None))
        for result in track(results, description="checking images", total=total, done=done):
            journal.record(*result)
    return _Checked(journal.faults, journal.fingerprints)


def _without_faulty(
    raw: RawData, faults: Mapping[int, UnusableImage], config: DatasetConfig
) -> tuple[list[RawItem], list[Rejection]]:
    items: list[RawItem] = []
    rejections: list[Rejection] = []
    for index, item in enumerate(raw.items):
        fault = faults.get(index)
        if fault is None:
            items.append(item)
        elif fault.reason == Reason.IMAGE_MISSING and config.incomplete == "keep":
            items.append(item._replace(has_image=False))
        else:
            rejections.append(Rejection(item.row, item.id, *fault))
    return items, rejections


def _report_copies(copies: Mapping[str, Any]) -> None:
    if not copies["groups"]:
        return
    dropped = f"{copies['dropped']:,} are dropped" if copies["rule"] == "drop" else "each group is in one split"
    log.info(
        "%s of %s items whose splits are drawn have copies of their images, identical or nearly so: %s groups, the "
        "largest of %s items; %s (dataset.copies: %s)",
        *(f"{copies[name]:,}" for name in ("items", "drawn_items", "groups", "largest_group")),
        *(dropped, copies["rule"]),
    )


def _check_rejected(raw: RawData, rejections: Iterable[Rejection], config: DatasetConfig) -> None:
    rejections = [rejection for rejection in rejections if Reason(rejection.reason).is_fault]
    if len(rejections) <= config.max_rejected * raw.num_rows:
        return
    counts = Counter(rejection.reason for rejection in rejections).most_common()
    shown = [
        f"{raw.place(rejection.row)} {quote(rejection.id)}: {rejection.reason}"
        + (f" ({rejection.detail})" if rejection.detail else "")
        for rejection in rejections[:NUM_SHOWN]
    ]
    raise InputError(
        f"{raw.source}: {len(rejections)} of {raw.num_rows} rows cannot be used "
        f"({', '.join(f'{count} {reason}' for reason, count in counts)}), expected at most "
        f"{config.max_rejected:.3%} of them; first: {'; '.join(shown)}",
        "correct them or raise dataset.max_rejected",
    )


def _check_splits(raw: RawData, items: Sequence[RawItem], copies: Mapping[str, Any]) -> None:
    sizes = Counter(item.split for item in items)
    for split in SPLITS:
        if not sizes[split]:
            alike = f"; {copies['largest_group']} have images that are copies of each other, directly or by others"
            raise InputError(
                f"{raw.source}: no item is in the split {split!r} (of {len(items)}), expected some in each of "
                f"{', '.join(SPLITS)}{alike if copies['groups'] else ''}",
                "add items, or correct the splits or their fractions in dataset"
                + (", or set dataset.copies to keep" if copies["groups"] else ""),
            )


def _check_complete(raw: RawData, items: Sequence[RawItem], config: DatasetConfig) -> None:
    if raw.is_text_alone and not config.train_without_image and not config.train_without_text:
        return
    training = [item for item in items if item.split == "train"]
    if training and not any(item.is_complete for item in training):
        raise InputError(
            f"{raw.source}: none of the {len(training)} training items has both image and text, expected some",
            f"correct the images and texts that dataset.{config.layout} names, or lower dataset.train_without_image "
            "and dataset.train_without_text",
        )

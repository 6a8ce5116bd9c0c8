"""Make a data set of raw data: quarantine what cannot be used, split, choose the labels, write."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from dagnn_core.config import DatasetConfig
from dagnn_core.data.dataset import SPLITS, Item, Rejection
from dagnn_core.data.incomplete import take_away
from dagnn_core.data.labels import choose_labels
from dagnn_core.data.pictures import PictureError, decoding_fault, map_in_order, refuse_huge_pictures
from dagnn_core.data.raw import RawData, RawItem, Reason
from dagnn_core.data.splits import draw_split
from dagnn_core.data.writer import DatasetWriter
from dagnn_core.errors import InputError
from dagnn_core.progress import track

NUM_SHOWN = 3  # rejected rows in an error message


def write_dataset(out: Path, raw: RawData, config: DatasetConfig) -> dict[str, Any]:
    """Write raw data as the files of a `dataset` artifact; memory does not grow with the pictures.

    Pictures are read twice: decoded once to find those that cannot be used, since labels and splits depend on which
    rows are left, then copied as they are.

    Args:
        out: an empty folder.
        raw: the opened raw data.
        config: splits, rare labels, incomplete items, and how many rows may be rejected.

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
    items, faults = _check_pictures(raw, config)
    reject(faults)
    items = quarantine(items, Reason.NO_MODALITY, lambda item: not item.has_image and not item.has_text)
    items = [item if _has_split(raw, item) else item._replace(split=_draw(raw, item, config)) for item in items]
    _check_complete(raw, items, config)
    items = quarantine(
        items, Reason.HELD_OUT_INCOMPLETE, lambda item: item.split != "train" and not _can_be_held_out(raw, item)
    )
    _check_splits(raw, items)
    labels = choose_labels(items, raw.label_order, config.min_label_count)
    items = [item._replace(labels=tuple(name for name in item.labels if name not in labels.dropped)) for item in items]
    items = quarantine(items, Reason.RARE_LABELS, lambda item: not item.labels)
    _check_splits(raw, items)
    items = take_away(
        items,
        without_image=config.train_without_image,
        without_text=config.train_without_text,
        seed=config.seed,
    )
    _check_complete(raw, items, config)
    content = _write(out, raw, items, labels.names, sorted(rejections))
    return content | {"num_rows": raw.num_rows, "dropped_labels": labels.dropped}


def _write(
    out: Path, raw: RawData, items: Sequence[RawItem], label_names: Sequence[str], rejections: Sequence[Rejection]
) -> dict[str, Any]:
    read = raw.picture

    def picture(item: RawItem) -> bytes | None:
        return read(item) if read is not None and item.has_image else None

    with DatasetWriter(out, label_names) as writer:
        pairs = zip(items, map_in_order(picture, items), strict=True)
        for item, encoded in track(pairs, description="writing items", total=len(items)):
            kept = (item.split, item.has_image, item.has_text)
            writer.add(Item(item.id, item.text, item.labels, encoded, item.image_path, *kept))
        writer.write_rejected(rejections)
        for modality, vectors in raw.vectors.items():
            present = [item.has_image if modality == "image" else item.has_text for item in items]
            ids = [item.id if has_it else None for item, has_it in zip(items, present, strict=True)]
            writer.write_vectors(modality, vectors.of(ids))
    return writer.content


def _check_pictures(raw: RawData, config: DatasetConfig) -> tuple[list[RawItem], list[Rejection]]:
    picture = raw.picture
    if picture is None or raw.trusted_pictures:
        return list(raw.items), []

    def check(item: RawItem) -> RawItem | Rejection:
        if not item.has_image:
            return item
        try:
            encoded = picture(item)
        except PictureError as error:
            return Rejection(item.row, item.id, Reason.PICTURE_UNDECODABLE, f"{item.image_path}: {error}")
        if encoded is None:
            if config.incomplete == "keep":
                return item._replace(has_image=False)
            return Rejection(item.row, item.id, Reason.PICTURE_MISSING, item.image_path)
        why = decoding_fault(encoded)
        return Rejection(item.row, item.id, Reason.PICTURE_UNDECODABLE, f"{item.image_path}: {why}") if why else item

    with refuse_huge_pictures():
        checked = track(map_in_order(check, raw.items), description="checking pictures", total=len(raw.items))
        results = list(checked)
    usable = [result for result in results if isinstance(result, RawItem)]
    return usable, [result for result in results if isinstance(result, Rejection)]


def _can_be_held_out(raw: RawData, item: RawItem) -> bool:
    """Whether val and test may have the item: they are for complete ones, where the data has any pictures."""
    return item.is_complete or raw.is_text_alone


def _has_split(raw: RawData, item: RawItem) -> bool:
    return item.split != "train" if raw.draws_val else item.split != ""


def _draw(raw: RawData, item: RawItem, config: DatasetConfig) -> str:
    if not _can_be_held_out(raw, item):
        return "train"
    return draw_split(
        item.group or item.id,
        seed=config.seed,
        val_fraction=config.val_fraction,
        test_fraction=0.0 if raw.draws_val else config.test_fraction,
    )


def _check_rejected(raw: RawData, rejections: Sequence[Rejection], config: DatasetConfig) -> None:
    if len(rejections) <= config.max_rejected * raw.num_rows:
        return
    counts = Counter(rejection.reason for rejection in rejections).most_common()
    shown = [
        f"{raw.place(rejection.row)} {rejection.id!r}: {rejection.reason}"
        + (f" ({rejection.detail})" if rejection.detail else "")
        for rejection in rejections[:NUM_SHOWN]
    ]
    raise InputError(
        f"{raw.source}: {len(rejections)} of {raw.num_rows} rows cannot be used "
        f"({', '.join(f'{count} {reason}' for reason, count in counts)}), expected at most "
        f"{config.max_rejected:.3%} of them; first: {'; '.join(shown)}; correct them or raise dataset.max_rejected"
    )


def _check_splits(raw: RawData, items: Sequence[RawItem]) -> None:
    sizes = Counter(item.split for item in items)
    for split in SPLITS:
        if not sizes[split]:
            raise InputError(
                f"{raw.source}: no item is in the split {split!r} (of {len(items)}), expected some in each of "
                f"{', '.join(SPLITS)}; add items, or correct the splits or their fractions in dataset"
            )


def _check_complete(raw: RawData, items: Sequence[RawItem], config: DatasetConfig) -> None:
    if raw.is_text_alone and not config.train_without_image and not config.train_without_text:
        return
    training = [item for item in items if item.split == "train"]
    if training and not any(item.is_complete for item in training):
        raise InputError(
            f"{raw.source}: none of the {len(training)} training items has both picture and text, expected some; "
            f"correct the pictures and texts that dataset.{config.layout} names, or lower dataset.train_without_image "
            "and dataset.train_without_text"
        )

"""Make a data set of raw data: quarantine what cannot be used, split, choose the labels, write."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dagnn_core.config import DatasetConfig
from dagnn_core.data.dataset import SPLITS, Item, Rejection
from dagnn_core.data.labels import choose_labels
from dagnn_core.data.pictures import decoding_fault, map_in_order, refuse_huge_pictures
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
        config: splits, rare labels, and how many rows may be rejected.

    Returns:
        What the manifest says about the files.

    Raises:
        InputError: too many rows cannot be used, a split is empty, or the labels cannot be learned.
    """
    rejections: list[Rejection] = []

    def reject(more: Iterable[Rejection]) -> None:
        rejections.extend(more)
        _check_rejected(raw, rejections, config)

    reject(raw.rejections)
    items, faults = _check_pictures(raw)
    reject(faults)
    items = [item if item.split else item._replace(split=_draw(item, config)) for item in items]
    _check_splits(raw, items)
    labels = choose_labels(items, raw.label_order, config.min_label_count)
    items = [item._replace(labels=tuple(name for name in item.labels if name not in labels.dropped)) for item in items]
    reject(Rejection(item.row, item.id, Reason.RARE_LABELS) for item in items if not item.labels)
    items = [item for item in items if item.labels]
    _check_splits(raw, items)
    with DatasetWriter(out, labels.names) as writer:
        pictures = map_in_order(raw.picture, items) if raw.picture else [None] * len(items)
        pairs = zip(items, pictures, strict=True)
        for item, picture in track(pairs, description="writing items", total=len(items)):
            writer.add(Item(item.id, item.text, item.labels, picture, item.image_path, item.split))
        writer.write_rejected(sorted(rejections))
        for modality, vectors in raw.vectors.items():
            writer.write_vectors(modality, vectors.of([item.id for item in items]))
    return writer.content | {"num_rows": raw.num_rows, "dropped_labels": labels.dropped}


def _check_pictures(raw: RawData) -> tuple[list[RawItem], list[Rejection]]:
    picture = raw.picture
    if picture is None or raw.trusted_pictures:
        return list(raw.items), []

    def fault(item: RawItem) -> Rejection | None:
        encoded = picture(item)
        if encoded is None:
            return Rejection(item.row, item.id, Reason.PICTURE_MISSING, item.image_path)
        why = decoding_fault(encoded)
        return Rejection(item.row, item.id, Reason.PICTURE_UNDECODABLE, f"{item.image_path}: {why}") if why else None

    with refuse_huge_pictures():
        checked = track(map_in_order(fault, raw.items), description="checking pictures", total=len(raw.items))
        faults = list(checked)
    usable = [item for item, rejection in zip(raw.items, faults, strict=True) if rejection is None]
    return usable, [rejection for rejection in faults if rejection is not None]


def _draw(item: RawItem, config: DatasetConfig) -> str:
    return draw_split(item.id, seed=config.seed, val_fraction=config.val_fraction, test_fraction=config.test_fraction)


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

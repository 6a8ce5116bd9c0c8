"""Incomplete training items for experiments: complete ones lose their image or their text."""

from collections.abc import Sequence

from dagnn_core.data.raw import RawItem
from dagnn_core.data.splits import hash_point


def take_away(items: Sequence[RawItem], *, without_image: float, without_text: float, seed: int) -> list[RawItem]:
    """Take the image from some complete training items and the text from others (Qian et al., TPAMI 2022).

    The complete training items are ordered by a hash of (seed, id): the first lose their image, the last their text.
    So a larger fraction takes from the same items and from more.

    Args:
        items: all items; those of val and test, and those that lack a modality, stay as they are.
        without_image: fraction of the complete training items that lose the image.
        without_text: fraction that loses the text; both together are below 1.
        seed: draws the order.
    """
    complete = sorted(
        (item for item in items if item.split == "train" and item.is_complete),
        key=lambda item: hash_point(item.id, seed=seed, purpose="incomplete"),
    )
    num_without_image, num_without_text = (round(part * len(complete)) for part in (without_image, without_text))
    lose_image = {item.id for item in complete[:num_without_image]}
    lose_text = {item.id for item in complete[len(complete) - num_without_text :]}
    return [
        item._replace(
            text="" if item.id in lose_text else item.text,
            has_image=item.has_image and item.id not in lose_image,
            has_text=item.has_text and item.id not in lose_text,
        )
        for item in items
    ]

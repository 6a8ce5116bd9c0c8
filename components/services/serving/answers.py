"""What a search answers, as JSON: one form for `dagnn search --json` and the service."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote as quote_url

from dagnn_core.search.index import Hit, Item, Query, SearchIndex

RELEVANT = 0.5
"""Probability that query and item share a label, below which a result is not called relevant."""


def answer_of(index: SearchIndex, query: Query, hits: Sequence[Hit]) -> dict[str, Any]:
    """What was found for a query, with the labels that are nearest to it."""
    return {
        "target": query.target,
        "relevant": is_relevant(hits),
        "nearest_labels": dict(index.nearest_labels(query)),
        "hits": [
            {
                "rank": hit.rank,
                "id": hit.id,
                "score": hit.score,
                "probability": hit.probability,
                "reasons": dict(hit.reasons),
                "text": hit.text,
                "labels": hit.labels,
                "columns": dict(hit.columns),
            }
            for hit in hits
        ],
    }


def is_relevant(hits: Sequence[Hit]) -> bool | None:
    """Whether a result is probably relevant; None where the model does not say."""
    known = [hit.probability for hit in hits if hit.probability is not None]
    return any(probability >= RELEVANT for probability in known) if known or not hits else None


def item_of(item: Item) -> dict[str, Any]:
    """What an index holds of an item."""
    return {"id": item.id, "text": item.text, "labels": item.labels, "columns": dict(item.columns)}


def thumbnail_address(index: SearchIndex, row: int) -> str | None:
    """Where the service has an item's thumbnail; None where there is none."""
    # a slash is quoted, too: browsers would resolve an id such as a/../b
    return f"/thumbnails/{quote_url(index.ids[row], safe='')}" if index.thumbnail(row) else None

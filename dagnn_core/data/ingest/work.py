"""Unfinished work of an import: a folder that an interrupted import leaves, and from which the next one resumes.

    <work>/<images>/checks.jsonl                           what the images that were checked are like (journal.py)
    <work>/<images>/checks.prints                          their fingerprints, where splits are drawn
    <work>/<images>/<items>/data-00000-<sha256>.parquet    finished shards (shards.py)

`<images>` is a digest of what decides how an image is read and whether it decodes; `<items>` adds every row as it
will be written. So correcting the configuration, a text or a label costs no second check, and nothing stale is reused.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from dagnn_core.artifacts import canonical_json
from dagnn_core.data.raw import RawData


def images_digest(raw: RawData, packages: Mapping[str, str]) -> str:
    """Digest of raw data's images: where, rows, ids, paths, the state of each, and the code that reads them.

    An image is not read for it: see `Images.state`. That is a call of the system for each image of a folder, about
    a second for 100,000 on a local disk, and one for a whole archive.

    Args:
        raw: the opened raw data.
        packages: name -> version of what decodes, renders and writes images.
    """
    state = raw.image_state
    rows = ((item.row, item.id, item.image_path, item.has_image, state and state(item)) for item in raw.items)
    return rows_digest([raw.source, canonical_json(packages), _code_digest()], rows)


def rows_digest(*parts: Iterable[object]) -> str:
    """Digest of rows of texts, numbers, and tuples of them."""
    digest = hashlib.sha256()
    for part in parts:
        for row in part:
            digest.update(repr(row).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def _code_digest() -> str:
    """Digest of the code of `dagnn_core.data`: unfinished work of another version is not resumed."""
    return rows_digest(path.read_bytes() for path in sorted(Path(__file__).parents[1].rglob("*.py")))

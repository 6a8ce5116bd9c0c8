"""Rankings of the test split in the formats of trec_eval: a run for each direction, and the judgements (qrels).

A line of a run is `QUERY Q0 ITEM RANK SCORE TAG`, one of the qrels `QUERY 0 ITEM GAIN`, where the gain is the number of
shared labels. Programs sort a run by its scores and break ties in their own ways, so the score is the number of gallery
items that rank no higher, and their order is ours. Whitespace in ids is written as in addresses, `%20`.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from dagnn_core.artifacts import rerun
from dagnn_core.disk import writing
from dagnn_core.drafts import draft_of
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.features import Features
from dagnn_core.model.files import TrainedNetwork
from dagnn_core.retrieval.metrics import rank_gallery

TAG = "dagnn"
QRELS = "qrels"
BLOCK_QUERIES = 256


def export_rankings(out: Path, *, model: Path, features: Path, depth: int) -> list[Path]:
    """Write `i2t.run`, `t2i.run` and `qrels` into a folder.

    Args:
        out: the folder, new or empty; it appears when all is written.
        model: model artifact.
        features: features artifact that the model was trained on.
        depth: results of each query; 0, or more than the gallery has: all of it.

    Returns:
        The files.

    Raises:
        ArtifactError: an artifact is missing or damaged, or they do not belong together.
        InputError: the folder holds something, or the test split is empty.
        DiskError: the disk refuses a file.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already, expected a new or an empty folder", "name another one")
    data, trained = Features.read(features, verify=True), TrainedNetwork.read(model, verify=True)
    if trained.artifact.provenance.get("ancestors", {}).get(data.artifact.kind) != data.artifact.content_digest:
        raise ArtifactError(f"{model} was made from other features than {features}", rerun("train"))
    rows = data.pairs("test")
    if not len(rows):
        raise InputError(f"{features} has no test items, expected at least one", "correct the splits of the data set")
    ids = _words([data.ids[row] for row in rows])
    image = trained.embed_image_features(data.image[rows])
    text = trained.embed_text_features(data.text[rows])
    files = {
        "i2t.run": _run_lines(ids, image, text, depth),
        "t2i.run": _run_lines(ids, text, image, depth),
        QRELS: _judgement_lines(ids, data.labels[rows]),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with draft_of(out) as draft:
        for name, lines in files.items():
            with writing(draft / name), (draft / name).open("w", encoding="utf-8") as stream:
                stream.writelines(lines)
    return [out / name for name in files]


def _words(ids: Sequence[str]) -> list[str]:
    """Ids without whitespace, which ends a field of these formats."""
    words = [re.sub(r"[\s%]", lambda match: quote(match[0]), item) for item in ids]
    if "" in words:
        raise InputError("an item has an empty id, which these formats cannot name", "give it one")
    return words


def _run_lines(
    ids: Sequence[str], query: NDArray[np.float32], gallery: NDArray[np.float32], depth: int
) -> Iterator[str]:
    num_gallery = len(gallery)
    most = min(depth or num_gallery, num_gallery)
    for start in range(0, len(query), BLOCK_QUERIES):
        order = rank_gallery(query[start : start + BLOCK_QUERIES], gallery)[:, :most]
        for name, ranking in zip(ids[start : start + BLOCK_QUERIES], order.tolist(), strict=True):
            for rank, item in enumerate(ranking, start=1):
                yield f"{name} Q0 {ids[item]} {rank} {num_gallery - rank + 1} {TAG}\n"


def _judgement_lines(ids: Sequence[str], labels: NDArray[np.uint8]) -> Iterator[str]:
    carried = labels.astype(np.float32)
    for name, own in zip(ids, carried, strict=True):
        shared = carried @ own
        for item in np.flatnonzero(shared).tolist():
            yield f"{name} 0 {ids[item]} {int(shared[item])}\n"

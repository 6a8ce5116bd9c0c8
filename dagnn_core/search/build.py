"""Build an index, and change it: add, replace and remove items without embedding the others again.

Items are embedded in shards, each an index of its own that is sealed when it is finished: an interrupted build
resumes after the last one. The shards, and the items of an earlier index that stay, are then joined.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dagnn_core.artifacts import Artifact, ArtifactDraft, check_replaceable, read_artifact, write_artifact
from dagnn_core.data.dataset import Modality
from dagnn_core.data.images import decoding_fault
from dagnn_core.data.ingest.work import rows_digest
from dagnn_core.data.vectors import save_array
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.locks import hold_lock
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.progress import track
from dagnn_core.reports.page.thumbnail import thumbnail
from dagnn_core.search import EXACT_LIMIT, RECALL
from dagnn_core.search.index import (
    FIXED_COLUMNS,
    ITEMS,
    KIND,
    MODALITIES,
    REJECTED,
    REJECTED_SCHEMA,
    check_model,
)
from dagnn_core.search.nearest import build_cells, choose_cells
from dagnn_core.search.sources import Source, SourceItem
from dagnn_core.text import quote

SHARD_ITEMS = 2048
BATCH = 64  # images or texts that are encoded at a time
NUM_SAMPLE_QUERIES = 256
SEED = 0

DType = Literal["float32", "float16"]


class Options(NamedTuple):
    """How an index is built."""

    dtype: DType = "float32"
    """Numbers of the vectors on disk; float16 halves them."""
    exact_limit: int = EXACT_LIMIT
    """Largest number of items that is searched exactly; above it by an inverted file."""
    recall: float = RECALL
    """Share of the exact 10 best that the inverted file must find."""


class _Part(NamedTuple):
    """Some rows of an index."""

    of: Artifact
    rows: NDArray[np.int64]


def build_index(
    out: Path,
    model: TrainedModel,
    source: Source,
    *,
    work: Path,
    options: Options,
    provenance: Mapping[str, Any],
) -> Artifact:
    """Embed a source and write its index.

    Args:
        out: folder of the index; an index that is there is replaced when the new one is finished.
        model: the model.
        source: what is indexed.
        work: folder for finished shards; a build that was interrupted resumes.
        options: how.
        provenance: where it came from, for the manifest.

    Returns:
        The index.

    Raises:
        InputError: the model cannot encode the source, or nothing can be indexed.
        BackendError: another process changes the index or embeds the same source, or the disk is full.
    """
    check_replaceable(out, KIND)
    with _changing(out), _shards(model, source, work) as shards:
        parts = [_Part(shard, np.arange(shard.content["num_items"])) for shard in shards]
        _join(out, parts, _rejected(shards), options, provenance)
        return read_artifact(out, KIND)


def add_to_index(path: Path, model: TrainedModel, source: Source, *, work: Path, replace: bool = False) -> Artifact:
    """Add the items of a source to an index.

    Args:
        path: the index.
        model: the model that built it.
        source: the new items.
        work: as for `build_index`.
        replace: whether items with ids that are there take their place; they move to the end.

    Raises:
        InputError: another model built the index, or an id is there and not to be replaced.
        BackendError: as for `build_index`.
    """
    with _changing(path):
        index = read_artifact(path, KIND, verify=True)
        check_model(index, model)
        with _shards(model, source, work) as shards:
            parts = _with_new(index, shards, replace=replace)
            _join(path, parts, _rejected(shards, index), _options_of(index), index.provenance)
        return read_artifact(path, KIND)


def _with_new(index: Artifact, shards: Sequence[Artifact], *, replace: bool) -> list[_Part]:
    old = pq.read_table(index.file(ITEMS), columns=["id"])["id"].to_pylist()
    new = {item_id for shard in shards for item_id in pq.read_table(shard.file(ITEMS))["id"].to_pylist()}
    known = [item_id for item_id in old if item_id in new]
    if known and not replace:
        raise InputError(
            f"{index.path} has {len(known)} of the new ids, the first {quote(known[0])}",
            "use `dagnn index replace` to put the new items in their place",
        )
    stay = np.flatnonzero([item_id not in new for item_id in old])
    return [_Part(index, stay), *(_Part(shard, np.arange(shard.content["num_items"])) for shard in shards)]


def _rejected(sources: Sequence[Artifact], index: Artifact | None = None) -> list[dict[str, Any]]:
    """Rows that could not be indexed: of the sources, and those of an earlier index that the sources have not again."""
    new = [row for source in sources for row in pq.read_table(source.file(REJECTED)).to_pylist()]
    if index is None:
        return new
    known = {item_id for source in sources for item_id in pq.read_table(source.file(ITEMS))["id"].to_pylist()}
    known |= {_rejected_key(row) for row in new}
    return [row for row in pq.read_table(index.file(REJECTED)).to_pylist() if _rejected_key(row) not in known] + new


def _rejected_key(row: Mapping[str, Any]) -> object:
    return row["id"] or (row["row"], row["reason"])


def remove_from_index(path: Path, ids: Sequence[str]) -> Artifact:
    """Remove items from an index.

    Raises:
        InputError: an id is not there, or no item would be left.
    """
    with _changing(path):
        index = read_artifact(path, KIND, verify=True)
        old = pq.read_table(index.file(ITEMS), columns=["id"])["id"].to_pylist()
        unknown = sorted(set(ids) - set(old))
        if unknown:
            raise InputError(
                f"{path} has no item {quote(unknown[0])} ({len(unknown)} of {len(ids)} ids)", "check the ids"
            )
        gone = set(ids)
        stay = np.flatnonzero([item_id not in gone for item_id in old])
        _join(path, [_Part(index, stay)], _rejected([index]), _options_of(index), index.provenance)
        return read_artifact(path, KIND)


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Let nobody else change an index during the body: of two changes at once, one would be lost."""
    if not path.absolute().parent.is_dir():
        yield  # so there is none
        return
    lock = path.absolute().with_name(f".{path.absolute().name}.lock")
    with hold_lock(
        lock,
        busy=f"another process changes {path}",
        remedy="wait for it",
        elsewhere="keep the index on another file system",
    ):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _options_of(index: Artifact) -> Options:
    return Options(**{name: index.content[name] for name in Options._fields})


@contextmanager
def _shards(model: TrainedModel, source: Source, work: Path) -> Iterator[list[Artifact]]:
    """Embed a source in shards, those that are finished left out; they are removed when the body ends without error."""
    folder = work / rows_digest([model.artifact.content_digest, source.name, source.state])
    folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(
        folder.with_suffix(".lock"),
        busy="another build of the same index is running",
        remedy="wait for it",
        elsewhere="name another folder with --work",
    ):
        starts = range(0, len(source), SHARD_ITEMS)
        shards = [
            _shard(folder / f"shard-{start // SHARD_ITEMS:05d}", model, source, start)
            for start in track(starts, description="indexing", total=len(starts))
        ]
        if not any(shard.content["num_items"] for shard in shards):
            rejected = _rejected(shards)
            reason = f", the first: {rejected[0]['reason']}" if rejected else ""
            raise InputError(f"{source.name}: none of {len(source)} items can be indexed{reason}")
        yield shards
        shutil.rmtree(folder)


def _shard(path: Path, model: TrainedModel, source: Source, start: int) -> Artifact:
    try:
        return read_artifact(path, KIND, verify=True)
    except ArtifactError:  # not there yet, or damaged
        shutil.rmtree(path, ignore_errors=True)
    embedded: list[_Embedded] = []
    rejected: list[dict[str, Any]] = []
    encoders = _encoders(model)
    items = source.items(start, min(start + SHARD_ITEMS, len(source)))
    while batch := list(islice(items, BATCH)):  # the images of one batch at a time are in memory
        for item, fault, one in zip(batch, *_embed(batch, encoders), strict=True):
            if fault:
                rejected.append({"row": item.row, "id": item.id, "reason": fault})
            else:
                small = b"" if item.image is None else thumbnail(item.image)
                embedded.append(_Embedded(item._replace(image=None), one, small))
    with write_artifact(path, kind=KIND, provenance={}) as draft:
        pq.write_table(_item_table([one.item for one in embedded]), draft.path / ITEMS)
        pq.write_table(pa.Table.from_pylist(rejected, REJECTED_SCHEMA), draft.path / REJECTED)
        dim = encoders["image"].dim
        for modality in MODALITIES:
            vectors = np.array([one.vectors[modality] for one in embedded], dtype=np.float32).reshape(-1, dim)
            save_array(draft.path / f"{modality}.npy", vectors)
        _write_thumbnails(draft.path, [len(one.thumbnail) for one in embedded], (one.thumbnail for one in embedded))
        draft.content |= {"model": _model_record(model), "num_items": len(embedded), "dim": dim}
    return read_artifact(path, KIND)


class _Embedded(NamedTuple):
    """An item of a shard, without its image."""

    item: SourceItem
    vectors: Mapping[Modality, NDArray[np.float32]]
    thumbnail: bytes


class _Encoder(NamedTuple):
    """How a model embeds one modality of items."""

    has: Callable[[SourceItem], bool]
    encode: Callable[[Sequence[SourceItem]], NDArray[np.float32]]
    dim: int


def _encoders(model: TrainedModel) -> dict[Modality, _Encoder]:
    dim = model.artifact.content["output_dim"]
    takes_vectors = {modality: model.artifact.content[modality]["kind"] == "precomputed" for modality in MODALITIES}

    def encode_texts(items: Sequence[SourceItem]) -> NDArray[np.float32]:
        features = model.text_encoder.encode([item.text for item in items])
        embeddings = model.embed_text_features(features)
        embeddings[~features.any(axis=1)] = 0  # a text without a known word is like none
        return embeddings

    image = _Encoder(
        lambda item: item.image is not None,
        lambda items: model.encode_images([item.image or b"" for item in items]),
        dim,
    )
    text = _Encoder(lambda item: bool(item.text.strip()), encode_texts, dim)
    if takes_vectors["image"]:
        image = _Encoder(
            lambda item: item.image_vector is not None,
            lambda items: model.embed_image_features(np.array([item.image_vector for item in items])),
            dim,
        )
    if takes_vectors["text"]:
        text = _Encoder(
            lambda item: item.text_vector is not None,
            lambda items: model.embed_text_features(np.array([item.text_vector for item in items])),
            dim,
        )
    return {"image": image, "text": text}


def _embed(
    items: Sequence[SourceItem], encoders: Mapping[Modality, _Encoder]
) -> tuple[list[str], list[Mapping[Modality, NDArray[np.float32]]]]:
    """Embed a batch: why each item cannot be indexed, empty where it can, and its vectors."""
    faults = [item.fault for item in items]
    vectors = {modality: _encode(items, faults, encoder) for modality, encoder in encoders.items()}
    for place, item in enumerate(items):
        if not faults[place] and not all(np.isfinite(vectors[modality][place]).all() for modality in MODALITIES):
            faults[place] = "its embedding is not finite; check the model"
        elif not faults[place] and not any(vectors[modality][place].any() for modality in MODALITIES):
            no_word = f"the text {quote(item.text)} has no word that the model knows"
            faults[place] = no_word if item.text else "no image and no text"
    return faults, [{modality: vectors[modality][place] for modality in MODALITIES} for place in range(len(items))]


def _encode(items: Sequence[SourceItem], faults: list[str], encoder: _Encoder) -> NDArray[np.float32]:
    """Embed one modality of the items that have it, [B, D]; what cannot be encoded is put into the faults."""
    vectors = np.zeros((len(items), encoder.dim), dtype=np.float32)
    places = [place for place, item in enumerate(items) if not faults[place] and encoder.has(item)]
    try:
        if places:
            vectors[places] = encoder.encode([items[place] for place in places])
    except InputError:
        for place in places:  # one by one, to find those at fault
            try:
                vectors[place] = encoder.encode([items[place]])[0]
            except InputError as error:
                why = decoding_fault(items[place].image or b"")
                faults[place] = f"the image cannot be decoded ({why})" if why else str(error)
    return vectors


def _item_table(items: Sequence[SourceItem]) -> pa.Table:
    names = sorted({name for item in items for name in item.columns})
    fixed = {
        "id": pa.array([item.id for item in items], pa.string()),
        "text": pa.array([item.text for item in items], pa.string()),
        "labels": pa.array([list(item.labels) for item in items], pa.list_(pa.string())),
    }
    return pa.table(fixed | {name: pa.array([item.columns.get(name) for item in items], pa.string()) for name in names})


def _join(
    out: Path,
    parts: Sequence[_Part],
    rejected: Sequence[Mapping[str, Any]],
    options: Options,
    provenance: Mapping[str, Any],
) -> None:
    """Write the rows of several indices as one."""
    num_items = sum(len(part.rows) for part in parts)
    if not num_items:
        raise InputError(f"no item would be left in {out}", "remove the folder instead")
    with write_artifact(out, kind=KIND, provenance=provenance) as draft:
        tables = [pq.read_table(part.of.file(ITEMS)).take(part.rows) for part in parts]
        table = pa.concat_tables(tables, promote_options="default").combine_chunks()
        pq.write_table(table, draft.path / ITEMS)
        pq.write_table(pa.Table.from_pylist(rejected, REJECTED_SCHEMA), draft.path / REJECTED)
        sizes = [size for part in parts for size in _thumbnail_sizes(part.of)[part.rows].tolist()]
        _write_thumbnails(draft.path, sizes, (one for part in parts for one in read_thumbnails(part.of, part.rows)))
        dim = parts[0].of.content["dim"]
        present, cells = {}, {}
        for modality in MODALITIES:
            path = draft.path / f"{modality}.npy"
            present[modality] = _write_vectors(path, modality, parts, (num_items, dim), options.dtype)
        for modality, other in zip(MODALITIES, reversed(MODALITIES), strict=True):
            if present[modality] > options.exact_limit:
                cells[modality] = _write_cells(draft, modality, other, options.recall)
        draft.content |= {
            "model": parts[0].of.content["model"],
            "num_items": num_items,
            "num_images": present["image"],
            "num_texts": present["text"],
            "num_rejected": len(rejected),
            "dim": dim,
            **options._asdict(),
            "columns": [name for name in table.column_names if name not in FIXED_COLUMNS],
            "cells": cells,
        }


def _write_vectors(path: Path, modality: Modality, parts: Sequence[_Part], shape: tuple[int, int], dtype: DType) -> int:
    """Write the vectors of one modality; return how many are not all zero."""
    num_present = 0

    def blocks() -> Iterator[NDArray[np.floating[Any]]]:
        nonlocal num_present
        for part in parts:
            here = np.load(part.of.file(f"{modality}.npy"), mmap_mode="r", allow_pickle=False)
            for start in range(0, len(part.rows), SHARD_ITEMS):
                block = here[part.rows[start : start + SHARD_ITEMS]].astype(dtype)
                num_present += int(block.any(axis=1).sum())
                yield block

    _write_array(path, np.dtype(dtype), shape, blocks())
    return num_present


def _write_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], blocks: Iterable[Any]) -> None:
    """Write a `.npy` file block by block; a memory-mapped one would end the process where the disk is full."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(block)


def _write_cells(draft: ArtifactDraft, modality: Modality, other: Modality, recall: float) -> dict[str, Any]:
    """Write the inverted file of one modality; its queries are mostly of the other: a sample measures it."""
    vectors = np.load(draft.path / f"{modality}.npy", mmap_mode="r", allow_pickle=False)
    queries = np.load(draft.path / f"{other}.npy", mmap_mode="r", allow_pickle=False)
    path = draft.path / f"{modality}.faiss"
    build_cells(vectors, path, seed=SEED)
    usable = np.flatnonzero(np.asarray(queries).any(axis=1))
    sample = np.random.default_rng(SEED).permutation(usable)[:NUM_SAMPLE_QUERIES]
    num_read, reached = choose_cells(vectors, path, np.asarray(queries[np.sort(sample)], np.float32), recall=recall)
    return {"read": num_read, "recall_at_10": reached, "num_queries": len(sample)}


def read_thumbnails(index: Artifact, rows: NDArray[np.int64]) -> Iterator[bytes]:
    """Thumbnails of some items, as JPEG; empty for those that have none."""
    thumbnails = np.load(index.file("thumbnails.npy"), mmap_mode="r", allow_pickle=False)
    ends = np.load(index.file("thumbnail_ends.npy"), allow_pickle=False)
    for row in rows.tolist():
        yield thumbnails[int(ends[row - 1]) if row else 0 : int(ends[row])].tobytes()


def _thumbnail_sizes(index: Artifact) -> NDArray[np.int64]:
    sizes: NDArray[np.int64] = np.diff(np.load(index.file("thumbnail_ends.npy"), allow_pickle=False), prepend=0)
    return sizes


def _write_thumbnails(folder: Path, sizes: Sequence[int], thumbnails: Iterable[bytes]) -> None:
    ends = np.cumsum(sizes, dtype=np.int64)
    _write_array(folder / "thumbnails.npy", np.dtype(np.uint8), (int(ends[-1]) if len(ends) else 0,), thumbnails)
    save_array(folder / "thumbnail_ends.npy", ends)


def _model_record(model: TrainedModel) -> dict[str, Any]:
    return {
        "digest": model.artifact.content_digest,
        "kind": model.config.kind,
        "label_names": list(model.label_names),
    }

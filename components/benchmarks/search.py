"""The program behind `dagnn bench search`: our searches beside plain faiss and torch, in one run.

Vectors of unit length lie around random centres, as embeddings of labelled items do. One query at a time is timed, the
ways taking turns at each; then batches of 32, then queries of several clients at once. What is compared:

exact            `VectorSearch`: ties by row, float64 cosines, filters; beside `IndexFlatIP` of the same vectors
cells            `VectorSearch` with an inverted file; beside that file in plain faiss, with as many cells read
torch topk       a product with the whole matrix
"""

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from components.benchmarks.table import Row, to_table
from dagnn_core.artifacts import read_artifact
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.progress import track
from dagnn_core.search import RECALL
from dagnn_core.search.index import ITEMS, KIND, SearchIndex
from dagnn_core.search.nearest import VectorSearch, build_cells, choose_cells, unit_length

K = 10
SEED = 0
NUM_QUERIES = 256
BATCH = 32
CLIENTS = (1, 8, 32)
SELECTIVITIES = (0.01, 0.1, 0.5)
SECONDS = 5.0  # of one measurement; slow searches have fewer queries, but MIN_QUERIES
MIN_QUERIES = 20
SAME = 1e-6  # cosines that differ by less are those of ties, to a comparison in float32

Search = Callable[[NDArray[np.float32]], Any]


def run(*, sizes: Sequence[int], dims: Sequence[int]) -> list[Row]:
    """Measure searches of random vectors for their 10 nearest.

    Args:
        sizes: numbers of vectors.
        dims: dimensions.

    Returns:
        A row for each size, dimension and search: seconds to build, MiB of memory beside the vectors, recall at 10,
        milliseconds of a query (median and 99th percentile) and of a batch of 32, queries per second by number of
        clients; for our searches also the ratios to plain faiss and torch, and of filters the milliseconds and recall.
    """
    work = [(size, dim) for dim in dims for size in sizes]
    return [row for one in track(work, description="searching", total=len(work)) for row in _measure(*one)]


def run_index(index: Path, model: Path) -> Row:
    """Measure text queries of a real index: encoding, vector search, and making the results, in milliseconds each."""
    opened = SearchIndex(read_artifact(index, KIND), TrainedModel.read(model))
    texts = [text for text in pq.read_table(opened.artifact.file(ITEMS))["text"].to_pylist() if text][:NUM_QUERIES]
    seconds: dict[str, list[float]] = {"encode": [], "vectors": [], "search": []}
    search = VectorSearch(opened.vectors("image"))
    for text in texts:
        start = time.perf_counter()
        query = opened.text_query(text)
        encoded = time.perf_counter()
        search.search(query.vector[None], K)
        found = time.perf_counter()
        opened.search([query], K)
        end = time.perf_counter()
        for name, value in zip(seconds, (encoded - start, found - encoded, end - found), strict=True):
            seconds[name].append(1e3 * value)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "items": float(len(opened)),
        "encoding a text: ms": medians["encode"],
        "vector search: ms": medians["vectors"],
        "making results: ms": medians["search"] - medians["vectors"],
    }


def to_markdown(rows: Sequence[Row]) -> str:
    """The rows as a table, and what they say of filters as another one."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    filters = [name for name in names if name.startswith("filter")]
    tables = [to_table(rows, [name for name in names if name not in filters])]
    if filters:
        tables.append(to_table([row for row in rows if filters[0] in row], [*names[:3], *filters]))
    return "\n".join(tables)


def _measure(size: int, dim: int) -> Iterator[Row]:
    vectors, queries = _clustered(size, dim)
    matrix = torch.from_numpy(vectors)
    masks = {share: np.random.default_rng(SEED).random(size) < share for share in SELECTIVITIES}
    topk: Search = lambda query: torch.topk(torch.from_numpy(query) @ matrix.T, min(K, size))  # noqa: E731
    with tempfile.TemporaryDirectory(prefix="dagnn-bench-") as folder:
        path = Path(folder) / "vectors.faiss"
        for name in ("exact", "cells"):
            before, start = _memory(), time.perf_counter()
            if name == "exact":
                search = VectorSearch(vectors)
            else:
                build_cells(vectors, path, seed=SEED)
                num_read, _ = choose_cells(vectors, path, queries, recall=RECALL)
                search = VectorSearch(vectors, (path, num_read))
            built = {"build: s": time.perf_counter() - start, "memory: MiB": (_memory() - before) / (1 << 20)}
            ours: Search = lambda query, search=search: search.search(query, K)  # type: ignore[misc]  # noqa: E731
            ways = {name: ours, f"plain faiss, {name}": search.plain_search(K), "torch topk": topk}
            single, batches = _take_turns(ways, queries)
            times = {way: _summary(run, single[way], batches[way], queries) for way, run in ways.items()}
            recall = _recall(search.search(queries, K).cosines, matrix, queries, None)
            mine = {
                "ratio to plain faiss": _ratio(single[name], single[f"plain faiss, {name}"]),
                "ratio, batch": _ratio(batches[name], batches[f"plain faiss, {name}"]),
                "ratio to torch": _ratio(single[name], single["torch topk"]),
            }
            for share, mask in masks.items():
                mine |= _filtered(search, queries, mask, f"{share:.0%}", matrix)
            row: Row = {"items": float(size), "width": float(dim), "search": name}
            yield {**row, **built, "recall at 10": recall, **times[name], **mine}
            yield {**row, "search": f"plain faiss, {name}", **times[f"plain faiss, {name}"]}
            if name == "cells":
                yield {**row, "search": "torch topk", **times["torch topk"]}
            del search, ours, ways
            gc.collect()


def _clustered(size: int, dim: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors around centres, a thousand each, and queries like them."""
    rng = np.random.default_rng(SEED)
    centres = rng.standard_normal((max(10, size // 1000), dim), dtype=np.float32)

    def draw(number: int) -> NDArray[np.float32]:
        drawn = rng.standard_normal((number, dim), dtype=np.float32)
        drawn *= 0.7
        for start in range(0, number, 1 << 16):  # a block at a time: a million of width 512 has 2 GB
            block = drawn[start : start + (1 << 16)]
            block += centres[rng.integers(len(centres), size=len(block))]
            block[:] = unit_length(block)
        return drawn

    return draw(size), draw(NUM_QUERIES)


def _take_turns(
    ways: Mapping[str, Search], queries: NDArray[np.float32]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Milliseconds of each way for single queries, and for batches."""
    first = max(min(_seconds(way, queries[:1]) for _ in range(3)) for way in ways.values())
    number = int(np.clip(SECONDS / first, MIN_QUERIES, len(queries)))
    single: dict[str, list[float]] = {name: [] for name in ways}
    batches: dict[str, list[float]] = {name: [] for name in ways}
    for row in range(number):
        for name, way in ways.items():
            single[name].append(1e3 * _seconds(way, queries[row : row + 1]))
    for start in range(0, max(3 * BATCH, number), BATCH):
        for name, way in ways.items():
            batches[name].append(1e3 * _seconds(way, queries[start : start + BATCH]))
    return single, batches


def _summary(
    way: Search, single: Sequence[float], batches: Sequence[float], queries: NDArray[np.float32]
) -> dict[str, float]:
    rates = {f"queries/s, {clients} clients": _rate(way, queries[: len(single)], clients) for clients in CLIENTS}
    return {
        "queries": float(len(single)),
        "p50: ms": statistics.median(single),
        "p99: ms": float(np.percentile(single, 99)),
        f"batch of {BATCH}: ms": statistics.median(batches),
    } | rates


def _ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    """Median of the ratios at each turn, which a change of the machine's load moves little."""
    return statistics.median(one / other for one, other in zip(ours, others, strict=True))


def _filtered(
    search: VectorSearch, queries: NDArray[np.float32], mask: NDArray[np.bool_], name: str, matrix: torch.Tensor
) -> dict[str, float]:
    queries = queries[:MIN_QUERIES]
    milliseconds = [
        1e3 * _seconds(lambda query: search.search(query, K, mask), queries[row : row + 1])
        for row in range(len(queries))
    ]
    found = search.search(queries, K, mask)
    return {
        f"filter {name}, p50: ms": statistics.median(milliseconds),
        f"filter {name}, recall": _recall(found.cosines, matrix, queries, mask),
    }


def _recall(
    cosines: NDArray[np.float64], matrix: torch.Tensor, queries: NDArray[np.float32], mask: NDArray[np.bool_] | None
) -> float:
    """Share of what was found that is as near as the k-th best of all, by torch."""
    shares = []
    for found, query in zip(cosines, torch.from_numpy(queries), strict=True):
        scores = matrix @ query
        if mask is not None:
            scores = scores[torch.from_numpy(mask)]
        best = torch.topk(scores, min(K, len(scores))).values
        shares.append((found[: len(best)] >= best[-1:].numpy() - SAME).mean() if len(best) else 1.0)
    return float(np.mean(shares))


def _seconds(way: Search, query: NDArray[np.float32]) -> float:
    start = time.perf_counter()
    way(query)
    return time.perf_counter() - start


def _rate(way: Search, queries: NDArray[np.float32], clients: int) -> float:
    with ThreadPoolExecutor(clients) as pool:
        start = time.perf_counter()
        list(pool.map(lambda row: way(queries[row : row + 1]), range(len(queries))))
        return len(queries) / (time.perf_counter() - start)


def _memory() -> int:
    return int(psutil.Process().memory_info().rss)

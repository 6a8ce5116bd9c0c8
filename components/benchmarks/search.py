"""The program behind `dagnn bench search`: latency, rate and recall of the index, beside plain faiss and torch."""

import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dagnn_core.search import RECALL
from dagnn_core.search.nearest import VectorSearch, build_cells, choose_cells, plain_index, unit_length

K = 10
NUM_QUERIES = 200
CLIENTS = (1, 8, 32)

Search = Callable[[NDArray[np.float32]], object]


def run(*, sizes: Sequence[int], dims: Sequence[int], repeats: int = 3) -> dict[str, float]:
    """Search clustered random vectors for their 10 nearest, one query at a time; the ways take turns.

    Args:
        sizes: numbers of vectors.
        dims: dimensions.
        repeats: rounds of all queries, of which the medians are reported.

    Returns:
        For each size and dimension: milliseconds of a query (median and 99th percentile) and queries per second by
        number of clients; what plain faiss and torch take compared with our exact search; the same and the recall at 10
        of the inverted file; seconds to build; the highest memory of the process.
    """
    figures = {"threads": float(torch.get_num_threads())}
    for dim in dims:
        for size in sizes:
            for name, value in _measure(size, dim, repeats).items():
                figures[f"{size:,} x {dim}: {name}"] = value
    return figures


def _measure(size: int, dim: int, repeats: int) -> dict[str, float]:
    vectors, queries = _clustered(size, dim)
    with tempfile.TemporaryDirectory(prefix="dagnn-bench-") as folder:
        start = time.perf_counter()
        exact = VectorSearch(vectors)
        figures = {"exact: seconds to open": time.perf_counter() - start}
        path = Path(folder) / "vectors.faiss"
        start = time.perf_counter()
        build_cells(vectors, path, seed=0)
        num_read, recall = choose_cells(vectors, path, queries, recall=RECALL)
        figures["cells: seconds to build"] = time.perf_counter() - start
        figures |= {"cells: read": float(num_read), "cells: recall at 10": recall}
        cells = VectorSearch(vectors, (path, num_read))
    plain, matrix = plain_index(vectors), torch.from_numpy(unit_length(vectors))
    ways: dict[str, Search] = {
        "exact": lambda query: exact.search(query, K),
        "cells": lambda query: cells.search(query, K),
        "plain faiss": lambda query: plain.search(unit_length(query), K),
        "torch topk": lambda query: torch.topk(torch.from_numpy(unit_length(query)) @ matrix.T, K),
    }
    medians: dict[str, list[float]] = {name: [] for name in ways}
    last: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            seconds = _seconds(way, queries)
            medians[name].append(statistics.median(seconds))
            last[name].append(float(np.percentile(seconds, 99)))
    for name in ways:
        figures[f"{name}: ms, median"] = 1e3 * statistics.median(medians[name])
        figures[f"{name}: ms, 99th percentile"] = 1e3 * statistics.median(last[name])
    for name in ("plain faiss", "torch topk"):
        figures[f"{name}: times as long as exact"] = statistics.median(medians[name]) / statistics.median(
            medians["exact"]
        )
    for name in ("exact", "cells"):
        for clients in CLIENTS:
            figures[f"{name}: queries/s, {clients} clients"] = _rate(ways[name], queries, clients)
    figures["highest memory: MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


def _clustered(size: int, dim: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors around centres, as embeddings of labelled items are, and queries like them."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(max(10, size // 1000), dim)).astype(np.float32)

    def draw(number: int) -> NDArray[np.float32]:
        noise = rng.standard_normal((number, dim), dtype=np.float32)
        drawn: NDArray[np.float32] = centres[rng.integers(len(centres), size=number)] + 0.7 * noise
        return drawn

    return draw(size), draw(NUM_QUERIES)


def _seconds(way: Search, queries: NDArray[np.float32]) -> list[float]:
    seconds = []
    for row in range(len(queries)):
        start = time.perf_counter()
        way(queries[row : row + 1])
        seconds.append(time.perf_counter() - start)
    return seconds


def _rate(way: Search, queries: NDArray[np.float32], clients: int) -> float:
    with ThreadPoolExecutor(clients) as pool:
        start = time.perf_counter()
        list(pool.map(lambda row: way(queries[row : row + 1]), range(len(queries))))
        return len(queries) / (time.perf_counter() - start)

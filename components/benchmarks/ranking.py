"""The program behind `dagnn bench map`: exact MAP of both directions, beside four ways it is commonly computed."""

import statistics
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor

from components.benchmarks.memory import peak_of
from components.benchmarks.table import Row
from dagnn_core.errors import InputError
from dagnn_core.retrieval.metrics import Embeddings, Labels, evaluate_retrieval

NUM_LABELS = 24  # as MIRFlickr has
LABELS_PER_ITEM = 3.8
MIB = 1 << 20

MeanAveragePrecision = Callable[[Embeddings, Embeddings, Labels], tuple[float, float]]


def run(*, num_items: int = 2000, dim: int = 1024, repeats: int = 5) -> dict[str, float]:
    """Time the metrics on random pairs; the ways take turns, so that other load on the machine meets all of them.

    Args:
        num_items: pairs; every image is ranked against every text, and back.
        dim: dimension of the embeddings, float32.
        repeats: runs of each way.

    Returns:
        Median and shortest seconds of each way, and what it takes compared with ours.

    Raises:
        InputError: torchmetrics is not installed.
    """
    if find_spec("torchmetrics") is None:
        raise InputError("torchmetrics is not installed, beside which MAP is timed", "pip install 'dagnn[bench]'")
    image, text, labels = _random_pairs(num_items, dim)
    ways: dict[str, MeanAveragePrecision] = {
        "dagnn, all metrics": _ours,
        "stable argsort, MAP": _stable_argsort,
        "loop over queries, MAP": _loop,
        "loop over scipy's distances, MAP": _scipy_loop,
        "torchmetrics, MAP": _torchmetrics,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, tuple[float, float]] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            results[name] = way(image, text, labels)
            seconds[name].append(time.perf_counter() - start)
    ours = next(iter(ways))
    figures = {"pairs": float(num_items), "dimensions": float(dim), "threads": float(torch.get_num_threads())}
    for name, times in seconds.items():
        figures[f"{name}: seconds, median"] = statistics.median(times)
        figures[f"{name}: seconds, shortest"] = min(times)
        if name != ours:
            figures[f"{name}: times as long"] = statistics.median(times) / statistics.median(seconds[ours])
            differences = (abs(a - b) for a, b in zip(results[name], results[ours], strict=True))
            figures[f"{name}: largest difference of MAP"] = max(differences)
    return figures


def run_sizes(*, sizes: Sequence[int], dims: Sequence[int]) -> list[Row]:
    """Time all metrics of more and more random pairs, both directions; other ways would take hours.

    Args:
        sizes: numbers of pairs.
        dims: dimensions of the embeddings, float32.

    Returns:
        A row for each dimension and size: seconds, seconds of CPU time, which other load on the machine moves less, and
        MiB of memory beside the embeddings, at their highest.
    """
    rows: list[Row] = []
    for dim in dims:
        for size in sizes:
            pairs = _random_pairs(size, dim)
            with peak_of("VmRSS") as peak:
                start, start_cpu = time.perf_counter(), time.process_time()
                evaluate_retrieval(*pairs)
                seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
            row = {
                "pairs": size,
                "dimensions": dim,
                "threads": torch.get_num_threads(),
                "seconds": seconds,
                "CPU seconds": cpu_seconds,
            }
            row |= {"CPU nanoseconds a cosine": cpu_seconds / (2 * size**2) * 1e9, "peak memory: MiB": peak() / MIB}
            rows.append({name: float(value) for name, value in row.items()})
    return rows


def _random_pairs(num_items: int, dim: int) -> tuple[Embeddings, Embeddings, Labels]:
    rng = np.random.default_rng(0)
    image, text = (rng.random((num_items, dim), dtype=np.float32) for _ in range(2))
    labels = (rng.random((num_items, NUM_LABELS)) < LABELS_PER_ITEM / NUM_LABELS).astype(np.uint8)
    return image, text, labels


def _ours(image: Embeddings, text: Embeddings, labels: Labels) -> tuple[float, float]:
    metrics = evaluate_retrieval(image, text, labels)
    return metrics["map_i2t"], metrics["map_t2i"]


def _stable_argsort(image: Embeddings, text: Embeddings, labels: Labels) -> tuple[float, float]:
    cosine = _cosine(image, text)
    relevant = _relevant(labels)

    def mean_average_precision(similarity: Embeddings) -> float:
        order = np.argsort(-similarity, axis=1, kind="stable")
        hits = np.take_along_axis(relevant, order, axis=1)
        precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
        has_relevant = hits.any(axis=1)
        average_precision = (precision * hits).sum(axis=1)[has_relevant] / hits.sum(axis=1)[has_relevant]
        return float(average_precision.mean())

    return mean_average_precision(cosine), mean_average_precision(cosine.T)


def _loop(image: Embeddings, text: Embeddings, labels: Labels) -> tuple[float, float]:
    cosine = _cosine(image, text)
    relevant = _relevant(labels)

    def mean_average_precision(similarity: Embeddings) -> float:
        average_precision = []
        for row, is_relevant in zip(similarity, relevant, strict=True):
            ranks = np.flatnonzero(is_relevant[np.argsort(-row, kind="stable")]) + 1
            if len(ranks) > 0:
                average_precision.append(float((np.arange(1, len(ranks) + 1) / ranks).mean()))
        return statistics.fmean(average_precision)

    return mean_average_precision(cosine), mean_average_precision(cosine.T)


def _scipy_loop(image: Embeddings, text: Embeddings, labels: Labels) -> tuple[float, float]:
    """As the authors' public code evaluates, but for queries without a relevant item, which it divides by zero for."""
    distance = cdist(image, text, "cosine")

    def mean_average_precision(distances: NDArray[np.float64]) -> float:
        order = distances.argsort()
        average_precision = []
        for row, places in enumerate(order):
            hits, total = 0.0, 0.0
            for rank, place in enumerate(places, start=1):
                if (labels[row] & labels[place]).any():
                    hits += 1
                    total += hits / rank
            if hits:
                average_precision.append(total / hits)
        return statistics.fmean(average_precision)

    return mean_average_precision(distance), mean_average_precision(distance.T)


def _torchmetrics(image: Embeddings, text: Embeddings, labels: Labels) -> tuple[float, float]:
    """As torchmetrics documents it: every pair with the number of its query. It leaves out cosines below 0."""
    from torchmetrics.retrieval import RetrievalMAP  # noqa: PLC0415 -- an extra

    cosine, relevant = torch.from_numpy(_cosine(image, text)), torch.from_numpy(_relevant(labels))
    query = torch.arange(len(cosine))[:, None].expand_as(cosine).flatten()

    def mean_average_precision(similarity: Tensor) -> float:
        metric = RetrievalMAP(empty_target_action="skip")
        return float(metric(similarity.flatten(), relevant.flatten(), indexes=query))

    return mean_average_precision(cosine), mean_average_precision(cosine.T)


def _cosine(image: Embeddings, text: Embeddings) -> Embeddings:
    image, text = (matrix / np.linalg.norm(matrix, axis=1, keepdims=True) for matrix in (image, text))
    return image @ text.T


def _relevant(labels: Labels) -> NDArray[np.bool_]:
    counts = labels.astype(np.float32)
    relevant: NDArray[np.bool_] = counts @ counts.T > 0
    return relevant

"""The largest cosines among the vectors of one modality, by faiss; the only module that imports it.

Exact search is the ranking of the evaluation (`dagnn_core.retrieval.metrics`): cosines of fixed-point vectors, ties by
row, all-zero vectors never found. faiss finds candidates in float32; their exact cosines decide. Rounding in float32
moves a cosine by at most (D + 4) 2^-24, so candidates are enough once the last of them lies twice that below the k-th.

An inverted file (IVF) looks at some cells of the space alone; the cosines of what it finds are as exact.

# N vectors, D dimension, B queries, W candidates
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from dagnn_core.errors import ArtifactError
from dagnn_core.retrieval.metrics import COSINE_BITS, EMBEDDING_BITS, fixed_point

MARGIN = 32  # candidates beyond k: ties and near ties at the end of the list are rare
GROWTH = 4
BLOCK_ENTRIES = 1 << 22  # gathered candidates: at most 32 MiB at once
TRAINING_VECTORS_PER_CELL = 64
MIN_CELL = 39  # vectors; k-means of faiss warns below

Mask = NDArray[np.bool_]


class Nearest(NamedTuple):
    """What was found for each query, best first; -1 and -inf where there is nothing more."""

    rows: NDArray[np.int64]
    """[B, k]."""
    cosines: NDArray[np.float64]
    """[B, k]."""


class VectorSearch:
    """Finds the vectors with the largest cosines.

    Args:
        vectors: [N, D]; all-zero ones are never found. They stay where they are (memory-mapped, say); a copy of unit
            length in float32 is held in memory.
        cells: an inverted file as `build_cells` writes it, and how many of its cells a query looks at; None: exact.
    """

    def __init__(self, vectors: NDArray[np.floating[Any]], cells: tuple[Path, int] | None = None) -> None:
        self._vectors = vectors
        self._present = np.asarray(np.asarray(vectors).any(axis=1), dtype=np.bool_)
        self._num_present = int(self._present.sum())
        self._num_cells_read = 0
        if cells is None:
            self._index = plain_index(vectors)
            return
        path, self._num_cells_read = cells
        try:
            self._index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise ArtifactError(f"{path} cannot be read by faiss", "build the index again") from error
        if (self._index.ntotal, self._index.d) != vectors.shape:
            raise ArtifactError(
                f"{path} has {self._index.ntotal} vectors of {self._index.d} numbers, expected {list(vectors.shape)}",
                "build the index again",
            )

    @property
    def present(self) -> Mask:
        """Which vectors are not all zero, [N]."""
        return self._present

    def search(self, queries: NDArray[np.floating[Any]], k: int, allowed: Mask | None = None) -> Nearest:
        """The k largest cosines of each query.

        Args:
            queries: [B, D]; an all-zero one finds nothing.
            k: at least 1.
            allowed: which vectors may be found, [N]; all by default. With it, every cell of an inverted file is read,
                so that the result is exact however few these are.

        Raises:
            InputError: a query is not finite.
        """
        fixed, is_zero = fixed_point(queries, "query")
        findable = self._present if allowed is None else self._present & allowed
        num_findable = self._num_present if allowed is None else int(findable.sum())
        found = Nearest(np.full((len(fixed), k), -1), np.full((len(fixed), k), -np.inf))
        if not num_findable:
            return found
        unit = unit_length(queries)
        with self._parameters(findable, num_findable, is_filtered=allowed is not None) as parameters:
            pending, wanted = np.flatnonzero(~is_zero), min(k + MARGIN, num_findable)
            while len(pending):
                unfinished = []
                for batch in _split(pending, max(1, BLOCK_ENTRIES // (wanted * unit.shape[1]))):
                    scores, rows = self._index.search(unit[batch], wanted, params=parameters)
                    done = self._rank(found, batch, fixed[batch], rows, scores)
                    unfinished.append(batch[~done & (wanted < num_findable)])
                pending, wanted = np.concatenate(unfinished), min(wanted * GROWTH, num_findable)
        return found

    def _rank(
        self,
        found: Nearest,
        batch: NDArray[np.int64],
        fixed: NDArray[np.float64],
        rows: NDArray[np.int64],
        scores: NDArray[np.float32],
    ) -> Mask:
        """Put the best of the candidates into `found`; return for which queries no other vector can be better."""
        k = min(found.rows.shape[1], rows.shape[1])
        missing = rows < 0
        candidates, _ = fixed_point(np.asarray(self._vectors[np.where(missing, 0, rows).ravel()]), "vector")
        candidates = candidates.reshape(*rows.shape, -1)
        # in steps of 2^-29, as the evaluation compares them; the product of two integers below 2^26 is exact
        steps = np.rint(np.einsum("bwd,bd->bw", candidates, fixed) * 2.0 ** (COSINE_BITS - 2 * EMBEDDING_BITS))
        steps[missing] = -np.inf
        order = np.lexsort((rows, -steps), axis=1)[:, :k]
        best = np.take_along_axis(steps, order, axis=1)
        found.rows[batch, :k] = np.where(np.isneginf(best), -1, np.take_along_axis(rows, order, axis=1))
        found.cosines[batch, :k] = best * 2.0**-COSINE_BITS
        if self._num_cells_read:
            return np.ones(len(batch), dtype=np.bool_)
        bound = 2 * (fixed.shape[1] + 4) * 2.0**-24
        is_safe: Mask = found.cosines[batch, k - 1] - bound > scores[:, -1]
        return is_safe

    @contextmanager
    def _parameters(self, findable: Mask, num_findable: int, *, is_filtered: bool) -> Iterator[Any]:
        """Parameters of faiss; what they point to lives as long as the body."""
        selector = None
        if num_findable < len(findable):
            bits = np.packbits(findable, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(findable), faiss.swig_ptr(bits))
        if self._num_cells_read:
            cells = self._index.nlist if is_filtered else self._num_cells_read
            yield faiss.SearchParametersIVF(sel=selector, nprobe=cells)
        else:
            yield faiss.SearchParameters(sel=selector)


def plain_index(vectors: NDArray[np.floating[Any]]) -> Any:
    """Vectors of unit length in faiss, as they are compared one by one: [N, D] -> an `IndexFlatIP`."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    for block in _blocks(vectors):
        index.add(unit_length(block))
    return index


def build_cells(vectors: NDArray[np.floating[Any]], path: Path, *, seed: int) -> None:
    """Divide vectors into about 4 √N cells, but of MIN_CELL vectors on average, by k-means; write the inverted file.

    Args:
        vectors: [N, D].
        path: the file of faiss.
        seed: draws the vectors that the cells are trained on.
    """
    dim = vectors.shape[1]
    num_cells = max(1, min(round(4 * math.sqrt(len(vectors))), len(vectors) // MIN_CELL))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, num_cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical, index.cp.seed = True, seed
    drawn = np.random.default_rng(seed).permutation(len(vectors))[: num_cells * TRAINING_VECTORS_PER_CELL]
    index.train(unit_length(vectors[np.sort(drawn)]))
    for block in _blocks(vectors):
        index.add(unit_length(block))
    faiss.write_index(index, str(path))


def choose_cells(
    vectors: NDArray[np.floating[Any]], path: Path, queries: NDArray[np.floating[Any]], *, recall: float, k: int = 10
) -> tuple[int, float]:
    """The fewest cells, a power of two or all, with which an inverted file reaches a recall at k, and that recall.

    Args:
        vectors: [N, D].
        path: the inverted file.
        queries: sample of queries, [B, D].
        recall: mean share of the exact k best that must be found.
        k: how many are asked for.
    """
    exact = VectorSearch(vectors).search(queries, k)
    num_cells, reached = 1, 0.0
    while True:
        approximate = VectorSearch(vectors, (path, num_cells))
        num_all = int(approximate._index.nlist)
        reached = recall_of(approximate.search(queries, k), exact)
        if reached >= recall or num_cells >= num_all:
            return num_cells, reached
        num_cells = min(2 * num_cells, num_all)


def recall_of(found: Nearest, exact: Nearest) -> float:
    """Mean share of the exact results that were found; 1 where there are none."""
    shares = [
        len(set(here[here >= 0]) & set(there[there >= 0])) / max(1, int((there >= 0).sum()))
        for here, there in zip(found.rows, exact.rows, strict=True)
        if (there >= 0).any()
    ]
    return float(np.mean(shares)) if shares else 1.0


def unit_length(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Vectors of length 1, [N, D]; all-zero ones stay."""
    precise = np.asarray(vectors, dtype=np.float64)
    length = np.linalg.norm(precise, axis=1, keepdims=True)
    return np.ascontiguousarray(precise / np.where(length == 0, 1, length), dtype=np.float32)


def _blocks(vectors: NDArray[np.floating[Any]]) -> Iterator[NDArray[np.floating[Any]]]:
    size = max(1, BLOCK_ENTRIES // vectors.shape[1])
    return (vectors[start : start + size] for start in range(0, len(vectors), size))


def _split(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return np.split(rows, range(size, len(rows), size))

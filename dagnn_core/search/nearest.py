"""The largest cosines among the vectors of one modality, by faiss; the only module that imports it.

Exact search is the ranking of the evaluation (`dagnn_core.retrieval.metrics`): cosines of fixed-point vectors, ties by
row, all-zero vectors never found. faiss compares the same vectors in float32, which moves a cosine by at most
ε = (D + 4) 2^-24. So all of the k best have a score of at least the k-th score - 2 ε: these candidates alone are
compared exactly, and they are all there once the last score that faiss returns is smaller.

An inverted file (IVF) looks at some cells of the space alone; the cosines of what it finds are as exact.

# N vectors, D dimension, B queries, W candidates of faiss, P pairs of query and candidate
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from dagnn_core.errors import ArtifactError
from dagnn_core.retrieval.metrics import (
    COSINE_BITS,
    EMBEDDING_BITS,
    FixedPointScale,
    fixed_point,
    fixed_point_scale,
    scale_to_fixed_point,
)

MARGIN = 8  # candidates beyond k: ties and near ties at the end of the list are rare
GROWTH = 4
BLOCK_ENTRIES = 1 << 22  # gathered candidates: at most 32 MiB at once
TRAINING_VECTORS_PER_CELL = 64
MIN_CELL = 39  # vectors; k-means of faiss warns below

Mask = NDArray[np.bool_]


class Nearest(NamedTuple):
    """What was found for each query, best first; -1 and -inf where there is nothing more."""

    rows: NDArray[np.int64]
    """[B, min(k, N)]."""
    cosines: NDArray[np.float64]
    """[B, min(k, N)]."""


class VectorSearch:
    """Finds the vectors with the largest cosines.

    Args:
        vectors: [N, D]; all-zero ones are never found. They stay where they are (memory-mapped, say); a copy of unit
            length in float32 is held in memory.
        cells: an inverted file as `build_cells` writes it, and how many of its cells a query looks at; None: exact.

    Raises:
        InputError: a vector is not finite.
        ArtifactError: the inverted file is damaged, or of other vectors.
    """

    def __init__(self, vectors: NDArray[np.floating[Any]], cells: tuple[Path, int] | None = None) -> None:
        self.vectors = np.asarray(vectors)  # a view of its own type: a memory map is slow to index
        self._num_cells_read = 0
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        scales = []
        for block in _blocks(self.vectors):
            scales.append(fixed_point_scale(block, "vector"))
            if cells is None:
                self._index.add(_in_float32(scale_to_fixed_point(block, scales[-1])))
        self._scale = FixedPointScale(*map(np.concatenate, zip(*scales, strict=True)))
        self.present: Mask = ~self._scale.is_zero
        self._num_present = int(self.present.sum())
        self._present_selector = _selector(self.present)
        if cells is None:
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
        unit = _in_float32(fixed)
        num_findable, selector = self._num_present, self._present_selector
        if allowed is not None:
            findable = self.present & allowed
            num_findable, selector = int(np.count_nonzero(findable)), _selector(findable)
        parameters = self._parameters(selector, reads_all=allowed is not None)
        k = min(k, len(self.present))
        found = Nearest(np.full((len(fixed), k), -1), np.full((len(fixed), k), -np.inf))
        pending, wanted = (~is_zero).nonzero()[0], min(k + MARGIN, num_findable)
        while wanted and len(pending):
            unfinished = []
            size = max(1, BLOCK_ENTRIES // (wanted * unit.shape[1]))
            for start in range(0, len(pending), size):
                batch = pending[start : start + size]
                scores, rows = self._index.search(unit[batch], wanted, params=parameters)
                unfinished.append(batch[self._rank(found, batch, fixed[batch], rows, scores)])
            if wanted == num_findable or (self._num_cells_read and allowed is None):
                break
            pending, wanted = np.concatenate(unfinished), min(wanted * GROWTH, num_findable)
        return found

    def plain_search(self, k: int) -> Callable[[NDArray[np.float32]], Any]:
        """The same index of faiss without what this class adds, to be measured beside it: queries of unit length."""
        parameters = self._parameters(None, reads_all=False)
        return lambda queries: self._index.search(queries, k, params=parameters)

    def _rank(
        self,
        found: Nearest,
        batch: NDArray[np.int64],
        fixed: NDArray[np.float64],
        rows: NDArray[np.int64],
        scores: NDArray[np.float32],
    ) -> Mask:
        """Put the best candidates of some queries into `found`; return for which another vector may be better.

        Shape:
            batch [b], fixed [b, D], rows [b, W], scores [b, W] -> [b].
        """
        k = min(found.rows.shape[1], rows.shape[1])
        smallest = scores[:, k - 1].astype(np.float64) - 2 * (fixed.shape[1] + 4) * 2.0**-24
        query_P, place_P = ((scores >= smallest[:, None]) & (rows >= 0)).nonzero()  # by query
        rows_P = rows[query_P, place_P]
        scale_P = FixedPointScale(*(part[rows_P] for part in self._scale))
        candidates = scale_to_fixed_point(self.vectors[rows_P], scale_P)
        # in steps of 2^-29, as the evaluation compares them; the product of two integers below 2^26 is exact
        cosines_P = np.einsum("pd,pd->p", candidates, fixed[query_P]) * 2.0 ** (COSINE_BITS - 2 * EMBEDDING_BITS)
        cosines_P = np.rint(cosines_P) * 2.0**-COSINE_BITS
        order = np.lexsort((rows_P, -cosines_P, query_P))  # still by query
        rank_P = np.arange(len(order)) - query_P.searchsorted(query_P)
        best = (rank_P < k).nonzero()[0]
        place, order = (batch[query_P[best]], rank_P[best]), order[best]
        found.rows[place], found.cosines[place] = rows_P[order], cosines_P[order]
        is_open: Mask = scores[:, -1] >= smallest
        return is_open

    def _parameters(self, selector: Any, *, reads_all: bool) -> Any:
        if not self._num_cells_read:
            return None if selector is None else faiss.SearchParameters(sel=selector)
        cells = self._index.nlist if reads_all else self._num_cells_read
        return faiss.SearchParametersIVF(sel=selector, nprobe=cells)


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
    search = VectorSearch(vectors, (path, 1))
    exact = search.search(queries, k, np.ones(len(vectors), dtype=np.bool_))  # reads every cell
    num_all = int(search._index.nlist)
    while True:
        reached = recall_of(search.search(queries, k), exact)
        if reached >= recall or search._num_cells_read == num_all:
            return search._num_cells_read, reached
        search._num_cells_read = min(2 * search._num_cells_read, num_all)


def recall_of(found: Nearest, exact: Nearest) -> float:
    """Mean share of the exact results that were found; 1 where there are none."""
    shares = [
        len(set(here[here >= 0]) & set(there[there >= 0])) / max(1, int((there >= 0).sum()))
        for here, there in zip(found.rows, exact.rows, strict=True)
        if (there >= 0).any()
    ]
    return float(np.mean(shares)) if shares else 1.0


def unit_length(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Vectors of length 1, [N, D]; all-zero ones stay.

    Raises:
        InputError: one is not finite.
    """
    return _in_float32(fixed_point(vectors, "vector")[0])


def _in_float32(fixed: NDArray[np.float64]) -> NDArray[np.float32]:
    return (fixed * 2.0**-EMBEDDING_BITS).astype(np.float32)


def _selector(findable: Mask) -> Any:
    """What makes faiss find some vectors alone; None where it is all."""
    return None if findable.all() else faiss.IDSelectorBitmap(np.packbits(findable, bitorder="little"))


def _blocks(vectors: NDArray[np.floating[Any]]) -> Iterator[NDArray[np.floating[Any]]]:
    size = max(1, BLOCK_ENTRIES // vectors.shape[1])
    return (vectors[start : start + size] for start in range(0, len(vectors), size))

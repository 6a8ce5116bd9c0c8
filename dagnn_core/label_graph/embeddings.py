"""Vectors of the label nodes: from a file of word vectors, learned from texts or labels, or drawn to be trained."""

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dagnn_core.arrays import read_npz
from dagnn_core.errors import InputError
from dagnn_core.features.tokens import tokenize

log = logging.getLogger(__name__)

MIN_TEXTS = 3
"""Words in fewer training texts than this say nothing reliable about a label."""
MAX_WORDS = 2000
"""Most frequent words that take part: bounds the dense co-occurrence matrix (32 MB) and its SVD (2 s on two cores)."""
MEAN_NORM = 6.8
"""Mean length of the 300-d GloVe vectors of labels that the authors train with; the label GNN's initial weights and the
published learning rate are tuned to inputs of this size."""


def learn_label_vectors(
    texts: Sequence[str],
    labels: NDArray[np.uint8],
    label_names: Sequence[str],
    *,
    dim: int,
    unseen_names: Sequence[str] = (),
) -> NDArray[np.float32]:
    """Learn label vectors from the training items, as rows of a factorised PPMI matrix.

    An item is one context: its words and its labels. With n(r, w) the items in which r (a word or a label) and the
    word w meet, PPMI(r, w) = max(0, log n(r, w) Σn / (n(r) n(w))) = U S Vᵀ, and a vector is the label's row of U √S
    for the `dim` largest singular values (Levy and Goldberg, NIPS 2014, section 3.3), scaled by one common factor.

    Args:
        texts: training texts.
        labels: label matrix of the same items.
        label_names: for messages.
        dim: dimension; the rank of the matrix, where that is less.
        unseen_names: further labels, which no item carries: their vectors are the means of those of the words in their
            names, scaled to the labels' mean length; zeros where the texts have none of these words.

    Raises:
        InputError: a label has no text with a word to learn from, or all labels have the same words.

    Shape:
        labels [N, C], U unseen names; result [C + U, min(dim, rank)].
    """
    documents = [set(tokenize(text)) for text in texts]
    frequency = Counter(word for words in documents for word in words)
    ranked = sorted(frequency.items(), key=lambda entry: (-entry[1], entry[0]))  # alphabetical where counts are equal
    column = {word: index for index, (word, count) in enumerate(ranked[:MAX_WORDS]) if count >= MIN_TEXTS}
    num_labels = len(label_names)

    # rows: the labels, then the words; columns: the words
    counts = np.zeros((num_labels + len(column), len(column)))
    for words, label_row in zip(documents, labels, strict=True):
        columns = np.array(sorted(column[word] for word in words if word in column), dtype=np.intp)
        rows = np.concatenate([np.flatnonzero(label_row), num_labels + columns])
        counts[np.ix_(rows, columns)] += 1
    np.fill_diagonal(counts[num_labels:], 0)  # a word is not its own context

    silent = [name for name, row in zip(label_names, counts, strict=False) if not row.any()]
    if silent:
        raise InputError(
            f"label {silent[0]!r}{_and_others(silent)} has no training text with a word that occurs in at least "
            f"{MIN_TEXTS} training texts, so no vector can be learned",
            "drop it (dataset.min_label_count), or give vectors (label_graph.embedding: file)",
        )
    vectors = _factorise(counts, num_labels, dim)
    if vectors is None:
        raise InputError(
            "the training texts of every label have the same words, so no label vectors can be learned from them",
            "give vectors (label_graph.embedding: file)",
        )
    word_row = {word: num_labels + index for word, index in column.items()}
    rows_of = [[word_row[word] for word in tokenize(name) if word in word_row] for name in unseen_names]
    unseen = np.zeros((len(unseen_names), vectors.shape[1]), np.float32)
    for number, of_name in enumerate(rows_of):
        if of_name:
            unseen[number] = vectors[of_name].mean(axis=0)
    return np.concatenate([vectors[:num_labels], MEAN_NORM * unit_length(unseen)])


def learn_from_labels(counts: NDArray[np.int64], label_counts: NDArray[np.int64], *, dim: int) -> NDArray[np.float32]:
    """Learn label vectors from the training labels alone, where there are no texts.

    As `learn_label_vectors`, with the labels of an item in place of its words: n(r, w) are the items with the labels r
    and w. A label is its own context, so that one that meets no other has a vector, too.

    Args:
        counts: items with both labels; zero diagonal.
        label_counts: items with the label.
        dim: dimension; the rank of the matrix, where that is less.

    Raises:
        InputError: all items have the same labels.

    Shape:
        counts [C, C], label_counts [C]; result [C, min(dim, rank)].
    """
    vectors = _factorise((counts + np.diag(label_counts)).astype(np.float64), len(counts), dim)
    if vectors is None:
        raise InputError(
            "the training items have no texts and all of them the same labels, so no label vectors can be learned",
            "give vectors (label_graph.embedding: file), or train them (label_graph.embedding: learned)",
        )
    return vectors


def draw_label_vectors(num_labels: int, *, dim: int, seed: int) -> NDArray[np.float32]:
    """Draw label vectors from U[0, 1), as the authors start those that are trained with the network.

    Shape:
        result [num_labels, dim].
    """
    return np.random.default_rng(seed).random((num_labels, dim), dtype=np.float32)


def _factorise(counts: NDArray[np.float64], num_labels: int, dim: int) -> NDArray[np.float32] | None:
    """Vectors of all rows of the counts, of which the first are labels; None where these say nothing."""
    left, singular, right = np.linalg.svd(_positive_pmi(counts), full_matrices=False)
    rank = int((singular > singular[0] * max(counts.shape) * np.finfo(np.float64).eps).sum())
    rank = min(rank, dim)
    # a singular vector's sign is arbitrary: its largest entry is made positive
    sign = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    vectors = left[:, :rank] * (sign * np.sqrt(singular))[:rank]
    mean_norm = np.linalg.norm(vectors[:num_labels], axis=1).mean() if rank else 0.0
    return np.asarray(vectors * (MEAN_NORM / mean_norm), dtype=np.float32) if mean_norm else None


def _positive_pmi(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    ratio = np.divide(counts, expected, out=np.ones_like(counts), where=expected > 0)
    pmi: NDArray[np.float64] = np.log(np.maximum(ratio, 1.0))
    return pmi


def unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale every vector to length 1; a zero vector stays zero.

    Shape:
        vectors [C, e] -> the same.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def read_label_vectors(source: str, label_names: Sequence[str]) -> NDArray[np.float32]:
    """Read label vectors from a file, as they are: their scale is part of the file.

    A label's vector is the one of its whole name, else the mean over the words of its name that have one. Upper and
    lower case are equal, and so are `_` and space.

    Args:
        source: text lines `word x1 x2 ...` (GloVe, fastText, word2vec with its header line), or `.npz` with `names` [n]
            and `vectors` [n, e]; `FILE.npz#glove` takes the matrix `glove` in place of `vectors`.
        label_names: the labels, in the order wanted.

    Raises:
        InputError: no such file, a bad line or matrix, or a label without a vector.

    Shape:
        result [C, e].
    """
    wanted = {_canonical(name) for name in label_names} | {word for name in label_names for word in tokenize(name)}
    file, _, key = source.partition("#")
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{path} does not exist, expected word vectors", "correct label_graph.embedding_file")
    found = _read_npz(path, key or "vectors", wanted) if path.suffix == ".npz" else _read_text(path, wanted)

    terms = {name: _terms(name, found) for name in label_names}
    without = [name for name in label_names if not terms[name]]
    if without:
        raise InputError(
            f"{path} has no vector for label {without[0]!r}{_and_others(without)}",
            "add it to the file, rename the label, or learn vectors from the texts (label_graph.embedding: ppmi_svd)",
        )
    for name in label_names:
        absent = [word for word in tokenize(name) if word not in found]
        if absent and _canonical(name) not in found:
            log.warning("%s has no vector for %s: label %r gets the mean of its other words", path, absent, name)
    return np.stack([np.mean([found[term] for term in terms[name]], axis=0) for name in label_names]).astype(np.float32)


def _canonical(name: str) -> str:
    return name.lower().replace("_", " ").strip()


def _terms(name: str, found: Mapping[str, NDArray[np.float64]]) -> list[str]:
    if _canonical(name) in found:
        return [_canonical(name)]
    return [word for word in tokenize(name) if word in found]


def _read_text(path: Path, wanted: Collection[str]) -> dict[str, NDArray[np.float64]]:
    """Vectors of the wanted words, read line by line: such files have gigabytes."""
    found: dict[str, NDArray[np.float64]] = {}
    dim = 0
    # other encodings than UTF-8 are met in a few words of large files, which no label needs
    with path.open(encoding="utf-8", errors="replace", newline="\n") as stream:
        for number, line in enumerate(stream, start=1):
            word, _, numbers = line.rstrip().partition(" ")
            size = numbers.count(" ") + 1 if numbers else 0
            if number == 1 and word.isdigit() and numbers.isdigit():
                dim = int(numbers)  # the header of word2vec: number of words, dimension
                continue
            dim = dim or size
            if not word or (size > dim and not _is_number(numbers.partition(" ")[0])):
                continue  # an empty line, or one of the few "words" with spaces in GloVe 840B
            if size != dim or size == 0:
                raise InputError(
                    f"{path}, line {number}: {size} numbers after {word!r}, expected {dim or 'some'}",
                    "the file is cut off or no text file of word vectors",
                )
            name = _canonical(word)
            if name in wanted and (name not in found or word == name):  # `apple` wins over `Apple`
                try:
                    found[name] = np.array(numbers.split(" "), dtype=np.float64)
                except ValueError as error:
                    raise InputError(
                        f"{path}, line {number}: {error}, expected {dim} numbers after {word!r}"
                    ) from error
                if not np.isfinite(found[name]).all():
                    raise InputError(f"{path}, line {number}: the vector of {word!r} is not finite", "correct the file")
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_npz(path: Path, key: str, wanted: Collection[str]) -> dict[str, NDArray[np.float64]]:
    try:
        arrays = read_npz(path)
    except ValueError as error:
        raise InputError(f"{path} is not a readable .npz file of plain arrays: {error}") from error
    for needed in ("names", key):
        if needed not in arrays:
            raise InputError(
                f"{path} has no array {needed!r}, got {', '.join(sorted(arrays))}",
                f"expected `names` and `vectors`, "
                f"or name the matrix of vectors: label_graph.embedding_file: {path}#KEY",
            )
    names, vectors = arrays["names"], arrays[key]
    if names.ndim != 1 or names.dtype.kind != "U":
        raise InputError(f"{path}: `names` must be a list of texts, got {names.dtype} of shape {names.shape}")
    if vectors.ndim != 2 or len(vectors) != len(names) or vectors.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: {key!r} must hold numbers, one row for each of the {len(names)} names, "
            f"got {vectors.dtype} of shape {vectors.shape}"
        )
    found: dict[str, NDArray[np.float64]] = {}
    for name, vector in zip(names.tolist(), vectors.astype(np.float64), strict=True):
        if _canonical(name) in wanted:
            if not np.isfinite(vector).all():
                raise InputError(f"{path}: the vector of {name!r} in {key!r} is not finite", "correct the file")
            found.setdefault(_canonical(name), vector)
    return found


def _and_others(names: Sequence[str]) -> str:
    rest = names[1:]
    return f" and {len(rest)} more ({', '.join(rest[:5])}{', ...' if len(rest) > 5 else ''})" if rest else ""

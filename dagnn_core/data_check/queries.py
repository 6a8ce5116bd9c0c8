"""How the queries of a service differ from the data that its model was trained on: the statistics of `data check`."""

# N queries, M items, C labels, D dimensions

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from dagnn_core.data.dataset import Modality
from dagnn_core.data_check.findings import Finding, Verdict, judge
from dagnn_core.data_check.statistics import ALPHA, distribution_shifts, unseen_words
from dagnn_core.features.tokens import tokenize

MODALITIES: tuple[Modality, Modality] = ("text", "image")
RETRAIN = "train on data that has what is asked for"
LENGTH = "text_length_shift"


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryLimits:
    """Limits above which a finding fails. Queries are no captions, so what is normal lies above that of data."""

    nothing_relevant: float = 0.2
    """Share of queries without a result that is probably relevant."""
    unknown_words: float = 0.1
    """Share of the words of queries that are not in the model's vocabulary."""
    unseen_words: float = 0.1
    """Share of the words of queries that the data does not have, beyond those to be expected."""
    label_shift: float = 0.4
    """Largest distance of two distribution functions (Kolmogorov-Smirnov), of the probability of a label."""
    embedding_shift: float = 0.4
    """The same, of a dimension of the embeddings."""
    latency_p95_ms: float = 500.0
    """Milliseconds of a query, 95th percentile, as in the promotion gate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Queries, or items of the data, as a model sees them."""

    texts: Sequence[str] = ()
    embeddings: Mapping[Modality, NDArray[np.float32]] = field(default_factory=dict)
    """Modality -> [N, D]."""
    probabilities: Mapping[Modality, NDArray[np.float32]] = field(default_factory=dict)
    """Modality -> [N, C]; nothing where the model is not calibrated."""


def check_share(name: str, count: int, total: int, limit: float, explanation: str) -> Finding:
    """Hold a share against its limit; it fails where it is above it for sure (binomial test), not by chance.

    Args:
        name: of the finding.
        count: how many.
        total: of how many.
        limit: the largest share that is ok.
        explanation: what the share is, and the remedy.
    """
    value = count / total if total else 0.0
    is_above = value > limit and binomtest(count, total, limit, alternative="greater").pvalue < ALPHA
    verdict: Verdict = "failed" if is_above else "ok"
    return Finding(
        name=name,
        value=value,
        limit=limit,
        verdict=verdict,
        explanation=explanation,
        examples=(f"{count:,} of {total:,}",),
    )


def check_queries(
    queries: Sample, items: Sample, *, label_names: Sequence[str], limits: QueryLimits
) -> Iterator[Finding]:
    """Compare queries with the items of the data, by the same model.

    Where texts have another length than those of the data, a shift of labels or embeddings by text is a warning.

    Args:
        queries: as the log has them.
        items: texts of all items; embeddings of those that training has not seen.
        label_names: the model's, in the order of the probabilities.
        limits: from where on a finding fails.
    """
    above: dict[Modality, Verdict] = {"text": "failed", "image": "failed"}
    if queries.texts and items.texts:
        found = list(_check_texts(queries.texts, items.texts, limits))
        yield from found
        # keywords about the same things lie elsewhere than captions, too
        if any(finding.name == LENGTH and finding.verdict != "ok" for finding in found):
            above["text"] = "warning"
    for modality in MODALITIES:
        one, other = queries.probabilities.get(modality), items.probabilities.get(modality)
        if one is not None and other is not None:
            yield _check_labels(modality, one, other, label_names, limits, above=above[modality])
        vectors, known = queries.embeddings.get(modality), items.embeddings.get(modality)
        if vectors is not None and known is not None:
            shifts = distribution_shifts(vectors, known)
            yield judge(
                f"{modality}_embedding_shift",
                float(shifts.max()),
                limits.embedding_shift,
                f"largest distance of the distributions of a dimension of the embeddings, {len(vectors):,} queries by "
                f"{modality} and {len(known):,} items; {RETRAIN}",
                examples=[f"dimension {dim}: {shifts[dim]:.2f}" for dim in np.argsort(-shifts, kind="stable").tolist()],
                above=above[modality],
            )


def _check_texts(texts: Sequence[str], known: Sequence[str], limits: QueryLimits) -> Iterator[Finding]:
    excess, words = unseen_words(texts, known)
    yield judge(
        "unseen_words",
        excess,
        limits.unseen_words,
        f"share of words that the data does not have, beyond those to be expected; {RETRAIN}",
        examples=words,
    )
    lengths, known_lengths = (np.array([[len(tokenize(text))] for text in side]) for side in (texts, known))
    yield judge(
        LENGTH,
        float(distribution_shifts(lengths, known_lengths)[0]),
        limits.embedding_shift,
        "distance of the distributions of words per text; queries may well be shorter than captions",
        examples=[f"mean {lengths.mean():.1f} words, {known_lengths.mean():.1f} in the data"],
        above="warning",
    )


def _check_labels(
    modality: Modality,
    one: NDArray[np.float32],
    other: NDArray[np.float32],
    label_names: Sequence[str],
    limits: QueryLimits,
    *,
    above: Verdict,
) -> Finding:
    shifts = distribution_shifts(one, other)
    means = one.mean(axis=0), other.mean(axis=0)
    order = [label for label in np.argsort(-shifts, kind="stable").tolist() if shifts[label] > 0]
    return judge(
        f"{modality}_label_shift",
        float(shifts.max()),
        limits.label_shift,
        f"largest distance of the distributions of a label's probability; {RETRAIN}",
        examples=[
            f"{label_names[label]}: mean {means[0][label]:.1%} of queries, {means[1][label]:.1%} of items"
            for label in order
        ],
        above=above,
    )

"""What a check finds, and the limits that it is held against."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from dagnn_core.config.dataset import MAX_RELEVANT_PAIRS, NEAR_DISTANCE

Verdict = Literal["ok", "warning", "failed"]
NUM_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """From where on a finding fails. The defaults let noise pass: random halves of one data set do not differ."""

    leaked_images: float = 0.01
    """Fraction of held-out images that another split, or the other data set, has too, identical or nearly."""
    leaked_texts: float = 0.1
    """The same of texts with the same labels; above it, a warning: short names repeat legitimately."""
    label_shift: float = 0.2
    """Largest difference of a label's frequency, as Cohen's h; 0.2 is what Cohen (1988) calls small."""
    drift: float = 0.1
    """Largest distance of two distribution functions (Kolmogorov-Smirnov), of text lengths, brightness, vectors."""
    unseen_words: float = 0.05
    """Fraction of words that the other data set does not have, beyond those to be expected."""
    label_count: int = 10
    """Labels on fewer training items are called rare: a warning."""
    relevant_pairs: float = MAX_RELEVANT_PAIRS
    """Share of pairs of held-out items that have a label in common; above it, a random ranking is nearly right, too."""
    near_distance: int = NEAR_DISTANCE
    """Bits out of 64 in which the perceptual hashes of near-identical images may differ."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One figure and its verdict."""

    name: str
    value: float
    limit: float
    """The largest value that is ok."""
    verdict: Verdict
    explanation: str
    """What the value is, and the remedy."""
    examples: Sequence[str]
    """The first few items or labels."""


def judge(
    name: str,
    value: float,
    limit: float,
    explanation: str,
    *,
    examples: Iterable[str] = (),
    above: Verdict = "failed",
) -> Finding:
    """Hold a value against its limit.

    Args:
        name: of the finding.
        value: what was found.
        limit: the largest value that is ok.
        explanation: what the value is, and the remedy.
        examples: the first few of them are kept.
        above: the verdict on values above the limit.
    """
    return Finding(
        name=name,
        value=value,
        limit=limit,
        verdict=above if value > limit else "ok",
        explanation=explanation,
        examples=tuple(islice(examples, NUM_EXAMPLES)),
    )


def has_failed(findings: Iterable[Finding]) -> bool:
    """Whether some value is above a limit that must hold."""
    return any(finding.verdict == "failed" for finding in findings)

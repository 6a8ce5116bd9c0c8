"""Whether a new version of data may be trained on, by the findings of its check against the champion's data."""

from collections.abc import Sequence

from dagnn_core.data_check.findings import Finding
from dagnn_core.errors import CheckFailedError
from dagnn_core.text import name_first

SHARED = "shared_"
"""What the names of findings begin with about items that both have: a version that adds items keeps the old ones."""
DRIFT = {
    *("unseen_labels", "unseen_words", "label_shift", "text_length_shift"),
    *("image_brightness_shift", "image_vector_shift", "text_vector_shift"),
}
"""Names of findings that the new data differs from the old."""


def require_fit(findings: Sequence[Finding], *, what: str, accept_drift: bool) -> list[Finding]:
    """See that data may be trained on.

    Args:
        findings: of its check, against the champion's data where there is a champion.
        what: the data, for the message.
        accept_drift: train although it differs from the champion's.

    Returns:
        The differences that were accepted.

    Raises:
        CheckFailedError: a check failed.
    """
    failed = [found for found in findings if found.verdict == "failed" and not found.name.startswith(SHARED)]
    drifted = [found for found in failed if found.name in DRIFT]
    refused = [found for found in failed if not (accept_drift and found in drifted)]
    if refused:
        remedy = "look at the data" + (", and accept that it differs with --accept-drift" if refused == drifted else "")
        raise CheckFailedError(f"{what} fails its check, so nothing is trained: {describe(refused)}", remedy)
    return drifted


def describe(findings: Sequence[Finding]) -> str:
    """Findings on one line: names, values, limits."""
    words = [f"{found.name} {found.value:.4g} against {found.limit:.4g}, {found.explanation}" for found in findings]
    return name_first(words)

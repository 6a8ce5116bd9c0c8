"""Check a data set: no step of the chain, but what decides whether to start it."""

from pathlib import Path

from dagnn_core.artifacts import read_artifact
from dagnn_core.data.dataset import KIND
from dagnn_core.data_check.check import check_dataset
from dagnn_core.data_check.findings import Finding, Limits


def run(*, dataset: Path, against: Path | None, limits: Limits) -> list[Finding]:
    """Check the data set in a folder.

    Args:
        dataset: its folder.
        against: folder of another data set to compare it with.
        limits: from where on a finding fails.

    Raises:
        InputError: one of them is no data set, or is damaged.
    """
    other = read_artifact(against, KIND, verify=True) if against else None
    return check_dataset(read_artifact(dataset, KIND, verify=True), limits, against=other)

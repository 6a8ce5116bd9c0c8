"""All checks of a data set, one after the other."""

from collections.abc import Iterator

import numpy as np

from dagnn_core.artifacts import Artifact
from dagnn_core.data.dataset import Dataset
from dagnn_core.data_check.against import check_against
from dagnn_core.data_check.findings import Finding, Limits, has_failed, judge
from dagnn_core.data_check.schema import REMEDY, check_schema, check_vectors
from dagnn_core.data_check.splits import check_splits
from dagnn_core.data_check.traits import ImageTraits, read_traits
from dagnn_core.errors import InputError


def check_dataset(artifact: Artifact, limits: Limits, *, against: Artifact | None = None) -> list[Finding]:
    """Check a data set, and compare it with another one.

    Args:
        artifact: the data set.
        limits: values above which a finding fails.
        against: another data set, such as the one that the model in use was trained on.

    Returns:
        Findings in the order of the checks; where the schema has failed, its findings alone.

    Raises:
        InputError: the schema of `against` fails.
    """
    findings = check_schema(artifact)
    if has_failed(findings):
        return findings
    dataset = Dataset.of(artifact)
    traits = read_traits(dataset, "reading images")
    findings += check_vectors(dataset)
    findings += _check_images(dataset, traits)
    findings += check_splits(dataset, traits, limits)
    if against is not None:
        failed = [finding for finding in check_schema(against) if finding.verdict == "failed"]
        if failed:
            raise InputError(
                f"{against.path}: {failed[0].name}: {', '.join(failed[0].examples)}; expected a sound data set to "
                f"compare with",
                REMEDY,
            )
        other = Dataset.of(against)
        findings += check_against(dataset, traits, other, read_traits(other, "reading the other's images"), limits)
    return findings


def _check_images(dataset: Dataset, traits: ImageTraits) -> Iterator[Finding]:
    has_vectors = dataset.vectors("image") is not None
    wrong = (
        traits.has_encoded_image & ~dataset.has_image if has_vectors else traits.has_encoded_image != dataset.has_image
    )
    yield judge(
        "image_flag_faults",
        int(wrong.sum()),
        0,
        f"items whose has_image does not say whether they have an image; {REMEDY}",
        examples=[dataset.ids[row] for row in np.flatnonzero(wrong)],
    )
    broken = np.flatnonzero(traits.has_encoded_image & ~traits.decodes)
    yield judge(
        "undecodable_images",
        len(broken),
        0,
        "images that cannot be decoded; import the data again, which leaves them out",
        examples=[dataset.ids[row] for row in broken],
    )

"""The data set that a version was made from: the one named, the project's own, one fetched before, or by DVC."""

import logging
import weakref
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from components.locations import DATASET, FETCHED
from components.services.data_versions.repository import fetch_by_dvc, resolve
from dagnn_core.artifacts import Artifact, read_artifact
from dagnn_core.data.dataset import KIND, Dataset
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.locks import folder_in_use

log = logging.getLogger(__name__)


def find_dataset(model: Artifact, label: str, *, named: Path | None, commit: str | None) -> Dataset:
    """Open the data set that a version was made from.

    Args:
        model: the version's model.
        label: what messages call the version.
        named: the data set that the user gives; None: it is looked for.
        commit: the one whose `dvc.lock` lists the model, so that DVC can fetch what it was made from; None: none does.

    Raises:
        InputError: the one named is another, or it is nowhere to be had.
    """
    digest = dataset_digest(model)
    if named is not None:
        data = Dataset.read(named, verify=True)
        if data.artifact.content_digest != digest:
            raise InputError(
                f"{named} is not the data set that {label} was made from (digest {data.artifact.content_digest[:12]}, "
                f"expected {digest[:12]})",
                "give that one as --dataset",
            )
        return data
    fetched = FETCHED / digest
    for folder, read in ((DATASET, partial(Dataset.read, verify=True)), (fetched, read_fetched)):
        try:
            if read_artifact(folder, KIND).content_digest == digest:
                return read(folder)
        except ArtifactError:
            continue  # it is to be fetched, then
    if commit is None:
        raise InputError(
            f"{DATASET} is not the data set that {label} was made from (digest {digest[:12]}), and no commit here has "
            "a dvc.lock that lists the model, so that DVC could fetch it",
            "give its folder as --dataset, or promote it with --target on the cluster that trained it",
        )
    log.info("%s: fetching its data set, as of commit %s", label, commit[:12])
    try:
        with folder_in_use(FETCHED):
            fetch_by_dvc(".", resolve(".", commit, str(DATASET)).lineage, fetched)
            data = read_fetched(fetched)
    except InputError as error:
        raise InputError(f"the data set of {label}: {error}", "or give its folder as --dataset") from error
    if data.artifact.content_digest != digest:
        raise InputError(f"{DATASET} of commit {commit[:12]} is not the data set of {label}", "give it as --dataset")
    return data


def read_fetched(folder: Path) -> Dataset:
    """Open a data set in `FETCHED`, which nobody removes as long as it is open.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    with ExitStack() as use:
        use.enter_context(folder_in_use(FETCHED))
        data = Dataset.read(folder, verify=True)
        weakref.finalize(data, use.pop_all().close)
    return data


def dataset_digest(model: Artifact) -> str:
    """Content digest of the data set that a model was made from; `none` where it does not say."""
    return model.provenance.get("ancestors", {}).get("dataset") or "none"

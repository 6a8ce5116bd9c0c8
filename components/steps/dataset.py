"""Step `dataset`: raw data becomes a data set in Parquet shards."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from components.command import ParamsOption, WorkOption, run_step
from components.locations import WORK
from components.params import load_section
from components.services.data_versions.raw_version import raw_lineage
from components.services.lineage.provenance import provenance
from components.services.lineage.resources import record_use
from dagnn_core.artifacts import read_artifact, write_artifact
from dagnn_core.config.dataset import DatasetConfig
from dagnn_core.data.dataset import KIND, Dataset
from dagnn_core.data.ingest.build import write_dataset
from dagnn_core.data.ingest.work import images_digest
from dagnn_core.data.layouts import open_layout
from dagnn_core.reports.data_card.card import write_card
from dagnn_core.work import work_folder

log = logging.getLogger(__name__)


def run(
    *,
    params: DatasetConfig,
    work: Path,
    dataset_out: Path,
    source: Path | None = None,
    uris: Mapping[str, str] | None = None,
) -> str:
    """Read the raw data of one layout, quarantine unusable rows, split, and write the data set.

    An interrupted run leaves what it has done below `work`, and the next one resumes there.

    Args:
        params: which raw data, and how it is split.
        work: folder for unfinished work, one folder for each set of images.
        dataset_out: where the data set goes.
        source: where the raw data is, if not where `params` says.
        uris: where a pipeline run stores `dataset` and `raw`, for the record.

    Returns:
        The content digest of the data set.

    Raises:
        InputError: a file, column, row or label is wrong, or too many rows are.
        BackendError: another import of the same images is running.
    """
    source = source or Path(params.source)
    raw = open_layout(source, params)
    record = provenance("dataset", params, raw=raw_lineage(source), uris=uris)
    with (
        work_folder(
            work / images_digest(raw, record["packages"]), busy="another import of the same images is running"
        ) as unfinished,
        write_artifact(dataset_out, kind=KIND, provenance=record) as draft,
    ):
        draft.content = write_dataset(draft.path, raw, params, work=unfinished) | {"layout": params.layout}
        write_card(Dataset.of(draft.so_far(KIND)))
        record_use(record)
    content = draft.content
    splits = ", ".join(f"{size} {split}" for split, size in content["splits"].items())
    log.info(
        "data set: %s items%s, %d labels: %s",
        *(splits, _incomplete(content["modalities"]), len(content["label_names"]), dataset_out),
    )
    if content["rejected"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in content["rejected"].items())
        listing = dataset_out / "rejected.parquet"
        log.warning(
            "rejected %d of %d rows (%s): %s", raw.num_rows - content["num_items"], raw.num_rows, reasons, listing
        )
    return read_artifact(dataset_out, KIND).content_digest


def _incomplete(modalities: Mapping[str, int]) -> str:
    counts = ", ".join(f"{count} {name.replace('_', '-')}" for name, count in modalities.items())
    return "" if modalities["complete"] == sum(modalities.values()) else f" ({counts})"


if __name__ == "__main__":

    def main(
        dataset_out: Annotated[Path, typer.Option(help="Folder for the data set.")],
        params: ParamsOption = "params.yaml",
        work: WorkOption = WORK,
    ) -> None:
        """Read raw data, check it, split it, and write the data set."""
        run(params=load_section(params, DatasetConfig), work=work, dataset_out=dataset_out)

    run_step(main)

"""Step `dataset`: raw data becomes a data set in Parquet shards."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from components.command import ParamsOption, run_step
from components.params import load_section, load_spec
from components.services.provenance import provenance
from dagnn_core.artifacts import write_artifact
from dagnn_core.card.card import write_card
from dagnn_core.config import DatasetConfig
from dagnn_core.data.dataset import KIND, Dataset
from dagnn_core.data.demo import DemoSpec
from dagnn_core.data.demo_source import open_demo
from dagnn_core.data.folder import open_folder
from dagnn_core.data.ingest import write_dataset

log = logging.getLogger(__name__)


def run(*, params: DatasetConfig, dataset_out: Path) -> None:
    """Read the raw data of one layout, quarantine unusable rows, split, and write the data set.

    Args:
        params: which raw data, and how it is split.
        dataset_out: where the data set goes.

    Raises:
        InputError: a file, column, row or label is wrong, or too many rows are.
    """
    source = Path(params.source)
    if params.layout == "folder":
        raw = open_folder(source, params.folder, keep_incomplete=params.incomplete == "keep")
    else:
        raw = open_demo(load_spec(source, DemoSpec))
    with write_artifact(dataset_out, kind=KIND, provenance=provenance("dataset", params)) as draft:
        draft.content = write_dataset(draft.path, raw, params) | {"layout": params.layout}
        write_card(Dataset.of(draft.so_far(KIND)))
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


def _incomplete(modalities: Mapping[str, int]) -> str:
    counts = ", ".join(f"{count} {name.replace('_', '-')}" for name, count in modalities.items())
    return "" if modalities["complete"] == sum(modalities.values()) else f" ({counts})"


if __name__ == "__main__":

    def main(
        dataset_out: Annotated[Path, typer.Option(help="Folder for the data set.")],
        params: ParamsOption = "params.yaml",
    ) -> None:
        """Read raw data, check it, split it, and write the data set."""
        run(params=load_section(params, DatasetConfig), dataset_out=dataset_out)

    run_step(main)

"""Step `build_label_graph`: how labels occur together in the training split, as a graph with node vectors."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from components.command import ParamsOption, run_step
from components.params import load_section
from components.services.lineage.provenance import provenance
from components.services.lineage.resources import record_use
from dagnn_core.artifacts import write_artifact
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.label_graph.build import write_label_graph
from dagnn_core.label_graph.label_graph import DRAWING, KIND

log = logging.getLogger(__name__)


def run(*, dataset: Path, params: LabelGraphConfig, label_graph_out: Path, uri: str = "") -> None:
    """Build the label graph from the data set alone: another encoder does not change it.

    Args:
        dataset: the `dataset` artifact.
        params: threshold, weights and node vectors.
        label_graph_out: where the `label_graph` artifact goes.
        uri: where a pipeline run stores it, for the record.

    Raises:
        InputError: the data set is missing or damaged, or a label has no training item or no vector.
    """
    source = Dataset.read(dataset, verify=True)
    record = provenance("build_label_graph", params, parents=[source.artifact], uris={KIND: uri})
    with write_artifact(label_graph_out, kind=KIND, provenance=record) as draft:
        write_label_graph(draft, source, params)
        record_use(record)
    log.info(
        "%s: %d labels, %d edges from %d training items; look at %s",
        label_graph_out,
        len(draft.content["label_names"]),
        draft.content["num_edges"],
        draft.content["num_items"],
        label_graph_out / DRAWING,
    )


if __name__ == "__main__":

    def main(
        dataset: Annotated[Path, typer.Option(help="dataset artifact")],
        label_graph_out: Annotated[Path, typer.Option(help="where the label_graph artifact goes")],
        params: ParamsOption = "params.yaml",
    ) -> None:
        """Build the label graph."""
        run(dataset=dataset, params=load_section(params, LabelGraphConfig), label_graph_out=label_graph_out)

    run_step(main)

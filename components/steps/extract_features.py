"""Step `extract_features`: images and texts become feature vectors."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from components.command import ParamsOption, run_step
from components.locations import CACHE
from components.params import load_section
from components.services.lineage.provenance import provenance
from components.services.lineage.resources import record_use
from dagnn_core.artifacts import read_artifact, write_artifact
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.data.dataset import Dataset, ImageNotHereError
from dagnn_core.errors import InputError
from dagnn_core.features.extraction.extract import write_features
from dagnn_core.features.extraction.vector_cache import adopt_shards
from dagnn_core.features.features import KIND, SHARD_KIND
from dagnn_core.locks import folder_in_use

log = logging.getLogger(__name__)


def run(
    *,
    dataset: Path | Dataset,
    params: FeaturesConfig,
    cache: Path,
    features_out: Path,
    shards: Sequence[Path] = (),
    uri: str = "",
) -> None:
    """Fit both encoders on the training split, and encode all items.

    An interrupted run resumes from the vectors below `cache`, and a later one takes from there what it shares.

    Args:
        dataset: the `dataset` artifact, or one that is opened and checked already; if its images are not here, `shards`
            must have the vectors of all of them.
        params: which encoders.
        cache: folder for vectors of images and texts; it may be deleted between runs.
        features_out: where the `features` artifact goes.
        shards: `feature_shard` artifacts, whose vectors are not computed again.
        uri: where a pipeline run stores it, for the record.

    Raises:
        InputError: the data set is missing or damaged, or does not have what the encoders need; `shards` lack vectors
            of images that are not here.
        BackendError: memory ran out, or a process that decodes images died.
    """
    source = dataset if isinstance(dataset, Dataset) else Dataset.read(dataset, verify=True)
    record = provenance("extract_features", params, parents=[source.artifact], uris={KIND: uri})
    with folder_in_use(cache), write_artifact(features_out, kind=KIND, provenance=record) as draft:
        for shard in shards:
            adopt_shards(cache, read_artifact(shard, SHARD_KIND, verify=True).path)
        try:
            draft.content = write_features(draft.path, source, params, cache=cache)
        except ImageNotHereError as error:
            raise InputError(
                f"features.shards is {params.shards}, but the vectors of {len(shards)} parts do not cover all images "
                f"({error.what})",
                "leave features.shards as the pipeline was compiled, or submit with the new value; where it is the "
                "same, submit with --no-cache",
            ) from error
        record_use(record)
    image, text = draft.content["image"], draft.content["text"]
    log.info(
        "features of %d items: image %s [%d], text %s [%d]: %s",
        *(draft.content["num_items"], image["kind"], image["dim"], text["kind"], text["dim"], features_out),
    )
    for modality in ("image", "text"):
        counts = draft.content[modality]["num_zero_vectors"]
        if any(counts.values()):
            log.info(
                "%s vectors without any value: %s", modality, ", ".join(f"{n} {split}" for split, n in counts.items())
            )


if __name__ == "__main__":

    def main(
        dataset: Annotated[Path, typer.Option(help="dataset artifact")],
        features_out: Annotated[Path, typer.Option(help="where the features artifact goes")],
        params: ParamsOption = "params.yaml",
        cache: Annotated[Path, typer.Option(help="folder for vectors that later runs use again")] = CACHE,
    ) -> None:
        """Extract features."""
        run(dataset=dataset, params=load_section(params, FeaturesConfig), cache=cache, features_out=features_out)

    run_step(main)

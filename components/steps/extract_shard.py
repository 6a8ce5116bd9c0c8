"""Step `extract_shard`: a part of the images and texts becomes vectors, for `extract_features` to take over.

Only a Kubeflow run whose `features.shards` is above 1 has it.
"""

import logging
from pathlib import Path

from components.services.lineage.provenance import provenance
from components.services.lineage.resources import record_use
from components.services.storage.datasets import StoredDataset, open_dataset
from dagnn_core.artifacts import write_artifact
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.features.extraction.extract import extract_part
from dagnn_core.features.extraction.vector_cache import Part
from dagnn_core.features.features import SHARD_KIND

log = logging.getLogger(__name__)


def run(*, dataset: Path | StoredDataset, params: FeaturesConfig, index: int, shard_out: Path) -> None:
    """Compute one part of the vectors.

    Args:
        dataset: the `dataset` artifact, or where it is stored: then only the data files that the part's items lie in
            are fetched, and of the others the columns but the images are read.
        params: which encoders, and into how many parts the items are cut.
        index: which part, from 0 on.
        shard_out: where the `feature_shard` artifact goes: a folder of caches.

    Raises:
        InputError: the data set is missing or damaged, or does not have what the encoders need.
        BackendError: memory ran out, a process that decodes images died, or the store fails.
    """
    part = Part(index, params.shards)
    with open_dataset(dataset, images=part.rows) as source:
        record = provenance("extract_shard", params, parents=[source.artifact])
        with write_artifact(shard_out, kind=SHARD_KIND, provenance=record) as draft:
            extract_part(source, params, part, cache=draft.path)
            record_use(record)
    log.info("part %d of %d: %s", index + 1, params.shards, shard_out)

"""What a version names of its origin, as former code registered it and as the present one does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.services.promotion.evidence import _origin
from components.services.tracking.mlflow import Tracking
from components.services.tracking.tags import Lineage
from dagnn_core.artifacts import read_artifact

ANCESTORS = {"dataset": "d" * 64, "features": "f" * 64, "label_graph": "9" * 64}
GIT = {"commit": "c0ffee" * 6 + "c0de", "dirty": False, "changed": []}


@pytest.mark.parametrize(
    ("sections", "missing"),
    [
        (("model", "train"), []),
        (("ModelConfig", "TrainConfig"), []),
        (("ModelConfig",), ["train"]),
        ((), ["model", "train"]),
    ],
)
def test_sections_that_a_manifest_names(
    tracking: Tracking,
    store_version: Callable[..., str],
    files_of: Callable[..., Path],
    sections: tuple[str, ...],
    missing: list[str],
) -> None:
    provenance: dict[str, Any] = {
        "params": {section: {"seed": 103} for section in sections},
        "ancestors": ANCESTORS,
        "origins": {"dataset": {"params": {"DatasetConfig": {}}, "git": GIT}},
        "git": GIT,
    }
    tags = Lineage(digests=ANCESTORS | {"report": "e" * 64}, git=GIT).tags()
    number = store_version(tracking, provenance=provenance, **tags)
    model = read_artifact(files_of(tracking, number) / "artifacts" / "model", "model")
    run_id = tracking.client.get_model_version("dagnn", number).run_id
    tracking.client.set_model_version_tag("dagnn", number, "mlflow_run_id", run_id)
    origin = _origin(tracking.client.get_model_version("dagnn", number), model, GIT["commit"])
    assert (origin.missing, origin.uncommitted) == (missing, [])

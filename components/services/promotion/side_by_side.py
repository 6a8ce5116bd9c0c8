"""Challenger and champion on one test split after the other: that of new data, and that of the champion's data."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.services.promotion.rescoring import compare, rows_of_test, score
from dagnn_core.config.register import GateConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.errors import InputError
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.retrieval.directions import DIRECTIONS, MAP_METRICS

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class SideBySide:
    """Two models on one test split."""

    data: str
    """Which split it is, for readers."""
    num_items: int
    challenger: Mapping[str, float]
    """MAP by direction, and its mean."""
    champion: Mapping[str, float]
    """The same; empty where there is no champion, or it cannot encode these data."""
    differences: Mapping[str, Mapping[str, float]]
    """Of MAP by direction, challenger minus champion: `mean`, and the bounds `low` and `high`."""
    fault: str = ""
    """Why the champion could not be measured."""


def measure(
    data: str, dataset: Dataset, challenger: TrainedModel, champion: TrainedModel | None, config: GateConfig
) -> SideBySide:
    """Measure two models on a test split, encoded again.

    Args:
        data: which split it is, for readers.
        dataset: has the split.
        challenger: the new model.
        champion: the model in use; None: there is none.
        config: how to compare.

    Raises:
        InputError: the challenger cannot encode these data.
    """
    log.info("%s: measuring the challenger", data)
    new = score(challenger, dataset, name="the challenger")
    values: dict[str, Any] = {"champion": {}, "differences": {}}
    if champion is not None:
        log.info("%s: measuring the champion", data)
        try:
            old = score(champion, dataset, name="the champion")
            found = compare(new, old, dataset, config).directions
            values["champion"] = {name: old.metrics[name] for name in MAP_METRICS}
            values["differences"] = {direction: found[direction]._asdict() for direction in DIRECTIONS}
        except InputError as error:
            values["fault"] = str(error)
    return SideBySide(
        data=data,
        num_items=len(rows_of_test(dataset)),
        challenger={name: new.metrics[name] for name in MAP_METRICS},
        **values,
    )


def measure_on_both(
    new: Dataset, old: Dataset | None, challenger: TrainedModel, champion: TrainedModel | None, config: GateConfig
) -> list[SideBySide]:
    """Measure two models on the test split of new data and, where it is another one, on that of the champion's data.

    Args:
        new: the data that the challenger was trained on.
        old: the data that the champion was trained on; None: it is not at hand.
        challenger: the new model.
        champion: the model in use; None: there is none.
        config: how to compare.

    Raises:
        InputError: the challenger cannot encode the data.
    """
    compared = [measure("new data", new, challenger, champion, config)]
    if champion is not None and old is not None and old.artifact.content_digest != new.artifact.content_digest:
        if moved := moved_items(new, old):
            log.warning(
                "%d test items of the champion's data are in training or validation by now, such as %s: on that split "
                "the challenger is measured too well",
                len(moved),
                moved[0],
            )
        compared.append(measure("champion's data", old, challenger, champion, config))
    return compared


def moved_items(new: Dataset, old: Dataset) -> list[str]:
    """Ids of test items of the old data that the new data trains on: there, the challenger is measured too well."""
    trained = {new.ids[row] for row in np.flatnonzero(new.splits != "test")}
    return [old.ids[row] for row in rows_of_test(old) if old.ids[row] in trained]

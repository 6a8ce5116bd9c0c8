"""All sections of `params.yaml`, by name."""

from collections.abc import Mapping
from typing import Any

from dagnn_core.config.dataset import DatasetConfig
from dagnn_core.config.evaluate import EvaluateConfig
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.register import RegisterConfig
from dagnn_core.config.section import parse_section
from dagnn_core.config.train import TrainConfig
from dagnn_core.errors import InputError

_KINDS = (DatasetConfig, FeaturesConfig, LabelGraphConfig, ModelConfig, TrainConfig, EvaluateConfig, RegisterConfig)
SECTIONS: dict[str, type[Any]] = {kind.NAME: kind for kind in _KINDS}
"""Section of `params.yaml` -> its class."""


def parse_params(values: object) -> dict[str, Any]:
    """Build every section of a whole `params.yaml`.

    Raises:
        InputError: as `parse_section`, or an unknown section.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"expected a mapping of sections, got {values!r}")
    unknown = sorted(set(map(str, values)) - set(SECTIONS))
    if unknown:
        raise InputError(f"unknown section {unknown[0]!r}; valid sections: {', '.join(SECTIONS)}")
    return {name: parse_section(section, values.get(name, {}), name) for name, section in SECTIONS.items()}

"""All sections of `params.yaml`, by name."""

from typing import Any

from dagnn_core.config.dataset import DatasetConfig
from dagnn_core.config.evaluate import EvaluateConfig
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.register import RegisterConfig
from dagnn_core.config.section import json_schema, parse_section, sections_of
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
    given = sections_of(values)
    unknown = sorted(set(given) - set(SECTIONS))
    if unknown:
        raise InputError(f"unknown section {unknown[0]!r}", f"valid sections: {', '.join(SECTIONS)}")
    return {name: parse_section(section, given.get(name, {}), name) for name, section in SECTIONS.items()}


def params_schema() -> dict[str, Any]:
    """JSON schema of a whole `params.yaml`, for editors: names, types, bounds, defaults and descriptions.

    What concerns several keys, or the implementation behind an import path, is checked by `parse_params` alone.
    """
    definitions: dict[str, Any] = {}
    properties = {}
    for name, kind in SECTIONS.items():
        schema = json_schema(kind)
        definitions |= schema.pop("$defs", {})
        properties[name] = schema
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "params.yaml",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "$defs": definitions,
    }

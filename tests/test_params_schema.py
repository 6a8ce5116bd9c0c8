"""The JSON schema of `params.yaml`: up to date, true of every shipped configuration, and found by editors."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from dagnn_core.config.sections import SECTIONS, params_schema, parse_params
from dagnn_core.errors import InputError

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "params.schema.json"
LANGUAGE_SERVER = "# yaml-language-server: $schema="


@cache
def read(path: Path) -> Any:
    return YAML(typ="safe").load(path)


CONFIGURATIONS = [
    path
    for path in [ROOT / "params.yaml", *sorted(ROOT.glob("configs/**/*.yaml"))]
    if set(read(path)) & set(SECTIONS) and path.parent not in (ROOT / "configs/clusters", ROOT / "configs/tune")
]
COMPLETE = [path for path in CONFIGURATIONS if set(read(path)) == set(SECTIONS)]


def mistakes(values: object) -> list[str]:
    return [error.json_path for error in Draft202012Validator(json.loads(SCHEMA.read_text())).iter_errors(values)]


def test_the_committed_schema_is_the_generated_one() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == params_schema(), (
        "run: dagnn params schema > params.schema.json"
    )


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(params_schema())


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shipped_configuration_is_valid(path: Path) -> None:
    assert mistakes(read(path)) == []


@pytest.mark.parametrize("path", COMPLETE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_first_line_of_a_complete_configuration_names_the_schema(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(LANGUAGE_SERVER)
    assert (path.parent / first.removeprefix(LANGUAGE_SERVER)).resolve() == SCHEMA


def test_there_are_complete_configurations_and_variants() -> None:
    assert len(COMPLETE) >= 6
    assert len(CONFIGURATIONS) > len(COMPLETE) + 20


@pytest.mark.parametrize(
    ("section", "values", "place"),
    [
        ("train", {"lr": "fast"}, "$.train.lr"),
        ("train", {"epochs": 0}, "$.train.epochs"),
        ("train", {"epoch": 3}, "$.train"),
        ("features", {"image": "classical"}, "$.features.image"),
        ("dataset", {"folder": {"tables": "a.csv"}}, "$.dataset.folder"),
        ("trane", {}, "$"),
    ],
)
def test_what_the_parser_refuses_the_schema_refuses(section: str, values: dict[str, object], place: str) -> None:
    with pytest.raises(InputError):
        parse_params({section: values})
    assert mistakes({section: values}) == [place]


def test_an_import_path_is_an_encoder() -> None:
    assert mistakes({"features": {"text": "my_package.encoders:Encoder"}}) == []

"""What docs/model.md says of the configuration is true, and what the documents point to exists."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints
from xml.etree import ElementTree

import pytest
import torch
from ruamel.yaml import YAML

from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import parse_section
from dagnn_core.config.sections import SECTIONS
from dagnn_core.config.train import TrainConfig
from dagnn_core.model.kinds import build_network
from dagnn_core.nn.label_graphs import GraphTensors

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODEL_PAGE = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
PUBLISHED_SIZES = {"image_dim": 4096, "text_dim": 300}


def named_keys(text: str) -> list[tuple[str, str, str]]:
    """`section.key` or `section.key: value` in backticks: section, key, value or the empty text."""
    return re.findall(rf"`({'|'.join(SECTIONS)})\.(\w+)(?:: ([^`]+))?`", text)


def test_keys_and_values_exist() -> None:
    found = named_keys(MODEL_PAGE)
    assert len(found) > 50
    for section, key, value in found:
        hints = get_type_hints(SECTIONS[section])
        assert key in hints, f"{section}.{key}"
        if value and get_origin(hints[key]) is Literal:
            assert value in get_args(hints[key]), f"{section}.{key}: {value}"
        elif value:
            parse_section(SECTIONS[section], {key: YAML(typ="safe").load(value)}, section)


def test_table_of_presets_is_complete() -> None:
    table = re.findall(r"^\| `(model|train)\.(\w+)` \| (\S+) \| (\S+) \|$", MODEL_PAGE, flags=re.MULTILINE)
    yaml = YAML(typ="safe")
    stated = {(section, key): (yaml.load(one), yaml.load(other)) for section, key, one, other in table}
    actual = {}
    for section, kind in (("model", ModelConfig), ("train", TrainConfig)):
        one, other = (parse_section(kind, {"preset": preset}, section) for preset in ("aaai21", "tpami22"))
        for key in (field.name for field in fields(kind) if field.name != "preset"):
            if getattr(one, key) != getattr(other, key):
                actual[section, key] = getattr(one, key), getattr(other, key)
    assert stated == actual


@pytest.mark.parametrize("preset", ["aaai21", "tpami22"])
def test_number_of_parameters(preset: str) -> None:
    with torch.device("meta"):  # shapes alone
        labels = torch.empty(24, 24)
        graph = GraphTensors(torch.empty(24, 300), labels, labels, threshold=0.4)
        network = build_network(parse_section(ModelConfig, {"preset": preset}, "model"), **PUBLISHED_SIZES, graph=graph)
    stated = re.search(rf"`{preset}` (?:has )?([\d,]+)(?: parameters)?", MODEL_PAGE.partition("With these sizes")[2])
    assert stated is not None
    assert sum(parameter.numel() for parameter in network.parameters()) == int(stated[1].replace(",", ""))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_points_to_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    missing = [link for link in links if not (document.parent / link).exists()]
    paths = re.findall(r"`((?:components|configs|dagnn_core|docs|tests)/[\w./-]*)`", text)
    assert missing + [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("picture", sorted(ROOT.glob("docs/images/*.svg")), ids=lambda path: path.name)
def test_drawings_are_well_formed(picture: Path) -> None:
    root = ElementTree.parse(picture).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.find("{http://www.w3.org/2000/svg}title") is not None

"""What the documents say of configuration, commands and files is true; the site builds without a warning."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints
from xml.etree import ElementTree

import pytest
import torch
import typer
from ruamel.yaml import YAML

from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import parse_section
from dagnn_core.config.sections import SECTIONS
from dagnn_core.config.train import TrainConfig
from dagnn_core.model.kinds import build_network
from dagnn_core.nn.label_graphs import GraphTensors
from pipeline.cli.main import app
from tests.fixtures.documents import read_blocks

ROOT = Path(__file__).parents[1]
FRONT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCUMENTS = [*FRONT, *sorted((ROOT / "docs").glob("*.md"))]
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
    folders = "components|configs|dagnn_core|docs|examples|infra|pipeline|tests"
    spans = re.findall(r"`([^`\n]+)`", text)
    paths = {path for span in spans for path in re.findall(rf"(?:^| )((?:{folders})/[\w./-]*)(?= |$)", span)}
    written = {block.path for block in read_blocks(document) if block.language == "python"} | {"infra/images.json"}
    assert missing + [path for path in sorted(paths - written) if not (ROOT / path).exists()] == []


def documented_commands(document: Path) -> list[list[str]]:
    """Every `dagnn ...` in the shell blocks of a document, as words."""
    code = "\n".join(block.code for block in read_blocks(document) if block.language == "bash")
    lines = re.findall(
        r"(?:^|&& |\|\| )(dagnn .+?)(?: && .*| \|\| .*)?$", code.replace("\\\n", " "), flags=re.MULTILINE
    )
    lines += re.findall(r"`(dagnn [^`]+)`", document.read_text(encoding="utf-8"))
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documented_commands_and_options_exist(document: Path) -> None:
    for words in documented_commands(document):
        command: Any = typer.main.get_command(app)
        rest = words[1:]
        while rest and hasattr(command, "commands") and rest[0] in command.commands:
            command, *rest = command.commands[rest[0]], *rest[1:]
        assert not hasattr(command, "commands") or not rest or rest[0] in ("--help", "COMMAND"), words
        options = {option for entry in command.params for option in entry.opts} | {"--help", "--debug"}
        assert {word.partition("=")[0] for word in rest if word.startswith("--") and word != "--"} <= options, words


def test_documented_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {
        name for path in DOCUMENTS for name in re.findall(r"(?:`|^)make ([a-z-]+)", path.read_text(), re.MULTILINE)
    }
    assert named
    assert named <= targets


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_hooks_of_pre_commit_are_make_lint() -> None:
    recipe = re.search(r"^lint:.*\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert recipe is not None
    hooks = YAML(typ="safe").load(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]
    assert [hook["entry"].removeprefix(".venv/bin/") for hook in hooks] == re.findall(r"@(.+)", recipe[1])


@pytest.mark.slow
def test_the_site_builds_strictly_and_asks_no_other_server(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (tmp_path / "site").glob("*.html")}
    assert set(pages) >= {"index", "quickstart", "cli", "configuration", "library", "contributing", "changelog"}
    for page in pages.values():
        assert re.findall(r"<(?:script|img)[^>]* src=\"?(?:https?:)?//", page) == []
        assert re.findall(r"<link[^>]*rel=\"?stylesheet[^>]*href=\"?(?:https?:)?//", page) == []
    assert "dagnn data import folder" in pages["cli"]
    assert "max_slice_drop" in pages["configuration"]
    assert "encode_texts" in pages["library"]


@pytest.mark.parametrize("drawing", sorted(ROOT.glob("docs/images/*.svg")), ids=lambda path: path.name)
def test_drawings_are_well_formed(drawing: Path) -> None:
    root = ElementTree.parse(drawing).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.find("{http://www.w3.org/2000/svg}title") is not None

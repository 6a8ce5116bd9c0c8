"""MkDocs hook: reference pages made from the code, and pages of the repository's root.

A page asks for a reference with `<!-- generated: cli -->` or `<!-- generated: configuration -->`; on a git host, which
runs no hooks, it keeps its own words.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from dagnn_core.config.section import json_schema
from dagnn_core.config.sections import SECTIONS
from pipeline.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages of the repository's root -> their names in the site."""
MARKER = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root; their links lead to pages of the site."""
    for source, page in ROOT_PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text.replace("](docs/", "](")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the references, and lead links to the root's pages to their place in the site."""
    for source, target in ROOT_PAGES.items():
        markdown = markdown.replace(f"](../{source}", f"]({target}")
    return MARKER.sub(lambda match: "\n".join(REFERENCES[match[1]]()), markdown)


def cli_reference() -> Iterator[str]:
    """One section for each command, groups before their commands."""
    yield from _commands(typer.main.get_command(app), ["dagnn"])


def _commands(command: Any, path: list[str]) -> Iterator[str]:
    children = getattr(command, "commands", {})
    if len(path) > 1 and not children:
        yield from _command(command, path)
    for name, child in children.items():
        if not child.hidden:
            yield from _commands(child, [*path, name])


def _command(command: Any, path: list[str]) -> Iterator[str]:
    context = command.make_context(path[-1], [], resilient_parsing=True)
    records = [record for entry in command.params if (record := entry.get_help_record(context))]
    yield from (f"## {' '.join(path)}", "")
    yield from ("```", " ".join([*path, *command.collect_usage_pieces(context)]), "```", "")
    yield from (_prose(command.help or ""), "")
    if records:
        yield from ("| argument or option | |", "|---|---|")
        yield from (f"| `{_cell(name)}` | {_cell(text)} |" for name, text in records)
        yield ""


def _prose(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.replace("\b", "").split("\n\n"))


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def configuration_reference() -> Iterator[str]:
    """One section for each section of `params.yaml`, and one for each section inside it."""
    for name, kind in SECTIONS.items():
        schema = json_schema(kind)
        yield from _section(name, schema, schema.get("$defs", {}), level=2)


def _section(path: str, schema: dict[str, Any], definitions: dict[str, Any], level: int) -> Iterator[str]:
    yield from (f"{'#' * level} {path}", "", _prose(schema.get("description", "")), "")
    keys = {key: entry for key, entry in schema["properties"].items() if "$ref" not in entry}
    nested = {key: entry for key, entry in schema["properties"].items() if "$ref" in entry}
    yield from ("| key | |", "|---|---|")
    for key, entry in keys.items():
        default = f"; default: {_value(entry['default'])}" if "default" in entry else ""
        yield f"| `{key}` | {_cell(entry.get('description'))}<br>*{_kind(entry)}{default}* |"
    yield ""
    for key, entry in nested.items():
        yield from _section(f"{path}.{key}", definitions[entry["$ref"].rpartition("/")[2]], definitions, level + 1)


def _kind(entry: dict[str, Any]) -> str:
    if "anyOf" in entry:  # a name in a table, or an import path
        return ", ".join(f"`{name}`" for name in entry["anyOf"][0]["enum"]) + " or `package.module:name`"
    if "enum" in entry:
        return ", ".join(f"`{name}`" for name in entry["enum"])
    kind = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false"}.get(
        entry["type"], "list of texts"
    )
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {entry[name]:g}" for name, sign in bounds.items() if name in entry]
    return " ".join([kind, ", ".join(limits)]).strip()


def _value(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return ", ".join(f"`{part}`" for part in value) or "none"
    return f"`{value}`" if value != "" else "empty"


REFERENCES = {"cli": cli_reference, "configuration": configuration_reference}

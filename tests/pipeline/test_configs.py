"""The shipped configurations: complete and valid."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from components.params import read_yaml
from components.params_file import load_params
from dagnn_core.config.sections import SECTIONS

ROOT = Path(__file__).parents[2]
CONFIGS = [ROOT / "params.yaml", *(path for path in ROOT.glob("configs/*.yaml") if "train" in read_yaml(path))]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_key_is_written_out_or_the_preset_of_its_section_is(path: Path) -> None:
    sections = load_params(path)
    written = read_yaml(path)
    assert list(written) == list(SECTIONS)
    for name, section in sections.items():
        if name in ("model", "train"):
            assert "preset" in written[name]
        else:
            assert _keys(written[name]) == _without_other_layouts(_fields(section), written[name])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_raw_data_of_the_demo_comes_with_the_project(path: Path) -> None:
    dataset = load_params(path)["dataset"]
    assert dataset.layout != "demo" or (ROOT / dataset.source).is_file()


def test_variants_of_the_quality_table_are_valid_and_say_what_they_are() -> None:
    variants = sorted(ROOT.glob("configs/quality/**/*.yaml"))
    assert len(variants) > 20
    seen = {}
    for path in variants:
        assert path.read_text().startswith("# "), path
        assert set(read_yaml(path)) <= {"model", "train"}
        sections = load_params(path)
        seen.setdefault((path.parent, sections["model"], sections["train"]), []).append(path.name)
    assert [names for names in seen.values() if len(names) > 1] == [], "the same variant twice in a table"


def _without_other_layouts(expected: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    """The keys of a section; of the nested ones those alone that are written out, and that of the file's own layout."""
    own = {*written, written.get("layout")}
    return {key: nested for key, nested in expected.items() if nested is None or key in own}


def _keys(values: Any) -> Any:
    return {key: _keys(value) for key, value in values.items()} if isinstance(values, dict) else None


def _fields(section: Any) -> Any:
    if not is_dataclass(section):
        return None
    return {entry.name: _fields(getattr(section, entry.name)) for entry in fields(section)}

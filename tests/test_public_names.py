"""`from dagnn_core import ...`: every public name is there, documented, and imported when it is first used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dagnn_core
from dagnn_core.config.section import parse_section

HOME = Path(dagnn_core.__file__)


def test_the_package_imports_nothing_heavy_before_a_name_is_used() -> None:
    program = (
        "import sys, dagnn_core; "
        "heavy = {'torch', 'numpy', 'pyarrow', 'pydantic'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules); "
        "dagnn_core.InputError; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules); "
        "dagnn_core.evaluate_retrieval; assert 'torch' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", dagnn_core.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    value = getattr(dagnn_core, name)
    assert value.__name__ == name
    assert value.__module__.startswith("dagnn_core.")
    assert value.__doc__
    assert name in dir(dagnn_core)
    assert f"`{name}`" in (dagnn_core.__doc__ or "") or f"`{name}." in (dagnn_core.__doc__ or "")


def test_editors_and_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    [block] = [node for node in ast.parse(HOME.read_text()).body if isinstance(node, ast.If)]
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {name: f"dagnn_core.{module}.{name}" for name, module in dagnn_core._MODULES.items()}
    assert HOME.with_name("py.typed").is_file()


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'dagnn_core' has no attribute 'TrainedModels'"):
        _ = dagnn_core.TrainedModels
    with pytest.raises(ImportError, match="cannot import name 'TrainedModels'"):
        from dagnn_core import TrainedModels  # noqa: F401


@pytest.mark.parametrize("section", [dagnn_core.ModelConfig, dagnn_core.TrainConfig])
@pytest.mark.parametrize("preset", ["aaai21", "tpami22", "best"])
def test_a_preset_gives_the_same_values_in_python_as_in_params_yaml(section: type, preset: str) -> None:
    assert section(preset=preset) == parse_section(section, {"preset": preset}, section.NAME)


def test_keys_that_are_given_override_the_preset() -> None:
    config = dagnn_core.ModelConfig(preset="best", hops=4)
    assert (config.hops, config.embedding_dim, config.ranking) == (4, 512, "labels")

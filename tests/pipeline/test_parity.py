"""`dvc.yaml` and the Kubeflow steps describe the same chain: the same `run`, sections and artifacts."""

import ast
import inspect
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest

from components.params import read_yaml
from dagnn_core.config.sections import SECTIONS
from pipeline.steps import STEPS

ROOT = Path(__file__).parents[2]
STAGES: dict[str, Any] = read_yaml(ROOT / "dvc.yaml")["stages"]
PACKAGES = ("dagnn_core", "components", "pipeline")
TASKS = {step.__name__: step for step in STEPS}
ARTIFACTS = {"dataset", "features", "label_graph", "model", "report"}


def test_five_stages_and_the_tasks_of_kubeflow_alone() -> None:
    assert set(TASKS) - set(STAGES) == {"fetch_dataset", "select_model", "register", "promote", "record_outcome"}
    assert set(STAGES) < set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_task_calls_run_of_its_own_component_and_nothing_else_of_it(name: str) -> None:
    imports = [node for node in ast.walk(_source(name)) if isinstance(node, ast.ImportFrom)]
    steps = {node.module: [alias.name for alias in node.names] for node in imports if _is_step(node.module)}
    assert steps == {f"components.{name}": ["run"]}


@pytest.mark.parametrize("name", STAGES)
def test_stage_calls_the_component_of_its_name(name: str) -> None:
    assert shlex.split(STAGES[name]["cmd"])[:3] == ["python", "-m", f"components.{name}"]


@pytest.mark.parametrize("name", STAGES)
def test_same_sections(name: str) -> None:
    source = ast.unparse(_source(name))
    sections = [section for section, kind in SECTIONS.items() if f", {kind.__name__})" in source]
    assert STAGES[name]["params"] == sections


@pytest.mark.parametrize("name", STAGES)
def test_same_artifacts_in_and_out(name: str) -> None:
    words = shlex.split(STAGES[name]["cmd"])[3:]
    flags = dict(zip(words[::2], words[1::2], strict=True))
    assert flags.pop("--params") == "params.yaml"
    stage = {flag.removeprefix("--").replace("-", "_"): path for flag, path in flags.items()}
    task = {argument for argument in inspect.signature(TASKS[name]).parameters if _artifact(argument) in ARTIFACTS}
    assert set(stage) == task
    assert all(path == f"artifacts/{_artifact(argument)}" for argument, path in stage.items())
    inputs = {path for argument, path in stage.items() if not argument.endswith("_out")}
    assert inputs == {dep for dep in STAGES[name]["deps"] if dep.startswith("artifacts/")}
    assert [path for argument, path in stage.items() if argument.endswith("_out")] == STAGES[name]["outs"]


@pytest.mark.parametrize("name", STAGES)
def test_stage_depends_on_exactly_the_modules_that_it_imports(name: str) -> None:
    needed = {_file(module) for module in _import_graph().find_upstream_modules(f"components.{name}")}
    needed |= {f"components/{name}.py"}
    covered = {
        dep: {dep} if dep.endswith(".py") else _modules_below(dep)
        for dep in STAGES[name]["deps"]
        if dep.split("/")[0] in PACKAGES
    }
    files = set().union(*covered.values())
    assert needed - files == set(), "dvc.yaml does not name these imported modules"
    assert files - needed == set(), "dvc.yaml names these modules, which the stage does not import"


def test_the_data_set_stage_depends_on_the_raw_data() -> None:
    assert "${dataset.source}" in STAGES["dataset"]["deps"]


@cache
def _import_graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def _source(name: str) -> ast.Module:
    return ast.parse(inspect.getsource(TASKS[name]))


def _is_step(module: str | None) -> bool:
    return re.fullmatch(rf"components\.({'|'.join(TASKS)})", module or "") is not None


def _artifact(argument: str) -> str:
    return argument.removesuffix("_out")


def _file(module: str) -> str:
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (ROOT / path).is_dir() else f"{path}.py"


def _modules_below(folder: str) -> set[str]:
    """Modules of a package; one that only has a docstring is always there and never imported by name."""
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / folder).rglob("*.py")
        if len(ast.parse(path.read_text()).body) > 1
    }

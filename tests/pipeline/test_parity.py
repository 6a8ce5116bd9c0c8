"""`dvc.yaml` and the Kubeflow steps describe the same chain: the same `run`, sections and artifacts."""

import ast
import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from components.params import read_yaml
from dagnn_core.config.dataset import LAYOUTS
from dagnn_core.config.features import IMAGE_ENCODERS, TEXT_ENCODERS
from dagnn_core.config.sections import SECTIONS
from pipeline import steps
from pipeline.step_table import STEPS
from tests.fixtures import forked

ROOT = Path(__file__).parents[2]
STAGES: dict[str, Any] = read_yaml(ROOT / "dvc.yaml")["stages"]
TASKS = {name: getattr(steps, name) for name in STEPS}
ARTIFACTS = {Path(out).name for stage in STAGES.values() for out in stage["outs"]}


def test_every_stage_is_a_task_and_some_tasks_are_of_kubeflow_alone() -> None:
    of_kubeflow = {
        *("fetch_dataset", "check_data", "extract_shard", "tune"),
        *("select_model", "compare", "register", "promote", "record_outcome"),
    }
    assert set(TASKS) - set(STAGES) == of_kubeflow
    assert set(STAGES) < set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_task_calls_run_of_its_own_component_and_nothing_else_of_it(name: str) -> None:
    imports = [node for node in ast.walk(_source(name)) if isinstance(node, ast.ImportFrom)]
    steps = {node.module: [alias.name for alias in node.names] for node in imports if _is_step(node.module)}
    assert steps == {f"components.steps.{name}": ["run"]}


@pytest.mark.parametrize("name", STAGES)
def test_stage_calls_the_component_of_its_name(name: str) -> None:
    assert shlex.split(STAGES[name]["cmd"])[:3] == ["python", "-m", f"components.steps.{name}"]


@pytest.mark.parametrize("name", STAGES)
def test_same_sections(name: str) -> None:
    source = ast.unparse(_source(name))
    sections = [section for section, kind in SECTIONS.items() if f", {kind.__name__})" in source]
    assert STAGES[name].get("params", []) == sections


@pytest.mark.parametrize("name", STAGES)
def test_same_artifacts_in_and_out(name: str) -> None:
    words = shlex.split(STAGES[name]["cmd"])[3:]
    flags = dict(zip(words[::2], words[1::2], strict=True))
    assert flags.pop("--params", None) == ("params.yaml" if "params" in STAGES[name] else None)
    stage = {flag.removeprefix("--").replace("-", "_"): path for flag, path in flags.items()}
    task = {argument for argument in inspect.signature(TASKS[name]).parameters if _artifact(argument) in ARTIFACTS}
    assert set(stage) == task
    assert all(path == f"artifacts/{_artifact(argument)}" for argument, path in stage.items())
    inputs = {path for argument, path in stage.items() if not argument.endswith("_out")}
    assert inputs == {dep for dep in STAGES[name]["deps"] if dep.startswith("artifacts/")}
    assert [path for argument, path in stage.items() if argument.endswith("_out")] == STAGES[name]["outs"]


def test_stages_depend_on_exactly_the_modules_that_they_import() -> None:
    done = forked.run_code("import runpy; runpy.run_path('infra/dvc_deps.py', run_name='__main__')", "--check")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


_CHOSEN_BY_NAME = {
    "dataset": LAYOUTS.values(),
    "extract_features": [*IMAGE_ENCODERS.values(), *TEXT_ENCODERS.values()],
}


# a changed file -> the stages whose code it is
@pytest.mark.parametrize(
    ("file", "stages"),
    [
        *(
            (f"{path.partition(':')[0].replace('.', '/')}.py", {stage})
            for stage, paths in _CHOSEN_BY_NAME.items()
            for path in sorted(set(paths))
        ),
        ("components/services/promotion/gate.py", set()),
        ("dagnn_core/config/register.py", set()),
        ("dagnn_core/config/train.py", {"train", "evaluate"}),  # the report draws the learning rate
        ("dagnn_core/label_graph/drawing.py", {"build_label_graph"}),
        ("dagnn_core/reports/evaluation/html.py", {"evaluate"}),
        ("dagnn_core/training/loop.py", {"train"}),
    ],
)
def test_a_change_runs_the_stages_again_that_it_concerns(file: str, stages: set[str]) -> None:
    assert (ROOT / file).is_file()
    above = {str(folder) for folder in Path(file).parents} | {file}
    assert {name for name, stage in STAGES.items() if above & set(stage["deps"])} == stages


def test_the_data_set_stage_depends_on_the_raw_data() -> None:
    assert "${dataset.source}" in STAGES["dataset"]["deps"]


def _source(name: str) -> ast.Module:
    return ast.parse(inspect.getsource(TASKS[name]))


def _is_step(module: str | None) -> bool:
    return re.fullmatch(rf"components\.steps\.({'|'.join(TASKS)})", module or "") is not None


def _artifact(argument: str) -> str:
    return argument.removesuffix("_out")

"""The compiled pipeline: what a cluster gets to see."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.params import load_params, read_yaml
from dagnn_core.config import SECTIONS, parse_section
from dagnn_core.errors import InputError
from pipeline.cli.kubeflow import compile_pipeline

ROOT = Path(__file__).parents[2]
IMAGE = "registry.example/dagnn@sha256:" + "0" * 64


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compile_pipeline(out, image=IMAGE, params=ROOT / "params.yaml")
    return out


@pytest.fixture(scope="module")
def pipeline(compiled: Path) -> dict[str, Any]:
    spec: dict[str, Any] = read_yaml(compiled)
    return spec


def test_compiling_twice_gives_the_same_bytes(compiled: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.yaml"
    program = "from pathlib import Path; from pipeline.cli.kubeflow import compile_pipeline as c; import sys; "
    program += "c(Path(sys.argv[1]), image=sys.argv[2], params=Path(sys.argv[3]))"
    subprocess.run([sys.executable, "-c", program, str(again), IMAGE, str(ROOT / "params.yaml")], check=True)
    assert again.read_bytes() == compiled.read_bytes()


def test_every_task_runs_in_the_image_and_installs_nothing(compiled: Path, pipeline: dict[str, Any]) -> None:
    executors = pipeline["deploymentSpec"]["executors"]
    assert len(executors) == 6
    assert {executor["container"]["image"] for executor in executors.values()} == {IMAGE}
    assert "pip install" not in compiled.read_text()


def test_every_parameter_is_text_and_its_default_is_the_section(pipeline: dict[str, Any]) -> None:
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    assert {entry["parameterType"] for entry in parameters.values()} == {"STRING"}
    params = load_params(ROOT / "params.yaml")
    sections = {
        name: parse_section(SECTIONS[name], json.loads(entry["defaultValue"]), name)
        for name, entry in parameters.items()
        if name in SECTIONS
    }
    assert sections == params


def test_parameters_of_tasks_are_text(pipeline: dict[str, Any]) -> None:
    for component in pipeline["components"].values():
        for entry in component["inputDefinitions"]["parameters"].values():
            assert entry["parameterType"] == "STRING"


def test_artifacts_are_typed(pipeline: dict[str, Any]) -> None:
    outputs = {
        (component.removeprefix("comp-"), name): entry["artifactType"]["schemaTitle"]
        for component, spec in pipeline["components"].items()
        for name, entry in spec["outputDefinitions"].get("artifacts", {}).items()
    }
    assert outputs == {
        ("dataset", "dataset_out"): "system.Dataset",
        ("extract-features", "features_out"): "system.Artifact",
        ("build-label-graph", "label_graph_out"): "system.Artifact",
        ("train", "model_out"): "system.Model",
        ("train", "val_metrics"): "system.Metrics",
        ("evaluate", "report_out"): "system.Artifact",
        ("evaluate", "metrics"): "system.Metrics",
        ("evaluate", "report_html"): "system.HTML",
    }


def test_every_input_comes_from_an_output_that_exists(pipeline: dict[str, Any]) -> None:
    tasks = pipeline["root"]["dag"]["tasks"]
    produced = {
        (task, name)
        for task, spec in tasks.items()
        for name in pipeline["components"][spec["componentRef"]["name"]]["outputDefinitions"].get("artifacts", {})
    }
    for task, spec in tasks.items():
        component = pipeline["components"][spec["componentRef"]["name"]]
        wanted = component["inputDefinitions"]
        given = spec["inputs"]
        assert set(given["parameters"]) == set(wanted["parameters"]), task
        assert set(given.get("artifacts", {})) == set(wanted.get("artifacts", {})), task
        for entry in given.get("artifacts", {}).values():
            source = entry["taskOutputArtifact"]
            assert (source["producerTask"], source["outputArtifactKey"]) in produced


def test_only_registering_is_never_cached(pipeline: dict[str, Any]) -> None:
    tasks = pipeline["root"]["dag"]["tasks"]
    assert {task for task, spec in tasks.items() if not spec["cachingOptions"].get("enableCache")} == {"register"}


def test_register_returns_name_and_version(pipeline: dict[str, Any]) -> None:
    outputs = pipeline["components"]["comp-register"]["outputDefinitions"]["parameters"]
    assert outputs == {"name": {"parameterType": "STRING"}, "version": {"parameterType": "STRING"}}


def test_a_name_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pipeline\.json: a compiled pipeline is a YAML file"):
        compile_pipeline(tmp_path / "pipeline.json", params=ROOT / "params.yaml")

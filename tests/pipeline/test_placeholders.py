"""What Kubeflow or Kubernetes would replace in a parameter is refused, by name, before anything runs or is made."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from dagnn_core.errors import InputError
from pipeline.cli.main import app
from pipeline.placeholders import refuse_placeholders
from pipeline.target import read_target
from tests.fixtures.locations import ROOT

EVERYWHERE = [
    "{{$}}",
    "{{$.inputs.parameters['x']}}",
    "{{ $.outputs }}",
    "{{workflow.name}}",
    "x {{ inputs.parameters.a }}",
    "{{tasks.a.outputs.result}}",
    "{{pod.name}}",
    "{{item}}",
    "{{=1+1}}",
    "{{channel:",
]
ON_A_CLUSTER = ["{{x}}", "описание {{x}}", "{{", "{{items}}", "$$", "$(AWS_SECRET_ACCESS_KEY)", "a$$b"]
HARMLESS = ["{x}", "}}", "{id}.jpg", "$", "$x", "price ($)", "日\n, |", "a\"b 'c'", "{ {", "\\"]


def edited(folder: Path, source: Path, **values: Any) -> Path:
    """A copy of a YAML file with other values at dotted paths (`a__b`)."""
    yaml = YAML()
    content = yaml.load(source.read_text())
    for key, value in values.items():
        *path, last = key.split("__")
        place = content
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    file = folder / "edited.yaml"
    with file.open("w") as stream:
        yaml.dump(content, stream)
    return file


def error_of(*arguments: object) -> str:
    with pytest.raises(InputError) as caught:
        CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    return str(caught.value)


@pytest.mark.parametrize("text", EVERYWHERE)
def test_texts_that_kubeflow_replaces_are_refused_wherever_it_runs(text: str) -> None:
    for cluster in (True, False):
        with pytest.raises(InputError, match=r"^p\.yaml: a\.b must not contain '\{\{.*', got .*Kubeflow replaces it"):
            refuse_placeholders({"a": {"b": ["fine", text]}}, where=Path("p.yaml"), cluster=cluster)


@pytest.mark.parametrize("text", ON_A_CLUSTER)
def test_texts_that_kubernetes_replaces_are_refused_on_a_cluster(text: str) -> None:
    refuse_placeholders({"a": text}, cluster=False)
    with pytest.raises(InputError, match=r"^a must not contain '(\{\{|\$\$|\$\()', got"):
        refuse_placeholders({"a": text})


def test_other_odd_texts_pass() -> None:
    refuse_placeholders({"a": HARMLESS, "b": None, "c": {"d": 1, "e": tuple(HARMLESS)}})


@pytest.mark.parametrize("command", ["run", "compile", "submit"])
def test_a_parameter_is_refused_by_file_and_key(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = edited(tmp_path, ROOT / "params.yaml", dataset__folder__label_columns=["метки", "x {{$}}"])
    files = sorted(tmp_path.iterdir())
    error = error_of(command, "--params", params)
    assert error.startswith(f"{params}: dataset.folder.label_columns must not contain '{{{{")
    assert "got 'x {{$}}'" in error
    assert "\n" not in error
    assert sorted(tmp_path.iterdir()) == files


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *(
            ("submit", option)
            for option in ("experiment", "data", "revision", "repository", "service-account", "image")
        ),
        *(("compile", name) for name in ("data", "revision", "image")),
    ],
)
def test_an_option_is_refused_by_name(command: str, option: str) -> None:
    assert error_of(command, f"--{option}", "a{{workflow.uid}}").startswith(f"--{option} must not contain '{{{{'")


def test_a_promotion_on_a_cluster_refuses_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = edited(tmp_path, ROOT / "params.yaml", register__model_name="m{{$}}")
    there = ("--target", ROOT / "configs/clusters/kind.yaml", "--host", "http://127.0.0.1:9")
    assert error_of("promote", "--params", params, *there).startswith(f"{params}: register.model_name must not contain")
    sound = ("--params", ROOT / "params.yaml", *there)
    assert error_of("promote", "--reason", "since {{x}}", *sound).startswith("--reason must not contain")
    assert error_of("promote", "mine{{x}}", *sound).startswith("NAME must not contain")


def test_a_file_of_a_cluster_is_refused_by_file_and_key(tmp_path: Path) -> None:
    file = edited(tmp_path, ROOT / "configs/clusters/kind.yaml", experiment="dagnn {{workflow.name}}")
    with pytest.raises(InputError) as caught:
        read_target(str(file))
    assert str(caught.value).startswith(f"{file}: experiment must not contain '{{{{'")


def test_a_list_in_a_file_of_a_cluster_is_looked_through(tmp_path: Path) -> None:
    file = edited(tmp_path, ROOT / "configs/clusters/kind.yaml", pod_annotations=["a=b", "c=$(HOME)"])
    with pytest.raises(InputError, match=r"pod_annotations must not contain '\$\('"):
        read_target(str(file))

"""Images by digest: what is refused, what is read, and what a build says that cannot be done."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dagnn_core.errors import InputError
from pipeline.cli.kubeflow import compile_pipeline
from pipeline.images import Images, build_images, pullable, read_images
from tests.fixtures import forked
from tests.pipeline.specs import read_specs

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "0" * 64
TASKS, TRAIN = f"registry.example:5000/team/dagnn-cpu@{DIGEST}", f"registry.example:5000/team/dagnn-gpu@{DIGEST}"
DAGNN = "from pipeline.cli.main import main; main()"


def written(folder: Path, **images: object) -> Path:
    path = folder / "images.json"
    path.write_text(json.dumps(images))
    return path


@pytest.mark.parametrize("image", ["dagnn", "dagnn:latest", "registry.example/dagnn:v1", DIGEST, f"dagnn@{DIGEST}0"])
def test_a_cluster_takes_digests_alone(image: str) -> None:
    with pytest.raises(InputError, match=r"image .*: expected NAME@sha256:\.\.\., which a cluster can pull"):
        pullable(Images(tasks=TASKS, train=image))


def test_the_gpu_image_trains(tmp_path: Path) -> None:
    assert read_images(written(tmp_path, cpu=TASKS, gpu=TRAIN, mlflow=TASKS)) == Images(tasks=TASKS, train=TRAIN)


def test_without_a_gpu_image_the_cpu_image_trains(tmp_path: Path) -> None:
    assert read_images(written(tmp_path, cpu=DIGEST)) == Images(tasks=DIGEST, train=DIGEST)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"gpu": "x"}', "3", "\xff"])
def test_a_file_that_is_something_else_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "images.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"images\.json is not \{\"cpu\".*`make images` writes it again"):
        read_images(path)


@pytest.mark.parametrize("image", ["dagnn:latest", 3, None])
def test_a_file_with_a_tag_is_refused(tmp_path: Path, image: object) -> None:
    with pytest.raises(InputError, match=r"images\.json: .* is not a digest, expected NAME@sha256"):
        read_images(written(tmp_path, cpu=image))


def test_a_missing_file_names_its_maker(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"images\.json does not exist; `make images` builds"):
        read_images(tmp_path / "images.json")


def test_compiling_takes_the_images_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "infra").mkdir()
    written(tmp_path / "infra", cpu=TASKS, gpu=TRAIN)
    compile_pipeline(tmp_path / "p.yaml", params=ROOT / "params.yaml", target=str(ROOT / "configs/clusters/kind.yaml"))
    pipeline, _ = read_specs(tmp_path / "p.yaml")
    executors = pipeline["deploymentSpec"]["executors"]
    images = {name: executor["container"]["image"] for name, executor in executors.items()}
    assert images.pop("exec-train") == TRAIN
    assert set(images.values()) == {TASKS}


def test_compiling_refuses_a_tag(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"image dagnn:latest: expected NAME@sha256"):
        compile_pipeline(tmp_path / "p.yaml", image="dagnn:latest", params=ROOT / "params.yaml")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tpu is not a target, expected one of cpu, gpu, serve, mlflow"):
        build_images(targets=["cpu", "tpu"], registry=None, options=[], out=tmp_path / "images.json")


def test_images_are_built_from_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="images are built from a commit, and this folder is not in a git checkout"):
        build_images(targets=["cpu"], registry=None, options=[], out=tmp_path / "images.json")


def dagnn(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return forked.run("pipeline.cli.main", *arguments, cwd=cwd, environment={"PATH": os.environ["PATH"]} | environment)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with one empty commit, and `bin`, whose only program is git."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "git").symlink_to(subprocess.check_output(["which", "git"], text=True).strip())
    (tmp_path / "infra").mkdir()
    for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "--message", "Begin"]):
        identity = ["-c", "user.name=test", "-c", "user.email=test"]
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True)
    return tmp_path


def build(checkout: Path, *, client: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """`dagnn images` with a shell script as the docker client; every call is written to `calls`."""
    if client:
        docker = checkout / "bin/docker"
        calls = shlex.quote(f"{checkout}/calls")
        docker.write_text(f'#!/bin/sh\necho "$DOCKER_BUILDKIT $*" >> {calls}\n{client}\n')
        docker.chmod(0o755)
    return dagnn("images", "--target", "mlflow", cwd=checkout, PATH=f"{checkout}/bin", **environment)


def calls(checkout: Path) -> list[str]:
    path = checkout / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_without_docker_a_build_is_one_line(checkout: Path) -> None:
    done = build(checkout)
    assert done.returncode == 3
    assert done.stderr == "error: docker is not on PATH; install Docker, or put it there\n"
    assert list((checkout / "infra").iterdir()) == []


def test_a_checkout_of_another_user_is_refused_with_the_remedy_of_git(checkout: Path) -> None:
    done = build(checkout, GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: git reads nothing in the checkout ") and done.stderr.count("\n") == 1
    assert f"run `git config --global --add safe.directory {shlex.quote(str(checkout))}`" in done.stderr


@pytest.mark.parametrize("environment", [{}, {"DOCKER_BUILDKIT": ""}, {"DOCKER_BUILDKIT": "1"}])
def test_images_are_built_with_buildkit(checkout: Path, environment: dict[str, str]) -> None:
    done = build(checkout, client='case "$*" in *--help*) exit 0;; esac; echo disk full >&2; exit 1', **environment)
    assert done.returncode == 3
    assert done.stderr == "disk full\nerror: `docker build` failed with exit status 1; its last lines above say why\n"
    assert [call.split()[:2] for call in calls(checkout)] == [["1", "build"], ["1", "build"]]
    assert "--target mlflow" in calls(checkout)[1]


def test_a_client_without_buildkit_is_one_line_with_the_remedy(checkout: Path) -> None:
    message = "ERROR: BuildKit is enabled but the buildx component is missing or broken.\n       Install it"
    done = build(checkout, client=f'echo "{message}" >&2; exit 1')
    assert done.returncode == 3
    assert done.stderr == (
        "error: docker cannot build with BuildKit (ERROR: BuildKit is enabled but the buildx component is missing or "
        "broken.); install its buildx plugin (package docker-buildx or docker-buildx-plugin), or put a docker that has "
        "it first on PATH\n"
    )
    assert calls(checkout) == ["1 build --help"]
    assert list((checkout / "infra").iterdir()) == []


@pytest.mark.parametrize("value", ["0", "false"])
def test_the_classic_builder_is_refused(checkout: Path, value: str) -> None:
    done = build(checkout, client="exit 0", DOCKER_BUILDKIT=value)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: DOCKER_BUILDKIT is '{value}', expected 1 or nothing: the classic builder builds all targets of the "
        "Dockerfile; unset DOCKER_BUILDKIT\n"
    )
    assert calls(checkout) == []


def test_a_memory_limit_needs_containers() -> None:
    done = dagnn("run", "--memory", "2g", cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == "error: --memory limits containers; add --docker, or leave it out\n"


def test_without_an_engine_a_run_is_one_line(tmp_path: Path) -> None:
    program = "from pathlib import Path; from pipeline.containers import container_runner as run\n"
    program += "from pipeline.images import Images; from components.command import run_command\n"
    program += f"images = Images({DIGEST!r}, {DIGEST!r})\n"
    program += "run_command(lambda: run(images=images, memory=None, root=Path('root'), writable=[]))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "DOCKER_HOST": f"unix://{tmp_path}/no.sock"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: no Docker engine answers (")
    assert line.endswith("); start it, or correct DOCKER_HOST")
    assert list(tmp_path.iterdir()) == []

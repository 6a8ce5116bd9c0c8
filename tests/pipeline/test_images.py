"""Images by digest: what is refused, what is read, and what a build says that cannot be done."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dagnn_core.errors import InputError
from pipeline.cli.kubeflow import compile_pipeline
from pipeline.images import Images, build_images, pullable, read_images
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
    with pytest.raises(InputError, match=r"images\.json is not \{\"cpu\".*`make images` writes it anew"):
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
    with pytest.raises(InputError, match="tpu is not a target, expected one of cpu, gpu, mlflow"):
        build_images(targets=["cpu", "tpu"], registry=None, options=[], out=tmp_path / "images.json")


def test_images_are_built_from_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="images are built from a commit, and this folder is not in a git checkout"):
        build_images(targets=["cpu"], registry=None, options=[], out=tmp_path / "images.json")


def dagnn(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", DAGNN, *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_docker_a_build_is_one_line(tmp_path: Path) -> None:
    git = tmp_path / "bin"
    git.mkdir()
    (git / "git").symlink_to(subprocess.check_output(["which", "git"], text=True).strip())
    (tmp_path / "infra").mkdir()
    for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "--message", "Begin"]):
        identity = ["-c", "user.name=test", "-c", "user.email=test"]
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True)
    done = dagnn("images", "--target", "cpu", cwd=tmp_path, PATH=str(git))
    assert done.returncode == 3
    assert done.stderr == "error: docker is not on PATH; install Docker, or put it there\n"
    assert list((tmp_path / "infra").iterdir()) == []


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

"""The CPU image: what is in it, and that a step needs no privileges."""

import json
import subprocess
from pathlib import Path
from typing import Any

import docker
import pytest

from pipeline.images import read_images

ROOT = Path(__file__).parents[2]
CONFINED = {
    "read_only": True,
    "tmpfs": {"/tmp": ""},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "mem_limit": "2g",
    "network_mode": "none",
    "remove": True,
}


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, project: Path) -> Any:
    return engine.images.get(read_images(project / "infra/images.json").tasks)


def test_labels_say_which_commit_it_is(image: Any) -> None:
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()
    assert image.labels["org.opencontainers.image.revision"] == commit
    assert image.labels["org.opencontainers.image.version"] == "0.1.0"
    assert f"DAGNN_GIT_COMMIT={commit}" in image.attrs["Config"]["Env"]


def test_it_has_at_most_two_gigabytes(image: Any) -> None:
    assert image.attrs["Size"] <= 2e9


def test_it_has_no_entrypoint_which_kubeflow_would_replace(image: Any) -> None:
    assert not image.attrs["Config"]["Entrypoint"]


def test_no_compiler_and_no_cache_and_no_root(engine: docker.DockerClient, image: Any) -> None:
    script = "id -u; which cc gcc g++ nvcc git; find / -xdev -path '*/pip/http*' 2>/dev/null; true"
    assert engine.containers.run(image, ["sh", "-c", script], **CONFINED).split() == [b"10001"]


def test_a_step_runs_without_privileges_and_network(engine: docker.DockerClient, image: Any) -> None:
    script = "python -m components.steps.dataset --params /params.yaml --dataset-out /tmp/dataset --work /tmp/work >&2"
    script += " && cat /tmp/dataset/manifest.json"
    mount = docker.types.Mount("/params.yaml", str(ROOT / "params.yaml"), type="bind", read_only=True)
    out = engine.containers.run(image, ["sh", "-c", script], mounts=[mount], **CONFINED)
    provenance = json.loads(out)["provenance"]
    revision = image.labels["org.opencontainers.image.revision"]
    assert provenance["git"] == {"commit": revision, "dirty": False, "changed": []}


def test_the_code_is_the_images_own(engine: docker.DockerClient, image: Any) -> None:
    script = "mkdir /tmp/pipeline && cd /tmp && python -c 'import pipeline.task; print(pipeline.task.__file__)'"
    assert engine.containers.run(image, ["sh", "-c", script], **CONFINED) == b"/app/pipeline/task.py\n"

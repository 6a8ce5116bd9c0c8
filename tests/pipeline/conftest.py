"""Servers for contract tests of `dagnn submit` and `dagnn doctor`: Kubeflow by its description, Kubernetes."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import typer.main
from urllib3 import Retry

from components.services.tracking.mlflow import IMPATIENT
from dagnn_core.redaction import forget
from pipeline import compiling
from pipeline.cli.kubeflow import compile_pipeline
from pipeline.cli.main import main
from pipeline.kubeflow.client import Kubeflow
from pipeline.submit import Job, submit, version_name
from tests.pipeline.kfp_description import OFFICIAL_FILE, Agreement, Description, read_official_file, read_package
from tests.pipeline.kfp_server import KubeflowServer, serving
from tests.pipeline.kubernetes_server import TOKEN, Kubernetes, serving_kubernetes

ROOT = Path(__file__).parents[2]
IMAGE = "registry.example/dagnn@sha256:" + "1" * 64
COMMIT = "c0ffee" * 6 + "c0ff"
GIT = {"commit": COMMIT, "dirty": False}


@pytest.fixture
def same_logging() -> Iterator[None]:
    """Tasks set up logging for their process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session", autouse=True)
def one_command_line() -> Iterator[None]:
    """Spare seconds of each command: typer makes all commands again for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session", autouse=True)
def short_pauses() -> Iterator[None]:
    """Spare seconds of each server that cannot be reached: clients wait between their attempts."""
    pause = Retry.get_backoff_time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Retry, "get_backoff_time", lambda self: min(pause(self), 0.05))
        yield


@pytest.fixture(scope="session")
def compiled_once() -> Callable[..., None]:
    """`write_pipeline`, which gives equal bytes for equal arguments, and here keeps them: see `test_compile`."""
    write, known = compiling.write_pipeline, dict[str, bytes]()

    def write_pipeline(out: Path, **arguments: object) -> None:
        key = repr((out.suffix, sorted(arguments.items())))
        if key in known:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(known[key])
        else:
            write(out, **arguments)  # type: ignore[arg-type]
            known[key] = out.read_bytes()

    return write_pipeline


@pytest.fixture(scope="session")
def description() -> Agreement:
    """The API as the installed package has it and, where the official file is there, as that has it, too."""
    specs = [read_package(), *([read_official_file()] if OFFICIAL_FILE.is_file() else [])]
    return Agreement(*map(Description, specs))


@pytest.fixture
def server(description: Agreement) -> Iterator[KubeflowServer]:
    """A server with nothing in it; at the end, nothing may have been asked or answered that the description lacks."""
    with serving(KubeflowServer(description)) as server:
        yield server
    assert server.violations == []


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the user's own."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    # the client reads KUBECONFIG when it is imported
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", os.devnull)


@pytest.fixture
def name_cluster(no_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have kubectl's configuration name a server."""

    def name(server: str) -> None:
        configuration = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": server}}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
        }
        file = tmp_path / "kubeconfig"
        file.write_text(json.dumps(configuration))
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(file))

    return name


@pytest.fixture
def kubernetes(name_cluster: Callable[[str], None]) -> Iterator[Kubernetes]:
    """A server that kubectl's configuration names."""
    with serving_kubernetes() as cluster:
        name_cluster(cluster.url)
        yield cluster


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    target = str(ROOT / "configs/clusters/kind.yaml")
    compile_pipeline(out, image=IMAGE, params=ROOT / "params.yaml", target=target, seeds=[1, 2])
    return out


@pytest.fixture
def kubeflow(server: KubeflowServer) -> Kubeflow:
    return Kubeflow(host=server.url, pause=0.0)


@pytest.fixture
def job(compiled: Path) -> Job:
    version = version_name(compiled, GIT)
    return Job(package=compiled, version=version, experiment="dagnn", run="one", arguments={"cache": "/cache"})


@pytest.fixture
def run_id(server: KubeflowServer, kubeflow: Kubeflow, job: Job) -> str:
    """A run that was submitted."""
    run_id = submit(kubeflow, job).run_id
    assert run_id is not None
    return run_id


class Done(NamedTuple):
    status: int
    out: str
    error: str


Dagnn = Callable[..., Done]


@pytest.fixture
def dagnn(
    server: KubeflowServer,
    compiled_once: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Dagnn:
    """Run a command in a folder with a configuration and images, with the server's address in the environment."""
    for name in [name for name in os.environ if name.startswith(("KF_", "DAGNN_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    for name, value in IMPATIENT.items():
        monkeypatch.setenv(name, value)  # `doctor` sets them: the tests after this one shall not see that
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
    monkeypatch.setenv("DAGNN_DEBUG", "0")  # `--debug` sets it: the tests after this one shall not see that
    monkeypatch.setenv("DAGNN_GIT_COMMIT", COMMIT)  # as in an image: the checkout of the tests may be dirty
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "configs/clusters", tmp_path / "configs/clusters")
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra/images.json").write_text(json.dumps({"commit": COMMIT, "cpu": IMAGE}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compiling, "write_pipeline", compiled_once)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["dagnn", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return Done(int(end.value.code or 0), *capsys.readouterr())

    return run


class Ended(NamedTuple):
    """How a command ended."""

    status: object
    out: str
    err: str


CommandLine = Callable[..., Ended]


@pytest.fixture
def in_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[CommandLine]:
    """Runs a command line in this process, in a DVC repository with nothing in it, and without any server."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("AWS_", "MLFLOW_", "DAGNN_", "KF_"))]:
        monkeypatch.delenv(name)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").touch()
    subprocess.run(["git", "init", "-q"], check=True)

    def run(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Ended:
        forget()
        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(logging.root, "handlers", [])
            patch.setattr(sys, "argv", ["dagnn", *arguments])
            for name, value in {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", **(environment or {})}.items():
                patch.setenv(name, value)
            patch.setenv("DAGNN_DEBUG", "0")  # `--debug` sets it
            with pytest.raises(SystemExit) as ended:
                main()
        return Ended(ended.value.code, *capfd.readouterr())

    yield run
    forget()

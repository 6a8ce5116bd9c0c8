"""Servers for contract tests of `dagnn submit` and `dagnn doctor`: Kubeflow by the official description, Kubernetes."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pipeline.kfp_server import DESCRIPTION, Description, KubeflowServer, serving
from tests.pipeline.kubernetes_server import TOKEN, Kubernetes, serving_kubernetes


@pytest.fixture(scope="session")
def description() -> Description:
    if not DESCRIPTION.is_file():
        pytest.skip("the description of Kubeflow's API is not at ../shared/data/kfp_api")
    return Description(DESCRIPTION)


@pytest.fixture
def server(description: Description) -> Iterator[KubeflowServer]:
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

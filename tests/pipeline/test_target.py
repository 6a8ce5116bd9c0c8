"""Clusters: what a file may say, and what it may not."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from components.params import read_yaml
from dagnn_core.errors import InputError
from pipeline.target import Target, read_target

ROOT = Path(__file__).parents[2]
CLUSTERS = sorted((ROOT / "configs/clusters").glob("*.yaml"))


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.name)
def test_shipped_clusters_write_out_every_key(path: Path) -> None:
    def keys(values: Any) -> Any:
        return {key: keys(value) for key, value in values.items()} if isinstance(values, dict) else None

    def expected(section: Any) -> Any:
        if not is_dataclass(section):
            return None
        return {entry.name: expected(getattr(section, entry.name)) for entry in fields(section)}

    assert keys(read_yaml(path)) == expected(read_target(str(path)))


def test_clusters_and_overlays_have_the_same_names() -> None:
    assert [path.stem for path in CLUSTERS] == sorted(path.name for path in ROOT.glob("infra/kubernetes/overlays/*"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"mine must be a mapping of keys to values, got None"),
        ("{}", r"mlflow_uri must be a server's URL \(a local file would vanish with its pod\), got ''"),
        ("mlflow_uri: sqlite:///mlflow.db", r"mlflow_uri must be a server's URL .*, got 'sqlite:///mlflow\.db'"),
        (
            "mlflow_uri: http://me:word@mlflow",
            r"mlflow_uri must be without credentials: name mlflow_secret, got 'one with cred",
        ),
        (
            "{mlflow_uri: http://m, kubeflow_url: ml-pipeline}",
            r"kubeflow_url must be a server's URL .*, got 'ml-",
        ),
        ("{mlflow_uri: http://m, kubeflow_url: http://me:word@k}", r"kubeflow_url must be .*, got 'one with @'"),
        ("{mlflow_uri: http://m, checkpoint: x}", r"unknown key mine\.checkpoint; did you mean 'checkpoints'\?"),
        ("{mlflow_uri: http://m, checkpoints: /work}", r"mine\.checkpoints must be s3://bucket/prefix, got '/work'"),
        ("{mlflow_uri: http://m, gpu: {count: -1}}", r"mine\.gpu\.count must be >= 0, got -1"),
        ("{mlflow_uri: http://m, gpu: {node_selector: [h100]}}", r"gpu\.node_selector must be key=value, got 'h100'"),
        (
            "{mlflow_uri: http://m, heavy: {memory_limit: lots}}",
            r"mine\.heavy\.memory_limit must be a size, as",
        ),
        ("{mlflow_uri: http://m, light: {cpu_limit: 2}}", r"mine\.light\.cpu_limit must be a text, got 2"),
        (
            "{mlflow_uri: http://m, namespace: My/Team}",
            r"mine\.namespace must be the name of a Kubernetes namespace",
        ),
        ("{mlflow_uri: http://m, train_seconds: 0}", r"mine\.train_seconds must be > 0, got 0"),
        ("{mlflow_uri: http://m, mlflow_direct_s3: 'no'}", r"mine\.mlflow_direct_s3 must be true or false, got 'no'"),
        (
            "{mlflow_uri: http://m, s3_endpoint_url: s3:8333}",
            r"mine\.s3_endpoint_url must be a URL, as .*, got 's3:8333'",
        ),
        ("mlflow_uri: http://localhost:5000", r"mlflow_uri must be an address that tasks reach, got 'http://localhost"),
        (
            "{mlflow_uri: http://m, s3_endpoint_url: 'http://[::1]:8333'}",
            r"s3_endpoint_url must be an address that tasks reach, got .*, which in a pod is the pod itself; give",
        ),
        (
            "{mlflow_uri: http://m, data_endpoint_url: http://127.0.1.1}",
            r"data_endpoint_url must be an address that tasks reach, got .*, which in a pod is the pod itself; give",
        ),
        ("{mlflow_uri: http://m, heavy_seconds: -1}", r"mine\.heavy_seconds must be > 0, got -1"),
        ("{mlflow_uri: http://m, backend_patience: -1}", r"mine\.backend_patience must be >= 0, got -1"),
        (
            "{mlflow_uri: http://m, light_seconds: 1200}",
            r"light_seconds must be > 2 \* backend_patience = 1200, got 1200",
        ),
    ],
)
def test_wrong_clusters_are_one_line_that_names_the_file(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(InputError, match=rf"mine\.yaml: {message}") as raised:
        read_target(str(tmp_path / "mine.yaml"))
    assert "word" not in str(raised.value)


def test_what_is_not_said_has_defaults(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mlflow_uri: https://mlflow.example.org\n")
    assert read_target(str(tmp_path / "mine.yaml")) == Target(mlflow_uri="https://mlflow.example.org")

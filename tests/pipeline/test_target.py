"""Clusters: what a file may say, and what it may not."""

import re
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


def test_every_overlay_has_a_cluster_of_its_name() -> None:
    overlays = sorted(path.name for path in ROOT.glob("infra/kubernetes/overlays/*"))
    assert sorted({path.stem for path in CLUSTERS} - {"private-cluster"}) == overlays


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
        ("{mlflow_uri: http://m, train: {nodes: 0}}", r"mine\.train\.nodes must be >= 1, got 0"),
        ("{mlflow_uri: http://m, train: {nodes: two}}", r"mine\.train\.nodes must be a whole number, got 'two'"),
        ("{mlflow_uri: http://m, heavy: {nodes: 2}}", r"unknown key mine\.heavy\.nodes"),
        (
            "{mlflow_uri: http://m, gpu: {node_selector: [h100]}}",
            r"gpu\.node_selector must be a label as zone=eu-1, got 'h100'",
        ),
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
        ("{mlflow_uri: http://m, pod_label: [a=b]}", r"unknown key mine\.pod_label; did you mean 'pod_labels'\?"),
        ("{mlflow_uri: http://m, heavy: {toleration: [a]}}", r"unknown key .*; did you mean 'tolerations'\?"),
        (
            "{mlflow_uri: http://m, heavy: {node_selector: [zone]}}",
            r"heavy\.node_selector must be a label as zone=eu-1",
        ),
        (
            "{mlflow_uri: http://m, light: {tolerations: ['a:No']}}",
            r"light\.tolerations must be a taint as .*, got 'a:No'",
        ),
        (
            "{mlflow_uri: http://m, gpu: {node_selector: [zone=a]}, train: {node_selector: [zone=b]}}",
            r"train\.node_selector and gpu\.node_selector must be a list with each name once, got 'zone twice'",
        ),
        (
            "{mlflow_uri: http://m, gpu: {type: gpu}}",
            r"mine\.gpu\.type must be the name of a resource, as .*, got 'gpu'",
        ),
        ("{mlflow_uri: http://m, gpu: {toleration: gpu=true}}", r"gpu\.toleration must be a key alone, got 'gpu=true'"),
        (
            "{mlflow_uri: http://m, image_pull_secrets: [Reg_1]}",
            r"image_pull_secrets must be names of Kubernetes objects",
        ),
        ("{mlflow_uri: http://m, pod_labels: [a=b c]}", r"pod_labels must be a label as zone=eu-1, got 'a=b c'"),
        (
            "{mlflow_uri: http://m, pod_labels: [a=b, a=c]}",
            r"pod_labels must be a list with each name once, got 'a twice'",
        ),
        (
            "{mlflow_uri: http://m, pod_labels: [pipeline/runid=1]}",
            r"pod_labels must be without the names that Kubeflow and Argo use themselves, got 'pipeline/runid'",
        ),
        ("{mlflow_uri: http://m, pod_annotations: [nothing]}", r"pod_annotations must be an annotation as team=images"),
        ("{mlflow_uri: http://m, env: [PROXY]}", r"env must be a variable as NO_PROXY=\.svc, got 'PROXY'"),
        ("{mlflow_uri: http://m, env: ['A=$(B)']}", r"env must not contain '\$\(', got 'A=\$\(B\)'"),
        (
            "{mlflow_uri: http://m, env: ['HTTPS_PROXY=http://me:word@proxy:3128']}",
            r"env must be without secrets, which secret_env names, got 'one with a secret'",
        ),
        ("{mlflow_uri: http://m, env: [API_TOKEN=word]}", r"env must be without secrets, which secret_env names"),
        ("{mlflow_uri: http://m, env: [SSL_CERT_FILE=/x]}", r"env must be without what ca_config_map sets, got 'SSL"),
        (
            "{mlflow_uri: http://m, env: [DAGNN_IMAGE=x]}",
            r"env must be without what the program sets, got 'DAGNN_IMAGE'",
        ),
        (
            "{mlflow_uri: http://m, secret_env: [HF_TOKEN=hf]}",
            r"secret_env must be a variable and its entry of a secret as",
        ),
        (
            "{mlflow_uri: http://m, secret_env: [AWS_ACCESS_KEY_ID=s3/key]}",
            r"secret_env must be without what s3_secret sets, got 'AWS_ACCESS_KEY_ID'",
        ),
        (
            "{mlflow_uri: http://m, env: [A=1], secret_env: [A=s/k]}",
            r"env and secret_env must be about different variables",
        ),
        (
            "{mlflow_uri: http://m, ca_config_map: {name: my.ca}}",
            r"mine\.ca_config_map\.name must be a name of at most",
        ),
        ("{mlflow_uri: http://m, ca_config_map: {name: scratch}}", r"ca_config_map\.name must be a name that no other"),
        (
            "{mlflow_uri: http://m, ca_config_map: {key: a/b}}",
            r"mine\.ca_config_map\.key must be a key of a config map",
        ),
        (
            "{mlflow_uri: http://m, pipeline_root: /data}",
            r"mine\.pipeline_root must be s3://bucket/prefix, or the same with",
        ),
        ("{mlflow_uri: http://m, scratch: 200Gi}", r"mine\.scratch must be a mapping of keys to values, got '200Gi'"),
        ("{mlflow_uri: http://m, scratch: {size: big}}", r"mine\.scratch\.size must be a size, as '200Gi', or empty"),
        ("{mlflow_uri: http://m, scratch: {storage_class: ssd}}", r"scratch\.size must be a size, as '200Gi', got ''"),
        (
            "{mlflow_uri: http://m, light: {priority_class: high}}",
            r"light\.priority_class: Kubeflow Pipelines 2\.17 passes it on to no pod; have Argo set it",
        ),
        (
            "{mlflow_uri: http://m, runtime_class: nvidia}",
            r"runtime_class: Kubeflow Pipelines 2\.17 passes it on to no pod",
        ),
        (
            "{mlflow_uri: http://m, ephemeral_storage: 9Gi}",
            r"ephemeral_storage: .* passes it on to no pod; use `scratch`",
        ),
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


def test_the_documentation_has_every_key() -> None:
    page = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
    table = page.partition("## The target")[2].partition("### ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(key for row in rows for key in re.findall(r"`(\w+)`", row)) == sorted(
        entry.name
        for entry in fields(Target)  # type: ignore[arg-type]  # a dataclass, by its decorator
    )

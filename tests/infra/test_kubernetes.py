"""The manifests: each overlay renders, Kubernetes' own schemas accept it, and it keeps what we promise."""

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from components.params import load_params
from pipeline.compiling import write_pipeline
from pipeline.images import Images
from pipeline.target import read_target
from tests.pipeline.specs import kubernetes_of, read_specs

FOLDER = Path(__file__).parents[2] / "infra/kubernetes"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
KUBERNETES = "1.34"

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH")


@cache
def rendered(overlay: str) -> str:
    command = ["kubectl", "kustomize", str(FOLDER / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(overlay: str) -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all(rendered(overlay)))


def pods(overlay: str) -> dict[str, dict[str, Any]]:
    workloads = [entry for entry in objects(overlay) if entry["kind"] in ("Deployment", "StatefulSet")]
    return {entry["metadata"]["name"]: entry["spec"]["template"]["spec"] for entry in workloads}


def containers(overlay: str) -> list[dict[str, Any]]:
    return [container for pod in pods(overlay).values() for container in pod["containers"]]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_schemas_accept_every_object(overlay: str, tmp_path: Path) -> None:
    pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed: make setup")
    file = tmp_path / "rendered.yaml"
    file.write_text(rendered(overlay))
    program = Path(sys.executable).with_name("kubernetes-validate")
    done = subprocess.run(
        [program, "--strict", "--kubernetes-version", KUBERNETES, file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count(" passed ") == len(objects(overlay))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_in_the_namespace(overlay: str) -> None:
    assert {entry["metadata"].get("namespace", "dagnn") for entry in objects(overlay)} == {"dagnn"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_have_no_privileges(overlay: str) -> None:
    for pod in pods(overlay).values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(overlay):
        context = container["securityContext"]
        assert context == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_containers_have_probes_and_limits(overlay: str) -> None:
    for container in containers(overlay):
        assert {"readinessProbe", "livenessProbe"} <= set(container)
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_have_a_version_or_a_digest(overlay: str) -> None:
    for container in containers(overlay):
        _, _, tag = container["image"].rpartition(":")
        assert tag != container["image"] and tag != "latest", container["image"]


def secrets_of_tasks(overlay: str, folder: Path) -> set[tuple[str, str]]:
    """Names and keys of the secrets that the pipeline refers to, compiled for the cluster of the same name."""
    root = FOLDER.parents[1]
    image = "registry.example/dagnn@sha256:" + "0" * 64
    target = read_target(str(root / f"configs/clusters/{overlay}.yaml"))
    params = load_params(root / "params.yaml")
    write_pipeline(folder / "pipeline.yaml", images=Images(image, image), params=params, target=target)
    _, platform = read_specs(folder / "pipeline.yaml")
    entries = [entry for config in kubernetes_of(platform).values() for entry in config.get("secretAsEnv", [])]
    return {(entry["secretName"], key["secretKey"]) for entry in entries for key in entry["keyToEnv"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_are_references_that_the_example_explains(overlay: str, tmp_path: Path) -> None:
    assert "Secret" not in {entry["kind"] for entry in objects(overlay)}
    example = YAML(typ="safe").load_all((FOLDER / "secrets.example.yaml").read_text())
    explained = {(entry["metadata"]["name"], key) for entry in example for key in entry["stringData"]}
    used = secrets_of_tasks(overlay, tmp_path)
    for container in containers(overlay):
        for variable in container["env"]:
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                used.add((reference["name"], reference["key"]))
            else:
                assert "PASSWORD" not in variable["name"] and "SECRET" not in variable["name"]
    assert used == explained


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_denied_that_is_not_allowed(overlay: str) -> None:
    policies = {
        entry["metadata"]["name"]: entry["spec"] for entry in objects(overlay) if entry["kind"] == "NetworkPolicy"
    }
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    guarded = {str(policy["podSelector"]) for policy in policies.values() if "ingress" in policy}
    assert guarded == {str({"matchLabels": {"app.kubernetes.io/name": name}}) for name in pods(overlay)}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_tasks_may_do_only_what_they_need(overlay: str) -> None:
    (role,) = (entry for entry in objects(overlay) if entry["kind"] == "Role")
    for rule in role["rules"]:
        assert "*" not in rule["resources"] + rule["verbs"]
        assert rule["apiGroups"] != [""] or rule["resourceNames"]
    assert not any(entry["kind"].startswith("Cluster") for entry in objects(overlay))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_server_answers_to_every_name_of_its_service(overlay: str) -> None:
    (server,) = pods(overlay)["mlflow"]["containers"]
    values = {variable["name"]: variable.get("value") for variable in server["env"]}
    names = ["localhost", "127.0.0.1", "mlflow", "mlflow.dagnn", "mlflow.dagnn.svc", "mlflow.dagnn.svc.cluster.local"]
    allowed = str(values["MLFLOW_SERVER_ALLOWED_HOSTS"]).split(",")
    assert all(name in allowed and (f"{name}:5000" in allowed or f"{name}:*" in allowed) for name in names)

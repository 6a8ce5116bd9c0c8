"""The manifests: each folder renders, Kubernetes' own schemas accept it, and it keeps what we promise.

KServe's kind has no schema here: the pods within it are checked as pods of Kubernetes.
"""

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML

from components.params_file import load_params
from pipeline.compiling import write_pipeline
from pipeline.images import Images
from pipeline.target import read_target
from pipeline.trainer.manifests import write_template
from tests.fixtures import forked
from tests.pipeline.specs import kubernetes_of, read_specs

FOLDER = Path(__file__).parents[2] / "infra/kubernetes"
SERVERS = ["serving", "search", "canary"]
CLIENTS = ["retrain", *SERVERS]
"""Folders whose pods ask MLflow."""
OVERLAYS = sorted(f"overlays/{path.name}" for path in (FOLDER / "overlays").iterdir())
TRAININGS = {"training/gpu-cluster": "dagnn", "training/kind": "kubeflow"}
"""Folder -> the namespace of the tasks."""
RENDERED = [*OVERLAYS, *TRAININGS, *CLIENTS]
KUBERNETES = "1.36"

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH")
for_each = pytest.mark.parametrize("folder", RENDERED)
for_each_overlay = pytest.mark.parametrize("folder", OVERLAYS)


class Pod(NamedTuple):
    """A pod that some object makes: its labels and its spec."""

    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def containers(self) -> list[dict[str, Any]]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


@cache
def rendered(folder: str) -> str:
    command = ["kubectl", "kustomize", str(FOLDER / folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def parsed(folder: str) -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all(rendered(folder)))


def objects(folder: str) -> list[dict[str, Any]]:
    return copy.deepcopy(parsed(folder))


def only(folder: str, kind: str) -> dict[str, Any]:
    (found,) = (entry for entry in objects(folder) if entry["kind"] == kind)
    return found


def pods(folder: str) -> dict[str, Pod]:
    """Name of the object that makes a pod -> the pod; a canary has its own name."""
    return {name: pod for entry in objects(folder) for name, pod in _pods(entry)}


def _pods(entry: dict[str, Any]) -> Iterator[tuple[str, Pod]]:
    spec, name = entry.get("spec"), entry["metadata"]["name"]
    if entry["kind"] == "InferenceService":
        for predictor in (spec["predictor"], *(canary["predictor"] for canary in spec.get("canary", []))):
            own = ("name", "minReplicas", "maxReplicas", "labels")  # KServe's, the rest is a pod's
            pod = {key: value for key, value in predictor.items() if key not in own}
            yield predictor.get("name", name), Pod(predictor["labels"], pod)
        return
    if entry["kind"] == "CronJob":
        template = spec["jobTemplate"]["spec"]["template"]
    elif entry["kind"] in ("Deployment", "StatefulSet", "Job"):
        template = spec["template"]
    else:
        return
    yield name, Pod(template["metadata"]["labels"], template["spec"])


def containers(folder: str) -> list[dict[str, Any]]:
    return [container for pod in pods(folder).values() for container in pod.containers]


def variables(folder: str) -> Iterator[dict[str, Any]]:
    for container in containers(folder):
        yield from container.get("env", [])


@for_each
def test_the_schemas_accept_every_object(folder: str) -> None:
    kubernetes_validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed: make setup"
    )
    core = [entry for entry in objects(folder) if "kserve" not in entry["apiVersion"]]
    foreign = [entry for entry in objects(folder) if entry not in core]
    assert {entry["kind"] for entry in foreign} <= {"InferenceService"}
    bare = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", "labels": pod.labels}, "spec": pod.spec}
        for entry in foreign
        for _, pod in _pods(entry)
    ]
    for entry in [*core, *bare]:
        kubernetes_validate.validate(entry, KUBERNETES, strict=True)


@for_each
def test_everything_is_in_the_namespace(folder: str) -> None:
    namespace = TRAININGS.get(folder, "dagnn")
    assert {entry["metadata"].get("namespace", "dagnn") for entry in objects(folder)} == {namespace}


@for_each
def test_pods_have_no_privileges(folder: str) -> None:
    for pod in pods(folder).values():
        assert pod.spec["automountServiceAccountToken"] is False
        assert pod.spec["securityContext"]["runAsNonRoot"] is True
        assert pod.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(folder):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@for_each
def test_containers_have_requests_and_limits(folder: str) -> None:
    for container in containers(folder):
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("folder", [*OVERLAYS, *SERVERS])
def test_servers_have_probes(folder: str) -> None:
    for container in containers(folder):
        assert {"readinessProbe", "livenessProbe"} <= set(container)


@for_each
def test_images_have_a_version_or_a_digest(folder: str) -> None:
    for container in containers(folder):
        name, _, tag = container["image"].rpartition(":")
        assert name and tag != "latest" and "/" not in tag, container["image"]
        if folder != "overlays/kind" and "dagnn" in name:
            assert name.endswith("@sha256"), "images of ours go by digest"


@for_each
def test_what_a_pod_mounts_and_reads_exists(folder: str) -> None:
    claims = {entry["metadata"]["name"] for entry in objects(folder) if entry["kind"] == "PersistentVolumeClaim"}
    settings = {
        (entry["metadata"]["name"], key)
        for entry in objects(folder)
        if entry["kind"] == "ConfigMap"
        for key in entry["data"]
    }
    for name, pod in pods(folder).items():
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        templates = [
            entry["spec"].get("volumeClaimTemplates", [])
            for entry in objects(folder)
            if entry["metadata"]["name"] == name and "spec" in entry
        ]
        known = set(volumes) | {claim["metadata"]["name"] for claims_of in templates for claim in claims_of}
        for container in pod.containers:
            assert {mount["name"] for mount in container["volumeMounts"]} <= known
            names = {variable["name"] for variable in container.get("env", [])}
            words = [*container.get("command", []), *container.get("args", [])]
            if words and words[0] == "python":
                assert set(re.findall(r"\$\((\w+)\)", " ".join(words))) <= names
        assert {
            volume["persistentVolumeClaim"]["claimName"]
            for volume in volumes.values()
            if "persistentVolumeClaim" in volume
        } <= claims
    used = {
        tuple(ref[key] for key in ("name", "key"))
        for variable in variables(folder)
        if (ref := variable.get("valueFrom", {}).get("configMapKeyRef"))
    }
    assert used == settings


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


def test_secrets_are_references_that_the_example_explains(tmp_path: Path) -> None:
    example = YAML(typ="safe").load_all((FOLDER / "secrets.example.yaml").read_text())
    explained = {(entry["metadata"]["name"], key) for entry in example for key in entry["stringData"]}
    used = set()
    for overlay in OVERLAYS:
        used |= secrets_of_tasks(Path(overlay).name, tmp_path)
    for folder in RENDERED:
        assert "Secret" not in {entry["kind"] for entry in objects(folder)}
        for variable in variables(folder):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                used.add((reference["name"], reference["key"]))
            else:
                assert not re.search("PASSWORD|SECRET|ACCESS_KEY|TOKEN", variable["name"])
        for pod in pods(folder).values():
            mounted = [volume["secret"] for volume in pod.spec.get("volumes", []) if "secret" in volume]
            used |= {(secret["secretName"], item["key"]) for secret in mounted for item in secret["items"]}
    assert used == explained


@for_each_overlay
def test_everything_is_denied_that_is_not_allowed(folder: str) -> None:
    policies = {
        entry["metadata"]["name"]: entry["spec"] for entry in objects(folder) if entry["kind"] == "NetworkPolicy"
    }
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    guarded = {str(policy["podSelector"]) for policy in policies.values() if "ingress" in policy}
    assert guarded == {str({"matchLabels": {"app.kubernetes.io/name": name}}) for name in pods(folder)}


@pytest.mark.parametrize("folder", ["training/gpu-cluster", *CLIENTS])
def test_network_policies_are_about_the_pods_and_the_server_lets_them_in(folder: str) -> None:
    policy = only(folder, "NetworkPolicy")["spec"]
    labels = [pod.labels for pod in pods(folder).values()] or [labels_of_nodes()]
    assert all(policy["podSelector"]["matchLabels"].items() <= found.items() for found in labels)
    for overlay in OVERLAYS:
        (server,) = (
            entry
            for entry in objects(overlay)
            if entry["kind"] == "NetworkPolicy" and entry["metadata"]["name"] == "mlflow"
        )
        peers = [peer.get("podSelector", {}) for peer in server["spec"]["ingress"][0]["from"]]
        names = {
            name for peer in peers for expression in peer.get("matchExpressions", ()) for name in expression["values"]
        }
        assert {found["app.kubernetes.io/name"] for found in labels} <= names


def test_the_store_stays_below_its_memory_limit() -> None:
    """Go counts its heap only, so the rest of the limit is for stacks and buffers outside of it."""
    (container,) = (found for found in containers("overlays/kind") if found["name"] == "seaweedfs")
    values = {variable["name"]: variable.get("value", "") for variable in container["env"]}
    soft, hard = int(values["GOMEMLIMIT"].removesuffix("MiB")), container["resources"]["limits"]["memory"]
    assert hard.endswith("Gi")
    assert 0.7 <= soft / (int(hard.removesuffix("Gi")) * 1024) <= 0.85


def labels_of_nodes() -> dict[str, str]:
    """Of the pods of a training on several nodes, which the task `train` starts."""
    target = read_target(str(FOLDER.parents[1] / "configs/clusters/gpu-cluster.yaml"))
    labels: dict[str, str] = json.loads(write_template(target))["pod"]["metadata"]["labels"]
    return labels


@pytest.mark.parametrize("folder", [*OVERLAYS, *TRAININGS])
def test_tasks_may_do_only_what_they_need(folder: str) -> None:
    """Names of pods are not known before: of these, tasks may see states and logs."""
    role = only(folder, "Role")
    for rule in role["rules"]:
        assert "*" not in rule["resources"] + rule["verbs"]
        assert rule["apiGroups"] != [""] or rule.get("resourceNames") or set(rule["resources"]) <= {"pods", "pods/log"}
    assert not any(entry["kind"].startswith("Cluster") for entry in objects(folder))


@for_each_overlay
def test_the_server_answers_to_every_name_of_its_service(folder: str) -> None:
    (server,) = pods(folder)["mlflow"].containers
    values = {variable["name"]: variable.get("value") for variable in server["env"]}
    names = ["localhost", "127.0.0.1", "mlflow", "mlflow.dagnn", "mlflow.dagnn.svc", "mlflow.dagnn.svc.cluster.local"]
    allowed = str(values["MLFLOW_SERVER_ALLOWED_HOSTS"]).split(",")
    assert all(name in allowed and (f"{name}:5000" in allowed or f"{name}:*" in allowed) for name in names)


@pytest.mark.parametrize("folder", TRAININGS)
def test_the_account_of_the_tasks_gets_the_role_of_trainings(folder: str) -> None:
    binding = only(folder, "RoleBinding")
    accounts = {"training/gpu-cluster": "dagnn-tasks", "training/kind": "pipeline-runner"}
    subject = {"kind": "ServiceAccount", "name": accounts[folder], "namespace": TRAININGS[folder]}
    assert binding["subjects"] == [subject]
    assert binding["roleRef"]["name"] == only(folder, "Role")["metadata"]["name"]


@pytest.mark.parametrize("folder", CLIENTS)
def test_clients_of_mlflow_get_its_files_through_it(folder: str) -> None:
    clients = [
        values
        for container in containers(folder)
        if "MLFLOW_TRACKING_URI" in (values := {entry["name"]: entry.get("value") for entry in container["env"]})
    ]
    assert clients
    for values in clients:
        assert {values[f"MLFLOW_ENABLE_PROXY_MULTIPART_{way}"] for way in ("DOWNLOAD", "UPLOAD")} == {"false"}


def test_mlflow_names_its_store_as_the_whole_cluster_knows_it() -> None:
    (server,) = pods("overlays/kind")["mlflow"].containers
    values = {variable["name"]: variable.get("value") for variable in server["env"]}
    assert values["MLFLOW_S3_ENDPOINT_URL"] == "http://s3.dagnn:8333"


def test_a_challenger_differs_from_its_champion_in_the_model_alone() -> None:
    service = only("canary", "InferenceService")["spec"]
    (canary,) = service["canary"]
    champion, challenger = service["predictor"], canary["predictor"]
    assert 0 < canary["trafficPercent"] <= 50 and not {"maxReplicas", "scaleTarget", "scaleMetric"} & set(challenger)
    (one,), (other,) = champion.pop("containers"), challenger.pop("containers")
    commands = {*one.pop("command")} ^ {*other.pop("command")}
    assert commands == {"--model=$(MODEL)", "--model=models:/dagnn@challenger"}
    assert [entry for entry in one.pop("env") if entry["name"] != "MODEL"] == other.pop("env")
    assert one == other
    assert {key for key in {*champion, *challenger} if champion.get(key) != challenger.get(key)} == {
        "name",
        "maxReplicas",
    }


def test_a_retraining_starts_alone_and_names_its_image() -> None:
    job = only("retrain", "CronJob")["spec"]
    assert job["concurrencyPolicy"] == "Forbid"
    (container,) = (found for found in containers("retrain") if found["name"] == "retrain")
    values = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert values["DAGNN_IMAGE"] == container["image"]
    (rule,) = job["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [1, 2], "a check that said no, bad input: no other attempt"


@cache
def help_text(module: str, *subcommand: str) -> str:
    return forked.run(module, *subcommand, "--help").stdout


@pytest.mark.parametrize("folder", CLIENTS)
def test_commands_take_the_options_that_they_are_given(folder: str) -> None:
    """Every module that a container runs has each option; what mlflow does itself is its own."""
    for container in containers(folder):
        words = [*container["command"], *container.get("args", [])]
        assert words[0] in ("python", "mlflow", "git")
        if words[0] in ("mlflow", "git"):
            continue
        module, *rest = words[words.index("-m") + 1 :]
        given = [word.split("=")[0] for word in rest if word.startswith("--")]
        subcommand = [word for word in rest[:1] if not word.startswith("--")]
        text = help_text(module, *subcommand)
        missing = [option for option in given if option not in text]
        assert not missing, f"{module}: {missing}"

"""Whether a compiled pipeline hangs together: what kfp's protos leave open, they take dangling references."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec, PlatformSpec

Spec = dict[str, Any]
FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""In C, where it is installed: kfp reads and writes with the same library."""


def read_specs(path: Path) -> tuple[Spec, Spec]:
    """The pipeline and its platform, which the official protos accept; these refuse fields that they don't know."""
    pipeline, platform = yaml.load_all(path.read_text(encoding="utf-8"), Loader=FAST_LOADER)
    json_format.ParseDict(pipeline, PipelineSpec())
    json_format.ParseDict(platform, PlatformSpec())
    for config in kubernetes_of(platform).values():
        json_format.ParseDict(config, KubernetesExecutorConfig())
    return pipeline, platform


def kubernetes_of(platform: Spec) -> Spec:
    """Name of an executor -> what kfp.kubernetes has set."""
    executors: Spec = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return executors


def tasks_of(pipeline: Spec) -> dict[str, Spec]:
    """All tasks of all levels that run a container, by name."""
    dags = [pipeline["root"], *pipeline["components"].values()]
    containers = containers_of(pipeline)
    return {
        name: task
        for dag in dags
        for name, task in dag.get("dag", {}).get("tasks", {}).items()
        if pipeline["components"][task["componentRef"]["name"]].get("executorLabel") in containers
    }


def containers_of(pipeline: Spec) -> dict[str, Spec]:
    """The containers that tasks run, by the name of the executor; an importer has none."""
    executors = pipeline["deploymentSpec"]["executors"]
    return {name: executor["container"] for name, executor in executors.items() if "container" in executor}


def faults(pipeline: Spec, platform: Spec) -> list[str]:
    """Every reference that leads nowhere, and every artifact that does not fit."""
    components, executors = pipeline["components"], pipeline["deploymentSpec"]["executors"]
    found = []
    for name, component in [("root", pipeline["root"]), *components.items()]:
        if "dag" in component:
            found += [f"{name}: {fault}" for fault in _faults_of_dag(component, components)]
        elif component["executorLabel"] not in executors:
            found.append(f"{name}: no executor {component['executorLabel']}")
    used = {task["componentRef"]["name"] for task in _all_tasks(pipeline)}
    found += [f"{name}: nobody's component" for name in sorted(set(components) - used)]
    found += [f"{name}: nobody's platform" for name in sorted(set(kubernetes_of(platform)) - set(executors))]
    return found


def _all_tasks(pipeline: Spec) -> Iterator[Spec]:
    for component in (pipeline["root"], *pipeline["components"].values()):
        yield from component.get("dag", {}).get("tasks", {}).values()


def _faults_of_dag(dag: Spec, components: Spec) -> Iterator[str]:
    tasks = dag["dag"]["tasks"]
    outputs = {}
    for name, task in tasks.items():
        if task["componentRef"]["name"] not in components:
            yield f"{name}: no component {task['componentRef']['name']}"
            return
        outputs[name] = components[task["componentRef"]["name"]].get("outputDefinitions", {})
    if not _can_be_ordered(tasks):
        yield "tasks wait for one another, or for what does not exist"
    for name, task in tasks.items():
        wanted = components[task["componentRef"]["name"]].get("inputDefinitions", {})
        for kind in ("parameters", "artifacts"):
            for fault in _faults_of_inputs(task, kind, wanted.get(kind, {}), dag, outputs):
                yield f"{name}: {fault}"
    for key, entry in dag["dag"].get("outputs", {}).get("artifacts", {}).items():
        for selected in entry["artifactSelectors"]:
            if selected["outputArtifactKey"] not in outputs.get(selected["producerSubtask"], {}).get("artifacts", {}):
                yield f"output {key} comes from nowhere"


def _faults_of_inputs(task: Spec, kind: str, wanted: Spec, dag: Spec, outputs: Spec) -> Iterator[str]:
    given = task.get("inputs", {}).get(kind, {})
    needed = {key for key, entry in wanted.items() if not entry.get("isOptional")}
    if missing := needed - set(given) - {task.get("parameterIterator", {}).get("itemInput")}:
        yield f"no {min(missing)}"
    for key, entry in given.items():
        source = _source(entry, dag.get("inputDefinitions", {}), outputs, kind)
        if key not in wanted:
            yield f"{key} is nothing that it takes"
        elif source is None:
            yield f"{key} comes from nowhere"
        elif not _fits(source, wanted[key]):
            yield f"{key} is {source}, which does not fit {wanted[key]}"


def _source(entry: Spec, inputs: Spec, outputs: Spec, kind: str) -> Spec | None:
    """The definition of what an input gets; None where it does not exist, empty where it is a constant."""
    if "runtimeValue" in entry:
        return {}
    if "taskFinalStatus" in entry:
        return {"parameterType": "TASK_FINAL_STATUS"} if entry["taskFinalStatus"]["producerTask"] in outputs else None
    single = kind.removesuffix("s")
    produced = entry.get(f"taskOutput{single.title()}")
    if produced:
        definitions = outputs.get(produced["producerTask"], {}).get(kind, {})
        found: Spec | None = definitions.get(produced[f"output{single.title()}Key"])
    else:
        found = inputs.get(kind, {}).get(entry[f"componentInput{single.title()}"])
    return found


def _fits(source: Spec, wanted: Spec) -> bool:
    if "artifactType" in wanted:
        titles = source["artifactType"]["schemaTitle"], wanted["artifactType"]["schemaTitle"]
        same_number = source.get("isArtifactList", False) == wanted.get("isArtifactList", False)
        return same_number and titles[1] in (titles[0], "system.Artifact")
    return source.get("parameterType", wanted["parameterType"]) == wanted["parameterType"]


def _can_be_ordered(tasks: Spec) -> bool:
    pending = {name: set(task.get("dependentTasks", [])) for name, task in tasks.items()}
    while ready := {name for name, waits_for in pending.items() if not waits_for}:
        pending = {name: waits_for - ready for name, waits_for in pending.items() if name not in ready}
    return not pending


def pod_of(pipeline: Spec, platform: Spec, executor: str) -> Spec:
    """The pod that the back end makes of an executor, as its driver and its compiler read the two documents.

    It has what a task asks for, and not what Kubeflow and Argo add: launcher, volumes of artifacts, security context.
    """
    container = pipeline["deploymentSpec"]["executors"][executor]["container"]
    config = kubernetes_of(platform).get(executor, {})
    resources = container.get("resources", {})
    limits = {"cpu": resources["resourceCpuLimit"], "memory": resources["resourceMemoryLimit"]}
    if gpu := resources.get("accelerator"):
        limits[gpu["resourceType"]] = gpu["resourceCount"]
    requests = {"cpu": resources["resourceCpuRequest"], "memory": resources["resourceMemoryRequest"]}
    env = [{"name": entry["name"], "value": entry["value"]} for entry in container.get("env", [])]
    for entry in config.get("secretAsEnv", []):
        for key in entry["keyToEnv"]:
            source = {"secretKeyRef": {"name": entry["secretName"], "key": key["secretKey"]}}
            env.append({"name": key["envVar"], "valueFrom": source})
    for entry in config.get("fieldPathAsEnv", []):
        env.append({"name": entry["name"], "valueFrom": {"fieldRef": {"fieldPath": entry["fieldPath"]}}})
    volumes = list(_volumes(config))
    main = {
        "name": "main",
        "image": container["image"],
        "command": [*container["command"], *container["args"]],
        "env": env,
        "resources": {"requests": requests, "limits": limits},
        "volumeMounts": [{"name": volume["name"], "mountPath": path} for volume, path in volumes],
    }
    spec = {
        "containers": [main],
        "volumes": [volume for volume, _ in volumes],
        "nodeSelector": config.get("nodeSelector", {}).get("labels", {}),
        "tolerations": config.get("tolerations", []),
        "imagePullSecrets": [{"name": entry["secretName"]} for entry in config.get("imagePullSecret", [])],
        "activeDeadlineSeconds": int(config["activeDeadlineSeconds"]),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "task", **config.get("podMetadata", {})},
        "spec": spec,
    }


def _volumes(config: Spec) -> Iterator[tuple[Spec, str]]:
    """Volumes, and where they are mounted."""
    for entry in config.get("configMapAsVolume", []):
        source = {"name": entry["configMapName"], "optional": entry.get("optional", False)}
        yield {"name": entry["configMapName"], "configMap": source}, entry["mountPath"]
    for entry in config.get("genericEphemeralVolume", []):
        claim: Spec = {
            "accessModes": entry["accessModes"],
            "resources": {"requests": {"storage": entry["size"]}},
        }
        if not entry.get("defaultStorageClass"):
            claim["storageClassName"] = entry["storageClassName"]
        yield {"name": entry["volumeName"], "ephemeral": {"volumeClaimTemplate": {"spec": claim}}}, entry["mountPath"]
    for entry in config.get("emptyDirMounts", []):
        source = {"medium": entry["medium"], "sizeLimit": entry["sizeLimit"]}
        yield {"name": entry["volumeName"], "emptyDir": source}, entry["mountPath"]

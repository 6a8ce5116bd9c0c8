"""A training on several nodes, by the task `train`: start its TrainJob, or take up one that runs; follow it; end it.

Features and label graph go to S3 for the nodes, where the first of them leaves the model. The job has a name that is
made of the run and of what is trained, so that a task that is started again finds it.
"""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from components.command import terminated_like_interrupted
from components.services.storage.artifacts import delete_folder, fetch_artifact, send_artifact
from components.services.storage.s3 import Storage
from dagnn_core.artifacts import read_artifact
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import section_json
from dagnn_core.config.train import TrainConfig
from dagnn_core.errors import BackendError, DagnnError
from dagnn_core.text import one_line
from pipeline.task import NUM_LAST_LINES, parse_task_line
from pipeline.trainer.cluster import Cluster, ClusterLostError, RefusedError
from pipeline.trainer.manifests import (
    CONTAINER,
    INPUTS,
    PLACE_ANNOTATION,
    POD,
    POD_UID,
    RUN_LABEL,
    SCRATCH,
    TEMPLATE,
    Owner,
    fill,
    owner_reference,
)

log = logging.getLogger(__name__)

JOBS, RUNTIMES = "trainjobs", "trainingruntimes"

_OF_RUN = ("DAGNN_IMAGE", "DAGNN_PIPELINE_RUN", "MLFLOW_RUN_ID")  # variables that the nodes take over from the task
_NOT_YET = "must be created before the TrainJob"  # Trainer's webhook learns of a runtime a moment after it was made


class Pace(NamedTuple):
    """Times, in seconds."""

    look: float = 5.0
    """Between two looks at the job."""
    runtime: float = 30.0
    """For which Trainer may not know the runtime that was made for the job."""
    deletion: float = 300.0
    """For which a job of the same name may still be on its way out."""


def train_on_nodes(
    *,
    features: Path,
    label_graph: Path,
    model_params: ModelConfig,
    params: TrainConfig,
    checkpoints_uri: str,
    model_out: Path,
    uri: str,
    pace: Pace = Pace(),  # noqa: B008  # immutable
) -> None:
    """Train by a TrainJob, as the environment of the task's pod says.

    The job goes when it has ended, and with the task: when that is told to end, by this function; when its pod is
    deleted, by Kubernetes; with the run, by `end_trainings`. While Kubernetes' API or S3 cannot be reached, it stays,
    and the task that is started again takes it up.

    Args:
        features: features artifact.
        label_graph: label graph artifact of the same data set.
        model_params: architecture and objective.
        params: optimisation.
        checkpoints_uri: `s3://bucket/prefix` for checkpoints, and for what the nodes read and write.
        model_out: where the model goes.
        uri: where the pipeline run stores the model, for the record.
        pace: how often to look, and how long to wait.

    Raises:
        DagnnError: the training failed; the error is its own where it is one of `dagnn_core.errors`.
        InputError: Kubernetes or Trainer refuses the job.
        BackendError: the job failed or was deleted, or Kubernetes' API or S3 cannot be reached or does not permit this.
    """
    digests = [
        read_artifact(path, kind).content_digest
        for path, kind in ((features, "features"), (label_graph, "label_graph"))
    ]
    sections = {"model": section_json(model_params), "train": section_json(params)}
    run_id = os.environ.get("DAGNN_PIPELINE_RUN", "")
    key = hashlib.sha256(json.dumps([run_id, *digests, sections]).encode()).hexdigest()
    name = "-".join(filter(None, ("train", re.sub("[^a-z0-9]", "", run_id.lower())[:8], key[:8])))
    training = _Training(
        name=name,
        inputs={"features": features, "label_graph": label_graph},
        arguments=(
            f"--features={INPUTS}/features",
            f"--label-graph={INPUTS}/label_graph",
            f"--model-params={sections['model']}",
            f"--params={sections['train']}",
            f"--checkpoints-uri={checkpoints_uri}",
            f"--uri={uri}",
            f"--scratch={SCRATCH}",
        ),
        place=f"{checkpoints_uri.rstrip('/')}/{name}",
        cluster=Cluster.of_pod(),
        storage=Storage(),
        pace=pace,
    )
    with terminated_like_interrupted():
        try:
            training.start()
            training.follow()
        except ClusterLostError:
            raise
        except KeyboardInterrupt:
            log.warning("the task was told to end, and ends its training")
            training.end()
            raise SystemExit(143) from None
        except BaseException:
            training.end()
            raise
        fetch_artifact(training.model_uri, model_out, training.storage)
        training.end()


def end_trainings(run_id: str) -> None:
    """End the trainings that a pipeline run has left: when it is canceled, a task may be killed before it can do so.

    A failure is a warning.

    Args:
        run_id: of the pipeline run.
    """
    try:
        cluster = Cluster.of_pod()
        for runtime in cluster.find_all(RUNTIMES, f"{RUN_LABEL}={run_id}"):
            name = runtime["metadata"]["name"]
            log.warning("TrainJob %s was left by its task, and is ended", name)
            place = (runtime["metadata"].get("annotations") or {}).get(PLACE_ANNOTATION, "")
            _delete(name, place, cluster, Storage())
    except DagnnError as error:
        log.warning("whether a TrainJob is left is not known: %s", error)


@dataclass(kw_only=True)
class _Training:
    """One TrainJob, with its runtime and its place in S3."""

    name: str
    inputs: Mapping[str, Path]
    arguments: Sequence[str]
    place: str
    cluster: Cluster
    storage: Storage
    pace: Pace
    _is_there: bool = field(default=False, init=False)
    """Whether there may be something to delete."""
    _shown: dict[str, str] = field(default_factory=dict, init=False)
    """Pod -> time of the last line of it that was shown."""
    _state: str = field(default="", init=False)
    """What was said last of the nodes."""

    @property
    def model_uri(self) -> str:
        """Where the first node leaves the model."""
        return f"{self.place}/model"

    def start(self) -> None:
        """Make runtime and job, unless a task of the same run has done so before."""
        owner = Owner(os.environ[POD], os.environ[POD_UID])
        job = self._settled(JOBS)
        if job is not None:
            self._is_there = True
            self.cluster.patch(JOBS, self.name, {"metadata": {"ownerReferences": [owner_reference(owner)]}})
            self.cluster.patch(RUNTIMES, self.name, {"metadata": {"ownerReferences": [owner_reference(owner)]}})
            log.info("TrainJob %s is there already: this task follows it", self.name)
            return
        self._settled(RUNTIMES)
        manifests = fill(
            os.environ[TEMPLATE],
            name=self.name,
            image=os.environ["DAGNN_IMAGE"],
            owner=owner,
            run_id=os.environ.get("DAGNN_PIPELINE_RUN", ""),
            place=self.place,
            inputs={kind: f"{self.place}/{kind}" for kind in self.inputs},
            arguments=[*self.arguments, f"--model-uri={self.model_uri}"],
            env={variable: os.environ[variable] for variable in _OF_RUN if os.environ.get(variable)},
        )
        self.cluster.create(RUNTIMES, manifests.runtime)
        self._is_there = True
        for kind, artifact in self.inputs.items():
            send_artifact(artifact, f"{self.place}/{kind}", self.storage)
        self._create_job(manifests.job)
        trainer = manifests.job["spec"]["trainer"]
        log.info(
            "TrainJob %s: %d nodes, each with %d processes", self.name, trainer["numNodes"], trainer["numProcPerNode"]
        )

    def follow(self) -> None:
        """Show what the first node writes, until the job has ended.

        Raises:
            DagnnError: it failed, or was deleted.
        """
        while True:
            job = self.cluster.get(JOBS, self.name)  # before the log, which then has all that a finished job wrote
            if job is None or job["metadata"].get("deletionTimestamp"):
                raise BackendError(
                    f"TrainJob {self.name} was deleted while it ran", "`dagnn retry` resumes from its last checkpoint"
                )
            pods = self.cluster.find_all("pods", f"jobset.sigs.k8s.io/jobset-name={self.name}")
            conditions = {
                condition["type"]: one_line(condition.get("message") or condition.get("reason") or "")
                for condition in (job.get("status") or {}).get("conditions") or []
                if condition["status"] == "True"
            }
            self._show(pods, suspended=conditions.get("Suspended", ""))
            if "Complete" in conditions:
                return
            if "Failed" in conditions:
                raise self._failure(pods, conditions["Failed"])
            time.sleep(self.pace.look)

    def end(self) -> None:
        """Delete what was made."""
        if self._is_there:
            _delete(self.name, self.place, self.cluster, self.storage)

    def _settled(self, resource: str) -> dict[str, Any] | None:
        """An object of the name, once one that is being deleted is gone."""
        deadline = time.monotonic() + self.pace.deletion
        while True:
            found = self.cluster.get(resource, self.name)
            if found is None or not found["metadata"].get("deletionTimestamp"):
                return found
            if time.monotonic() > deadline:
                raise BackendError(
                    f"{found.get('kind', resource)} {self.name} of an earlier attempt is not deleted after "
                    f"{self.pace.deletion:g} s",
                    f"`kubectl describe {resource} {self.name}` says what it waits for",
                )
            time.sleep(min(1.0, self.pace.look))

    def _create_job(self, manifest: Mapping[str, Any]) -> None:
        deadline = time.monotonic() + self.pace.runtime
        while True:
            try:
                self.cluster.create(JOBS, manifest)
                return
            except RefusedError as error:
                if _NOT_YET not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(min(1.0, self.pace.look))

    def _show(self, pods: Sequence[Mapping[str, Any]], *, suspended: str) -> None:
        """Show how many nodes run and, of the first one, what it has written since the last look.

        Raises:
            DagnnError: it said that the input is at fault, which no restart mends.
        """
        nodes = self._nodes(pods)
        running = sum(pod["status"].get("phase") in ("Running", "Succeeded") for _, pod in nodes)
        waits = next(filter(None, (_waits_for(pod) for _, pod in nodes)), "")
        state = f"{running} of {len(nodes)} nodes run" + (f"; one waits: {waits}" if waits else "")
        if not nodes:  # a queue may hold the job back
            state = f"suspended: {suspended}" if suspended else "Kubeflow Trainer has made no nodes yet"
        if state != self._state:
            log.info("%s", state)
            self._state = state
        for index, pod in nodes:
            if index == 0:
                for line in self._new_lines(pod["metadata"]["name"]):
                    print(line, flush=True)
                    entry = parse_task_line(line)
                    if entry and entry.failure and entry.failure.exit_status < BackendError.exit_status:
                        raise type(entry.failure)(entry.message)

    def _new_lines(self, pod: str) -> Iterator[str]:
        last = self._shown.get(pod, "")
        text = self.cluster.log(pod, CONTAINER, since=last)
        for line in text[: text.rfind("\n") + 1].splitlines():  # a long log may be cut within a line
            moment, _, words = line.partition(" ")
            if moment > last:  # of one form, so that texts compare like times
                self._shown[pod] = moment
                yield words

    def _failure(self, pods: Sequence[Mapping[str, Any]], message: str) -> DagnnError:
        """Why the job failed: what the nodes themselves say, or Kubernetes of them, or Trainer of the job."""
        words = ""
        for index, pod in self._nodes(pods):
            for container, end in _failed_containers(pod):
                log_end = ""
                with suppress(DagnnError):
                    log_end = self.cluster.log(pod["metadata"]["name"], container, tail=NUM_LAST_LINES)
                lines = [line.partition(" ")[2] for line in log_end.splitlines()]
                for entry in filter(None, map(parse_task_line, lines)):
                    if entry.failure and "another process of this training" not in entry.message:
                        return type(entry.failure)(entry.message)
                said = next((line for line in reversed(lines) if line.startswith("error: ")), "").removeprefix(
                    "error: "
                )
                why = f"{end.get('reason') or 'Error'}, exit status {end['exitCode']}"
                words = words or f"{container} of node {index} ended ({why})" + (f": {one_line(said)}" if said else "")
        return BackendError(
            f"TrainJob {self.name} failed: {words or message or 'it does not say why'}",
            "its lines are above; `dagnn retry` resumes from its last checkpoint",
        )

    def _nodes(self, pods: Sequence[Mapping[str, Any]]) -> list[tuple[int, Mapping[str, Any]]]:
        """The newest pod of each node, by its index."""
        found: dict[int, Mapping[str, Any]] = {}
        for pod in sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", ""))):
            if match := re.match(rf"{re.escape(self.name)}-node-0-(\d+)(?:-|$)", pod["metadata"]["name"]):
                found[int(match[1])] = pod
        return sorted(found.items())


def _delete(name: str, place: str, cluster: Cluster, storage: Storage) -> None:
    """Delete a job, its runtime, and what it had in S3 but for its checkpoints; where that fails, warn."""
    try:
        cluster.delete(JOBS, name)
        cluster.delete(RUNTIMES, name)
        if place:
            delete_folder(place, storage)
    except DagnnError as error:
        log.warning("TrainJob %s or its files in %s are left: %s", name, place, error)


def _waits_for(pod: Mapping[str, Any]) -> str:
    """What keeps a pod from running; empty: nothing that Kubernetes tells of."""
    status = pod["status"]
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return one_line(condition.get("message") or condition.get("reason") or "")
    for container in (*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("message"):
            return one_line(f"{waiting.get('reason', '')}: {waiting['message']}")
    return ""


def _failed_containers(pod: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name of each container that failed, and how it ended."""
    status = pod["status"]
    for container in (*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])):
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            yield container["name"], ended

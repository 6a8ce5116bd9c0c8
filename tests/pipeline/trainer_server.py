"""A server for contract tests: Kubernetes' API with Kubeflow Trainer, as far as the task `train` uses it.

It takes nothing but these requests, judges what it is sent by Trainer's published schema, and grants what the role in
`infra/kubernetes/training` grants. Behind it is a small model of what was seen with Trainer 2.3: its webhook refuses a
job whose runtime it does not know, a runtime stays as long as a job uses it, what a pod owns goes with it, and the
nodes of the job NAME are the pods NAME-node-0-0-..., NAME-node-0-1-..., whose container is `node`. No pod runs
anything: a test says what becomes of them, or starts processes (`kubelet`).
"""

import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import jsonschema
from ruamel.yaml import YAML

from tests.fixtures.locations import ROOT

Json = dict[str, Any]
GROUP = "/apis/trainer.kubeflow.org/v1alpha1"
ROLE = ROOT / "infra/kubernetes/training/base/role.yaml"
KINDS = {"trainjobs": "TrainJob", "trainingruntimes": "TrainingRuntime"}
VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}
TOKEN = "token-of-the-account"
_PATH = re.compile(rf"(/api/v1|{re.escape(GROUP)})/namespaces/team/(\w+)(?:/([a-z0-9.-]+))?(/log)?")
_LOG_QUERY = {"container", "timestamps", "limitBytes", "sinceTime", "tailLines"}


@cache
def published() -> Json:
    found: Json = json.loads(Path(__file__).with_name("trainer_schema.json").read_text())
    return found


def judge(manifest: Json) -> None:
    """See that a TrainJob or a TrainingRuntime keeps the published schema.

    Raises:
        jsonschema.ValidationError: it does not.
    """
    schemas = published()
    jsonschema.validate(manifest["metadata"]["name"], schemas["name"])
    jsonschema.validate(manifest, schemas["kinds"][manifest["kind"]] | {"$defs": schemas["$defs"]})


def rights_of_role() -> set[tuple[str, str]]:
    """Resource and verb of everything that the role grants."""
    rules = YAML(typ="safe").load(ROLE)["rules"]
    return {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}


_last = [""]


def now() -> str:
    """A moment after all others, as Kubernetes writes it in logs."""
    moment = f"{datetime.now(tz=UTC):%Y-%m-%dT%H:%M:%S.%f}000Z"
    while moment <= _last[0]:
        head, nanoseconds = _last[0][:20], int(_last[0][20:29]) + 1
        moment = f"{head}{nanoseconds:09}Z"
    _last[0] = moment
    return moment


@dataclass
class Pod:
    """A pod: its status, and what its containers wrote."""

    name: str
    labels: dict[str, str]
    status: Json
    logs: dict[str, list[str]] = field(default_factory=dict)
    created: str = field(default_factory=now)

    def write(self, line: str, container: str = "node") -> None:
        self.logs.setdefault(container, []).append(f"{now()} {line}")

    def end(self, code: int, container: str = "node", reason: str = "") -> None:
        """The container has ended, and the pod with it."""
        kind = "containerStatuses" if container == "node" else "initContainerStatuses"
        terminated = {"exitCode": code, "reason": reason or ("Error" if code else "Completed")}
        self.status["phase"] = "Failed" if code else "Succeeded"
        self.status[kind] = [{"name": container, "state": {"terminated": terminated}}]


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


Act = Callable[["TrainerServer"], None]


@dataclass
class TrainerServer:
    """The API, in the namespace `team`."""

    rights: set[tuple[str, str]] = field(default_factory=rights_of_role)
    installed: bool = True
    slow_webhook: int = 0
    """Times that the webhook does not yet know a runtime that is there."""
    denial: str = ""
    """What another webhook says of every job."""
    acts: list[Act] = field(default_factory=list)
    """What happens, one after the other, each before a job is looked at once more."""
    on_job: Callable[[Json], None] = lambda _: None
    """Called with each new job."""
    on_gone: Callable[[str], None] = lambda _: None
    """Called with the name of each job that is deleted."""
    objects: dict[tuple[str, str], Json] = field(default_factory=dict)
    """By resource and name."""
    pods: dict[str, Pod] = field(default_factory=dict)
    used: set[tuple[str, str]] = field(default_factory=set)
    """Resource and verb of all that was done."""
    created: list[str] = field(default_factory=list)
    """Kinds, in order."""
    statuses: list[int] = field(default_factory=list)
    """That the next answers have instead of theirs."""
    violations: list[str] = field(default_factory=list)
    """Requests that are not the task's."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    port: int = 0

    @property
    def job(self) -> Json:
        """The only job."""
        (found,) = (entry for (resource, _), entry in self.objects.items() if resource == "trainjobs")
        return found

    def add_pods(self, phase: str = "Running") -> list[Pod]:
        """The pods of the only job, all in one phase."""
        name, trainer = self.job["metadata"]["name"], self.job["spec"]["trainer"]
        for index in range(trainer["numNodes"]):
            pod = Pod(
                f"{name}-node-0-{index}-{uuid4().hex[:5]}", {"jobset.sigs.k8s.io/jobset-name": name}, {"phase": phase}
            )
            self.pods[pod.name] = pod
        return [pod for pod in self.pods.values() if pod.labels["jobset.sigs.k8s.io/jobset-name"] == name]

    def set_condition(self, kind: str, message: str = "") -> None:
        """Tell how the only job is."""
        condition = {"type": kind, "status": "True", "reason": kind, "message": message, "lastTransitionTime": now()}
        self.job["status"] = {"conditions": [condition]}
        judge(self.job)

    def delete_owner(self, uid: str) -> None:
        """The pod of a task is gone: so does what it alone owns."""
        for (resource, name), entry in list(self.objects.items()):
            owners = [owner for owner in entry["metadata"]["ownerReferences"] if owner["uid"] != uid]
            entry["metadata"]["ownerReferences"] = owners
            if not owners:
                self._delete(resource, name)

    def answer(self, method: str, path: str, query: dict[str, str], content_type: str, body: Json | None) -> Json | str:
        if self.statuses:
            raise Refusal(self.statuses.pop(0), "of this test")
        match = _PATH.fullmatch(path)
        if match is None:
            raise ValueError(f"no such path: {path}")
        group, resource, name, log = match.groups()
        if group == GROUP and (not self.installed or resource not in KINDS):
            raise Refusal(404, "the server could not find the requested resource")
        if group != GROUP and (resource != "pods" or method != "GET" or bool(name) != bool(log)):
            raise ValueError(f"no request of the task: {method} {path}")
        verb = VERBS[method] if name or method != "GET" else "list"
        right = ("pods/log", "get") if log else (resource, verb)
        if right not in self.rights:
            account = 'User "system:serviceaccount:team:tasks"'
            raise Refusal(403, f'{resource} is forbidden: {account} cannot {right[1]} resource "{right[0]}"')
        self.used.add(right)
        if log:
            return self._log(name, query)
        if verb == "list":
            return self._list(resource, query)
        assert not query
        if method == "POST":
            assert not name and content_type == "application/json" and body is not None
            return self._create(resource, body)
        if method == "GET":
            return self._get(resource, name)
        entry = self.objects.get((resource, name))
        if entry is None:
            raise Refusal(404, f'{resource}.trainer.kubeflow.org "{name}" not found')
        if method == "PATCH":
            assert content_type == "application/merge-patch+json" and body is not None
            assert set(body) == {"metadata"} and set(body["metadata"]) == {"ownerReferences"}
            entry["metadata"] |= body["metadata"]
            judge(entry)
            return entry
        assert method == "DELETE" and body == {"propagationPolicy": "Background"}
        self._delete(resource, name)
        return {"kind": "Status", "status": "Success"}

    def _get(self, resource: str, name: str) -> Json:
        if resource == "trainjobs" and (resource, name) in self.objects and self.acts:
            self.acts.pop(0)(self)
        entry = self.objects.get((resource, name))
        if entry is None:
            raise Refusal(404, f'{resource}.trainer.kubeflow.org "{name}" not found')
        return entry

    def _create(self, resource: str, manifest: Json) -> Json:
        name = manifest["metadata"]["name"]
        if (resource, name) in self.objects:
            raise Refusal(409, f'{resource}.trainer.kubeflow.org "{name}" already exists')
        try:
            judge(manifest)
        except jsonschema.ValidationError as error:
            raise Refusal(422, f'{manifest["kind"]} "{name}" is invalid: {error.message}') from error
        assert manifest["kind"] == KINDS[resource] and manifest["apiVersion"] == GROUP.removeprefix("/apis/")
        if resource == "trainjobs":
            self._admit(manifest)
        manifest["metadata"] |= {"namespace": "team", "uid": uuid4().hex, "creationTimestamp": now()}
        self.objects[resource, name] = manifest
        self.created.append(manifest["kind"])
        if resource == "trainjobs":
            self.on_job(manifest)
        return manifest

    def _admit(self, job: Json) -> None:
        if self.denial:
            raise Refusal(403, f'admission webhook "vtrainjob.kb.io" denied the request: {self.denial}')
        reference = job["spec"]["runtimeRef"]
        self.slow_webhook -= 1
        if (
            reference["kind"] != "TrainingRuntime"
            or ("trainingruntimes", reference["name"]) not in self.objects
            or self.slow_webhook >= 0
        ):
            raise Refusal(
                403,
                'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: spec.runtimeRef: '
                f'Invalid value: TrainingRuntime.trainer.kubeflow.org "{reference["name"]}" not found: specified '
                "trainingRuntime must be created before the TrainJob is created",
            )

    def _delete(self, resource: str, name: str) -> None:
        if resource == "trainingruntimes" and ("trainjobs", name) in self.objects:
            self.objects[resource, name]["metadata"]["deletionTimestamp"] = now()
            return
        del self.objects[resource, name]
        if resource == "trainjobs":
            self.pods = {pod: found for pod, found in self.pods.items() if not pod.startswith(f"{name}-")}
            self.on_gone(name)
            runtime = self.objects.get(("trainingruntimes", name))
            if runtime and "deletionTimestamp" in runtime["metadata"]:
                del self.objects["trainingruntimes", name]

    def _list(self, resource: str, query: dict[str, str]) -> Json:
        assert set(query) == {"labelSelector"}
        key, _, value = query["labelSelector"].partition("=")
        entries = [entry for (kind, _), entry in self.objects.items() if kind == resource]
        if resource != "pods":
            found = [entry for entry in entries if entry["metadata"]["labels"].get(key) == value]
            return {"kind": f"{KINDS[resource]}List", "items": found}
        items = [
            {
                "metadata": {"name": pod.name, "labels": pod.labels, "creationTimestamp": pod.created},
                "status": pod.status,
            }
            for pod in self.pods.values()
            if pod.labels.get(key) == value
        ]
        return {"kind": "PodList", "apiVersion": "v1", "items": items}

    def _log(self, name: str, query: dict[str, str]) -> str:
        assert set(query) <= _LOG_QUERY and {"container", "timestamps", "limitBytes"} <= set(query)
        pod, container = self.pods.get(name), query["container"]
        if pod is None:
            raise Refusal(404, f'pods "{name}" not found')
        if container not in pod.logs:
            raise Refusal(400, f'container "{container}" in pod "{name}" is waiting to start: PodInitializing')
        second = query.get("sinceTime", "")[:19]  # Kubernetes compares seconds
        lines = [line for line in pod.logs[container] if line[:19] >= second]
        if "tailLines" in query:
            lines = lines[-int(query["tailLines"]) :]
        return "".join(f"{line}\n" for line in lines)[: int(query["limitBytes"])]


@contextmanager
def serving(server: TrainerServer, certificate: Path) -> Iterator[TrainerServer]:
    """Serve on a port of this machine, by TLS; what is no request of the task's is a violation."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            try:
                if self.headers["Authorization"] != f"Bearer {TOKEN}":
                    raise Refusal(401, "Unauthorized")
                query = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
                kind = self.headers.get("Content-Type", "")
                body = json.loads(content) if content else None
                status = 201 if self.command == "POST" else 200
                with server.lock:
                    answer = server.answer(self.command, parts.path, query, kind, body)
            except Refusal as refusal:
                status = refusal.status
                answer = {"kind": "Status", "status": "Failure", "message": str(refusal), "code": status}
            except Exception as error:  # of a request that is not the task's
                server.violations.append(repr(error))
                status = 422
                answer = {"kind": "Status", "status": "Failure", "message": repr(error), "code": status}
            sent = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_POST = do_PATCH = do_DELETE = do_GET

    listener = ThreadingHTTPServer(("127.0.0.1", server.port), Handler)
    listener.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    server.port = listener.server_address[1]
    threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()

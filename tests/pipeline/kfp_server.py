"""A server for contract tests: the used part of the Kubeflow Pipelines API v2beta1, by its description.

Every request and every answer is validated against the description (paths, parameters, bodies; fields that it does not
name are refused, as the real server does): see `kfp_description`. Behind it is a small model of what the real server
does, in memory; it runs no pipeline: a test says which states a run goes through.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote_plus, urlsplit
from uuid import uuid4

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.pipeline.kfp_description import Json, Judge, Refusal, Request
from tests.pipeline.specs import FAST_LOADER

NOW = "2026-11-28T12:00:00Z"


@dataclass
class KubeflowServer:
    """The server: what it has, how it behaves, and what it was asked."""

    description: Judge
    tag_name: str = "2.17.0"
    multi_user: bool = False
    token: str = ""
    """A token that every request but those for its health must bring."""
    cookies: str = ""
    """The same for a Cookie header; without it, the answer is the way to a login page."""
    forbidden: str = ""
    """A namespace in which the user may do nothing."""
    pipelines: dict[str, Json] = field(default_factory=dict)
    versions: dict[str, Json] = field(default_factory=dict)
    experiments: dict[str, Json] = field(default_factory=dict)
    runs: dict[str, Json] = field(default_factory=dict)
    recurring_runs: dict[str, Json] = field(default_factory=dict)
    packages: dict[str, bytes] = field(default_factory=dict)
    """What was uploaded, by version."""
    logs: dict[str, str] = field(default_factory=dict)
    """What pods wrote, by their names."""
    page: bool = False
    """Whether there is a page at `/`, as where `ml-pipeline-ui` is asked; at the API's own port there is none."""
    states: list[Json] = field(default_factory=list)
    """What successive requests for a run add to it; the last one stays."""
    requests: list[str] = field(default_factory=list)
    """Operations, in order."""
    violations: list[str] = field(default_factory=list)
    """Requests and answers that the description does not allow."""
    url: str = ""

    @property
    def created(self) -> list[str]:
        """Operations that make something."""
        return [name for name in self.requests if "Create" in name or "Upload" in name]

    def answer(self, request: Request) -> Json:
        """What the real server would do; the names of the methods are the description's."""
        method = getattr(self, request.operation, None)
        if method is None:
            raise Refusal(501, f"{request.operation} is not implemented here")
        return method(request)  # type: ignore[no-any-return]

    def PipelineService_ListPipelines(self, request: Request) -> Json:
        return self._list("pipelines", self.pipelines, request, self._namespace(request.query.get("namespace", "")))

    def PipelineService_CreatePipeline(self, request: Request) -> Json:
        namespace = self._namespace(request.body.get("namespace", ""))
        _unique(self.pipelines, request.body["display_name"], {"namespace": namespace})
        return _add(self.pipelines, "pipeline_id", request.body | {"namespace": namespace, "created_at": NOW})

    def PipelineService_ListPipelineVersions(self, request: Request) -> Json:
        owner = {"pipeline_id": request.path["pipeline_id"]}
        return self._list("pipeline_versions", self.versions, request, owner)

    def PipelineService_GetPipelineVersion(self, request: Request) -> Json:
        version = self.versions.get(request.path["pipeline_version_id"])
        if version is None or version["pipeline_id"] != request.path["pipeline_id"]:
            raise Refusal(404, "ResourceNotFoundError: PipelineVersion not found")
        return version

    def UploadPipelineVersion(self, request: Request) -> Json:
        pipeline_id, name = request.query.get("pipelineid", ""), request.query["name"]
        if pipeline_id not in self.pipelines:
            raise Refusal(400, "Failed to create a pipeline version")
        _unique(self.versions, name, {"pipeline_id": pipeline_id})
        spec, *platform = yaml.load_all(request.body, Loader=FAST_LOADER)
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        for document in platform:
            json_format.ParseDict(document, pipeline_spec_pb2.PlatformSpec())
        whole = {"pipeline_spec": spec, "platform_spec": platform[0]} if platform else spec
        made = _add(
            self.versions,
            "pipeline_version_id",
            {"pipeline_id": pipeline_id, "display_name": name, "name": name, "created_at": NOW, "pipeline_spec": whole},
        )
        self.packages[made["pipeline_version_id"]] = request.body
        return made

    def ExperimentService_ListExperiments(self, request: Request) -> Json:
        owner = self._namespace(request.query.get("namespace", ""), required=True)
        return self._list("experiments", self.experiments, request, owner)

    def ExperimentService_CreateExperiment(self, request: Request) -> Json:
        namespace = self._namespace(request.body.get("namespace", ""), required=True)
        _unique(self.experiments, request.body["display_name"], {"namespace": namespace})
        made = request.body | {"namespace": namespace, "created_at": NOW, "storage_state": "AVAILABLE"}
        return _add(self.experiments, "experiment_id", made)

    def RunService_CreateRun(self, request: Request) -> Json:
        self._check_run(request.body)
        return _add(self.runs, "run_id", request.body | {"state": "PENDING", "created_at": NOW})

    def RunService_ListRuns(self, request: Request) -> Json:
        return self._list("runs", self.runs, request, self._of_experiment(request))

    def RunService_TerminateRun(self, request: Request) -> Json:
        run = self._find(self.runs, request.path["run_id"], "Run")
        if run["state"] not in ("PENDING", "RUNNING", "PAUSED"):
            raise Refusal(400, f"Failed to terminate a run: InvalidInputError: Run {run['run_id']}: Row not found")
        run["state"] = "CANCELING"
        return {}

    def RunService_RetryRun(self, request: Request) -> Json:
        run = self._find(self.runs, request.path["run_id"], "Run")
        if run["state"] != "FAILED":  # a run that was terminated is one
            raise Refusal(500, f"InternalServerError: Failed to retry run {run['run_id']} as it does not allow reties")
        run["state"] = "RUNNING"
        run.pop("finished_at", None)
        return {}

    def RunService_GetRun(self, request: Request) -> Json:
        run = self._find(self.runs, request.path["run_id"], "Run")
        if self.states:
            run |= self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return run

    def RecurringRunService_ListRecurringRuns(self, request: Request) -> Json:
        return self._list("recurringRuns", self.recurring_runs, request, self._of_experiment(request))

    def RecurringRunService_EnableRecurringRun(self, request: Request) -> Json:
        return self._switch(request, "ENABLE")

    def RecurringRunService_DisableRecurringRun(self, request: Request) -> Json:
        return self._switch(request, "DISABLE")

    def RecurringRunService_DeleteRecurringRun(self, request: Request) -> Json:
        self._find(self.recurring_runs, request.path["recurring_run_id"], "RecurringRun")
        del self.recurring_runs[request.path["recurring_run_id"]]
        return {}

    def RecurringRunService_CreateRecurringRun(self, request: Request) -> Json:
        self._check_run(request.body)
        if len(request.body["trigger"]["cron_schedule"]["cron"].split()) != 6:
            raise Refusal(400, "InvalidInputError: Schedule cron is not a supported format")
        if not 1 <= int(request.body["max_concurrency"]) <= 10:
            raise Refusal(400, "InvalidInputError: The max concurrency of the recurring run is out of range")
        return _add(self.recurring_runs, "recurring_run_id", request.body | {"status": "ENABLED", "created_at": NOW})

    def log(self, run_id: str, pod: str) -> str:
        """A pod's log; the description does not have it."""
        if run_id not in self.runs:
            raise Refusal(400, f"Failed to read logs for run {run_id} due to run fetching error")
        if pod not in self.logs:
            raise Refusal(500, f'Failed to read logs for run {run_id}: pods "{pod}" not found')
        return self.logs[pod]

    def _switch(self, request: Request, mode: str) -> Json:
        entry = self._find(self.recurring_runs, request.path["recurring_run_id"], "RecurringRun")
        entry |= {"mode": mode, "status": f"{mode}D"}
        return {}

    def _of_experiment(self, request: Request) -> Json:
        """What an experiment or, without one, a namespace owns."""
        if request.query.get("experiment_id"):
            return {"experiment_id": request.query["experiment_id"]}
        return {"namespace": self._namespace(request.query.get("namespace", ""), required=True)}

    def _owner(self, entry: Json, key: str) -> Any:
        """Its namespace or experiment; runs are in the namespace of their experiment."""
        if key == "namespace" and "experiment_id" in entry and key not in entry:
            entry = self.experiments[entry["experiment_id"]]
        return entry.get(key, "")

    @staticmethod
    def _find(entries: dict[str, Json], id: str, kind: str) -> Json:
        if id not in entries:
            raise Refusal(404, f"Failed to fetch {id}: ResourceNotFoundError: {kind} {id} not found")
        return entries[id]

    def _check_run(self, body: Json) -> None:
        reference = body["pipeline_version_reference"]
        version = self.versions.get(reference["pipeline_version_id"])
        if body["experiment_id"] not in self.experiments or version is None:
            raise Refusal(404, "ResourceNotFoundError: no such experiment or pipeline version")
        spec = version["pipeline_spec"]
        inputs = spec.get("pipeline_spec", spec)["root"].get("inputDefinitions", {}).get("parameters", {})
        unknown = set(body["runtime_config"].get("parameters", {})) - set(inputs)
        if unknown:
            raise Refusal(400, f"InvalidInputError: unknown parameter(s): {', '.join(sorted(unknown))}")

    def _namespace(self, namespace: str, *, required: bool = False) -> Any:
        if namespace and not self.multi_user:
            raise Refusal(400, "InvalidInputError: In single-user mode, the namespace must be empty")
        if self.multi_user and required and not namespace:
            raise Refusal(400, "InvalidInputError: In multi-user mode, the namespace is required")
        if namespace and namespace == self.forbidden:
            raise Refusal(403, f"PermissionDenied: User is not authorized in namespace {namespace}")
        return namespace

    def _list(self, kind: str, entries: dict[str, Json], request: Request, owner: Any) -> Json:
        owner = owner if isinstance(owner, dict) else {"namespace": owner}
        predicates = json.loads(_unescape(request.query.get("filter") or "{}")).get("predicates", [])
        found = [
            entry
            for entry in entries.values()
            if all(self._owner(entry, key) == value for key, value in owner.items())
            and all(_holds(predicate, entry) for predicate in predicates)
        ]
        key, _, order = request.query.get("sort_by", "").partition(" ")
        if key:
            found.sort(key=lambda entry: str(entry[key]), reverse=order == "desc")
        size, start = int(request.query.get("page_size", 10)), int(request.query.get("page_token") or 0)
        page: Json = {kind: found[start : start + size], "total_size": len(found)}
        if start + size < len(found):
            page["next_page_token"] = str(start + size)
        return page if found else {}  # protobuf's JSON leaves out what is empty


def _holds(predicate: Json, entry: Json) -> bool:
    equal = entry.get(predicate["key"], "") == predicate["stringValue"]
    return equal if predicate["operation"] == "EQUALS" else not equal


def _unescape(text: str) -> str:
    """A `filter` once more: the real server does so behind the one that is usual."""
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise Refusal(400, "InvalidInputError: Failed to parse the filter: invalid URL escape")
    return unquote_plus(text)


def _add(entries: dict[str, Json], key: str, values: Json) -> Json:
    entry = {key: str(uuid4()), **{name: value for name, value in values.items() if value != ""}}
    entries[entry[key]] = entry
    return entry


def _unique(entries: dict[str, Json], name: str, owner: Json) -> None:
    for entry in entries.values():
        if entry["display_name"] == name and all(entry.get(key, "") == value for key, value in owner.items()):
            raise Refusal(409, f"AlreadyExistError: The name {name} already exist. Please specify a new name")


@contextmanager
def serving(server: KubeflowServer) -> Iterator[KubeflowServer]:
    """Serve on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = urlsplit(self.path).path
            if path == "/" and server.page and server.cookies and self.headers["Cookie"] != server.cookies:
                self._send(302, b"", "text/html", Location="/login")
            elif path == "/" and server.page:
                self._send(200, b"<html>Kubeflow Pipelines</html>", "text/html")
            elif path == "/":
                self._send(404, b"404 page not found\n", "text/plain; charset=utf-8")
            elif path == "/login":
                server.requests.append("login")
                self._send(200, b"<html>Log in</html>", "text/html")
            elif path == "/apis/v2beta1/healthz":
                server.requests.append("HealthzService_GetHealthz")
                healthz = {"tag_name": server.tag_name, "multi_user": server.multi_user, "pipeline_store": "database"}
                # the real server adds these two to what the description has, and asks nobody who he is
                self._send_json(200, healthz | {"commit_sha": "7b70c7b"})
            elif server.cookies and self.headers["Cookie"] != server.cookies:
                self._send(302, b"", "text/html", Location="/login")
            elif server.token and self.headers["Authorization"] != f"Bearer {server.token}":
                self._send_json(401, {"error": "Request header error: there is no user identity header.", "code": 16})
            elif log := re.fullmatch(r"/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", path):
                server.requests.append("log")
                try:
                    self._send(200, server.log(log[1], log[2]).encode(), "text/plain")
                except Refusal as refusal:
                    self._send_json(refusal.status, {"error_message": str(refusal), "error_details": str(refusal)})
            else:
                self._send_json(*self._answer(content))

        do_POST = do_DELETE = do_GET

        def _answer(self, content: bytes) -> tuple[int, Json]:
            try:
                request = server.description.request(self.command, self.path, self.headers, content)
            except Refusal as refusal:
                server.violations.append(str(refusal))
                return refusal.status, {"code": 3, "message": str(refusal)}
            server.requests.append(request.operation)
            try:
                status, answer = 200, server.answer(request)
            except Refusal as refusal:
                status, answer = refusal.status, {"code": 3, "message": str(refusal), "details": []}
            try:
                server.description.judge_answer(request.operation, status, answer)
            except Refusal as refusal:
                server.violations.append(f"answer to {request.operation}: {refusal}")
            return status, answer

        def _send_json(self, status: int, answer: Json) -> None:
            self._send(status, json.dumps(answer).encode(), "application/json")

        def _send(self, status: int, content: bytes, kind: str, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    server.url = f"http://127.0.0.1:{listener.server_address[1]}"
    threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()

"""A server for contract tests: the requests of Kubernetes' API that `dagnn doctor` makes. It is not a cluster."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "token-of-kubectl"
SECRET_VALUE = "c2VjcmV0LXRoYXQtbm9ib2R5LXNoYWxsLXNlZQ=="


@dataclass
class Kubernetes:
    """A namespace `team` with secrets and config maps, storage classes, and nodes with GPUs."""

    secrets: list[str] = field(default_factory=list)
    gpus: list[str] = field(default_factory=list)
    """By node."""
    nodes: list[dict[str, Any]] = field(default_factory=list)
    """Whole ones, beside those with GPUs."""
    config_maps: dict[str, dict[str, str]] = field(default_factory=dict)
    storage_classes: dict[str, bool] = field(default_factory=dict)
    """Name -> whether it is the default."""
    trainer: bool = False
    """Whether Kubeflow Trainer is installed."""
    rights: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    """Account -> resource and verb of all that it may do in the namespace."""
    status: int = 200
    """Of all answers, where it is an error."""
    accepted: list[str] = field(default_factory=list)
    """The headers Accept of requests for secrets."""
    url: str = ""

    def answer(self, path: str, accept: str, body: Any = None) -> tuple[int, dict[str, object]]:
        if self.status != 200:
            return self.status, {"kind": "Status"}
        if body is not None:
            assert path == "/apis/authorization.k8s.io/v1/subjectaccessreviews"
            return 201, self._review(body)
        places = {
            "/api/v1/nodes": self._nodes,
            "/apis/trainer.kubeflow.org/v1alpha1": self._trainer,
            "/apis/storage.k8s.io/v1/storageclasses": self._storage,
            "/api/v1/namespaces/team/configmaps/": self._config_map,
            "/api/v1/namespaces/team/secrets/": lambda name: self._secret(name, accept),
        }
        place = next((place for place in places if path.startswith(place)), None)
        found = places[place](path.removeprefix(place).lstrip("/")) if place else None
        return (200, found) if found else (404, {"kind": "Status", "reason": "NotFound"})

    def _nodes(self, _: str) -> dict[str, object]:
        nodes = [{"status": {"allocatable": {"cpu": "4", "nvidia.com/gpu": count}}} for count in self.gpus]
        others = self.nodes or [{"status": {"allocatable": {"cpu": "4"}}}]
        return {"kind": "NodeList", "items": [*nodes, *others]}

    def _trainer(self, _: str) -> dict[str, object] | None:
        resources = [{"name": "trainjobs", "kind": "TrainJob"}, {"name": "trainjobs/status", "kind": "TrainJob"}]
        return {"kind": "APIResourceList", "resources": resources} if self.trainer else None

    def _review(self, review: Any) -> dict[str, object]:
        assert (review["apiVersion"], review["kind"]) == ("authorization.k8s.io/v1", "SubjectAccessReview")
        _, _, namespace, account = review["spec"]["user"].split(":")
        asked = review["spec"]["resourceAttributes"]
        assert asked.pop("group") == ("trainer.kubeflow.org" if asked["resource"].startswith("train") else "")
        assert (namespace, asked["namespace"]) == ("team", "team")
        resource = "/".join(filter(None, (asked["resource"], asked["subresource"])))
        allowed = (resource, asked["verb"]) in self.rights.get(account, set())
        return {"kind": "SubjectAccessReview", "status": {"allowed": allowed}}

    def _storage(self, name: str) -> dict[str, object] | None:
        if name:
            return {"kind": "StorageClass"} if name in self.storage_classes else None
        annotation = "storageclass.kubernetes.io/is-default-class"
        items = [
            {"metadata": {"name": name, "annotations": {annotation: "true"} if default else None}}
            for name, default in self.storage_classes.items()
        ]
        return {"kind": "StorageClassList", "items": items}

    def _config_map(self, name: str) -> dict[str, object] | None:
        return {"kind": "ConfigMap", "data": self.config_maps[name]} if name in self.config_maps else None

    def _secret(self, name: str, accept: str) -> dict[str, object] | None:
        self.accepted.append(accept)
        if name not in self.secrets:
            return None
        if "as=PartialObjectMetadata" in accept:
            return {"kind": "PartialObjectMetadata", "metadata": {"name": name}}
        return {"kind": "Secret", "metadata": {"name": name}, "data": {"secret-key": SECRET_VALUE}}


@contextmanager
def serving_kubernetes() -> Iterator[Kubernetes]:
    """Serve on a free port of this machine."""
    cluster = Kubernetes()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.headers["Authorization"] == f"Bearer {TOKEN}":
                content = self.rfile.read(int(self.headers["Content-Length"] or 0))
                status, answer = cluster.answer(
                    self.path, self.headers["Accept"], json.loads(content) if content else None
                )
            else:
                status, answer = 401, {"kind": "Status", "reason": "Unauthorized"}
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    cluster.url = f"http://127.0.0.1:{listener.server_address[1]}"
    threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield cluster
    finally:
        listener.shutdown()
        listener.server_close()

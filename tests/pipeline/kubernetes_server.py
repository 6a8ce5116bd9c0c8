"""A server for contract tests: the two requests of Kubernetes' API that `dagnn doctor` makes. It is not a cluster."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "token-of-kubectl"
SECRET_VALUE = "c2VjcmV0LXRoYXQtbm9ib2R5LXNoYWxsLXNlZQ=="


@dataclass
class Kubernetes:
    """A namespace `team` with secrets, and nodes with GPUs."""

    secrets: list[str] = field(default_factory=list)
    gpus: list[str] = field(default_factory=list)
    """By node."""
    status: int = 200
    """Of all answers, where it is an error."""
    accepted: list[str] = field(default_factory=list)
    """The headers Accept of requests for secrets."""
    url: str = ""

    def answer(self, path: str, accept: str) -> tuple[int, dict[str, object]]:
        if self.status != 200:
            return self.status, {"kind": "Status"}
        if path == "/api/v1/nodes":
            nodes = [{"status": {"allocatable": {"cpu": "4", "nvidia.com/gpu": count}}} for count in self.gpus]
            return 200, {"kind": "NodeList", "items": [*nodes, {"status": {"allocatable": {"cpu": "4"}}}]}
        self.accepted.append(accept)
        name = path.removeprefix("/api/v1/namespaces/team/secrets/")
        if name not in self.secrets:
            return 404, {"kind": "Status", "reason": "NotFound"}
        if "as=PartialObjectMetadata" in accept:
            return 200, {"kind": "PartialObjectMetadata", "metadata": {"name": name}}
        return 200, {"kind": "Secret", "metadata": {"name": name}, "data": {"secret-key": SECRET_VALUE}}


@contextmanager
def serving_kubernetes() -> Iterator[Kubernetes]:
    """Serve on a free port of this machine."""
    cluster = Kubernetes()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.headers["Authorization"] == f"Bearer {TOKEN}":
                status, answer = cluster.answer(self.path, self.headers["Accept"])
            else:
                status, answer = 401, {"kind": "Status", "reason": "Unauthorized"}
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    cluster.url = f"http://127.0.0.1:{listener.server_address[1]}"
    threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield cluster
    finally:
        listener.shutdown()
        listener.server_close()

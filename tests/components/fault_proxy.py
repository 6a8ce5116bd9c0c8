"""An HTTP proxy before a server that does to requests what networks, busy servers and servers that restart do."""

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

FaultKind = Literal[
    "reset",  # before any answer
    "reset_upload",  # in the middle of the request's body
    "lost",  # the request is carried out, but there is no answer
    "error",  # an answer with `status` and `code`
    "truncate",  # the answer's body ends at byte `at`, though Content-Length says more
    "reset_body",  # the same, with a reset
    "silent",  # no answer for `seconds`
    "stall",  # the answer's body stops at byte `at` for `seconds`
    "trickle",  # the answer's body comes in small pieces, each after `seconds`
    "corrupt",  # byte `at` of the answer's body is another one
    "corrupt_upload",  # byte `at` of the request's body is another one
]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to one request."""

    kind: FaultKind
    at: int = 0
    seconds: float = 0.0
    status: int = 503
    code: str = "SlowDown"


class Request(NamedTuple):
    """A request that came by."""

    number: int
    """From 0."""
    method: str
    path: str
    headers: dict[str, str]
    """With names in small letters."""


Plan = Callable[[Request], Fault | None]


def only(kind: FaultKind, *numbers: int, method: str = "GET", **details: Any) -> Plan:
    """The fault for the n-th requests of a method (none named: for every one)."""
    seen = 0

    def plan(request: Request) -> Fault | None:
        nonlocal seen
        if request.method != method:
            return None
        seen += 1
        return Fault(kind=kind, **details) if not numbers or seen - 1 in numbers else None

    return plan


@dataclass
class Away:
    """A plan: from one request on, which is carried out without an answer, the server is away for some time."""

    at: int
    """Number of that request, from 0."""
    seconds: float
    num_failed: int = 0
    num_after: int = 0
    """Requests after the time."""
    _num_before: int = 0
    _end: float = 0.0

    def __call__(self, request: Request) -> Fault | None:
        if not self._end:
            self._num_before += 1
            if self._num_before <= self.at:
                return None
            self._end = time.monotonic() + self.seconds
            return Fault(kind="lost")
        if time.monotonic() > self._end:
            self.num_after += 1
            return None
        self.num_failed += 1
        return Fault(kind="reset") if self.num_failed % 2 else Fault(kind="error", status=503)


@dataclass
class FaultProxy:
    """Use it as a context; `url` is its address, `plan` says what is done to a request."""

    upstream: str
    plan: Plan = lambda request: None
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    def __enter__(self) -> "FaultProxy":
        proxy = self
        lock = threading.Lock()

        class Handler(_Handler):
            upstream = urlsplit(proxy.upstream).netloc

            def fault(self) -> Fault | None:
                with lock:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    request = Request(len(proxy.requests), self.command, self.path, headers)
                    proxy.requests.append(request)
                    return proxy.plan(request)

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def count(self, method: str) -> int:
        return sum(request.method == method for request in self.requests)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: str

    def fault(self) -> Fault | None:
        raise NotImplementedError

    def log_message(self, *_: object) -> None:
        pass

    def handle_request(self) -> None:
        fault = self.fault()
        kind = fault.kind if fault else None
        length = int(self.headers.get("Content-Length", 0))
        if kind == "reset_upload":
            self.rfile.read(length // 2)
        body = bytearray() if kind == "reset_upload" else bytearray(self._read_chunks() or self.rfile.read(length))
        if kind in ("reset", "reset_upload"):
            self._reset()
            return
        if fault and kind == "silent":
            time.sleep(fault.seconds)
            self.close_connection = True
            return
        if fault and kind == "error":
            answer = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>a fault</Message></Error>".encode()
            self._send(fault.status, {"Content-Length": str(len(answer)), "Content-Type": "application/xml"}, answer)
            return
        if fault and kind == "corrupt_upload" and body:
            body[fault.at] ^= 0xFF
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        sent = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
        connection.request(self.command, self.path, bytes(body), sent)
        answer = connection.getresponse()
        content = bytearray(answer.read())
        connection.close()
        if kind == "lost":
            self._reset()
            return
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in ("connection", "date")}
        self._answer(answer.status, headers, content, fault)

    def _read_chunks(self) -> bytes:
        """A body in chunks, which is how `requests` sends an empty file; empty where there are none."""
        content = b""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return content

    do_GET = do_PUT = do_POST = do_PATCH = do_HEAD = do_DELETE = handle_request

    def _answer(self, status: int, headers: dict[str, str], content: bytearray, fault: Fault | None) -> None:
        if fault is None:
            self._send(status, headers, content)
        elif fault.kind == "corrupt":
            if content:
                content[fault.at] ^= 0xFF
            self._send(status, headers, content)
        elif fault.kind == "trickle":
            self._send(status, headers, b"")
            for start in range(0, len(content), 1 << 16):
                time.sleep(fault.seconds)
                self.wfile.write(content[start : start + (1 << 16)])
        elif fault.kind == "stall":
            self._send(status, headers, content[: fault.at])
            time.sleep(fault.seconds)
            self.wfile.write(content[fault.at :])
        else:
            self._send(status, headers, content[: fault.at])
            if fault.kind == "reset_body":
                time.sleep(0.05)  # a reset overtakes what is underway
                self._reset()
            self.close_connection = True

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
            self.wfile.flush()

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # a copy of the socket would keep the connection open: the streams have one each
        self.wfile.close()
        self.rfile.close()
        self.connection.close()
        self.close_connection = True

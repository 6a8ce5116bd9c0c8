"""Runs the service's application with uvicorn: one process, which drains at SIGTERM, and waits for no slow client."""

import asyncio
import errno
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from components.services.serving.limits import Limits
from dagnn_core.errors import InputError

BACKLOG = 1024
DRAIN_SECONDS = 30
KEEP_ALIVE_SECONDS = 15  # without a byte, after an answer
LINGER_SECONDS = 2.0  # a client may go on to send what was refused


def open_socket(host: str, port: int) -> socket.socket:
    """Listen on an address; a port of 0 is any free one.

    Raises:
        InputError: the port is in use, or the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise InputError(f"{host} is no address of this machine ({error})", "correct --host") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        remedies = {
            errno.EADDRINUSE: (f"port {port} of {host} is in use", "end what uses it, or choose another --port"),
            errno.EACCES: (f"port {port} of {host} is not permitted", "choose another --port, above 1023"),
        }
        unknown = f"port {port} of {host} cannot be used ({error.strerror})", "correct --host"
        raise InputError(*remedies.get(error.errno or 0, unknown)) from error
    return listener


def address_of(listener: socket.socket) -> str:
    """The URL of what listens there."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_server(app: ASGIApp, listener: socket.socket, limits: Limits, start: Callable[[], None]) -> None:
    """Answer requests until SIGTERM or Ctrl-C; requests in flight are answered first.

    Args:
        app: the application.
        listener: where it listens.
        limits: what clients may do.
        start: runs beside it, on a thread: loads what answers. Its failure ends the server.

    Raises:
        Exception: what `start` raised.
    """
    server = _Server(app, limits)
    failures: list[BaseException] = []

    def run_start() -> None:
        try:
            start()
        except BaseException as error:
            failures.append(error)
            server.should_exit = True

    threading.Thread(target=run_start, name="start", daemon=True).start()
    server.run(sockets=[listener])
    if failures:
        raise failures[0]


class _Server(uvicorn.Server):
    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        class Protocol(_Protocol):
            pass

        Protocol.limits = limits
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                log_level="error",  # what clients do wrong is counted, not logged
                access_log=False,
                server_header=False,
                proxy_headers=False,  # else a client could choose whose rate it spends
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=DRAIN_SECONDS,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals end the server and nothing else: uvicorn would raise them again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Lingering:
    """A transport that, closed while its client still sends, discards what comes and lets the client read the answer.

    Closed at once, the system would reset the connection, and the client would lose the answer.
    """

    def __init__(self, transport: asyncio.Transport, protocol: "_Protocol") -> None:
        self._transport, self._protocol = transport, protocol
        self._is_lingering = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._is_lingering or self._transport.is_closing()

    def close(self) -> None:
        if self._protocol.conn.their_state not in (h11.SEND_BODY, h11.ERROR):
            self._transport.close()
        elif not self.is_closing():
            self._is_lingering = True
            self._transport.resume_reading()
            self._transport.write_eof()
            self._protocol.loop.call_later(LINGER_SECONDS, self._transport.abort)


class _Protocol(H11Protocol):
    """HTTP/1.1 as uvicorn has it, and an end for connections that send no request, or none to its end."""

    limits: Limits

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        super().connection_made(cast(asyncio.Transport, _Lingering(transport, self)))
        if len(self.connections) > self.limits.connections:
            transport.abort()
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; those of a head must be whole in time."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._expect_head()
        else:
            self._expect_nothing()

    def on_response_complete(self) -> None:
        """Give a client that still sends a body which was refused a moment to read why."""
        if self.conn.their_state is h11.SEND_BODY:
            self.loop.call_later(LINGER_SECONDS, self.transport.abort)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in JSON, as everything else."""
        body = json.dumps({"error": "this is no HTTP/1.1", "remedy": "check the client"}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        events = (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage())
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.body_seconds, self.transport.abort)

    def _expect_nothing(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

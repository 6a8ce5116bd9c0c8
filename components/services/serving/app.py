"""The service's HTTP: which address does what, and what comes before the work: token, rate, size and queue."""

import asyncio
import hashlib
import hmac
import json
import logging
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.output import error_line
from components.services.serving import schemas
from components.services.serving.limits import Limits, Rates, RequestError, client_of
from components.services.serving.metrics import Metrics
from components.services.serving.service import SearchService
from dagnn_core.errors import BackendError, DagnnError, UnexpectedError
from dagnn_core.text import one_line

log = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("page")
OPEN = ("/", "/docs", "/healthz", "/openapi.json", "/readyz")
"""Addresses that need no token: they show nothing of the index."""
OPEN_BELOW = ("/assets/", "/docs/")
BODIES = 16
"""Bodies of the largest size that are held at once, on their way in or in the queue."""
JSON = "application/json"
THUMBNAIL_SECONDS = 300
"""How long a browser shows a thumbnail without asking again."""

_HEADERS = {
    # the page shows thumbnails, and images that are dropped on it, as blobs: an address cannot carry a token
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_RAW_HEADERS = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

T = TypeVar("T")


def create_app(service: SearchService, threads: Executor, *, tokens: Sequence[str] = ()) -> ASGIApp:
    """The application.

    Args:
        service: what answers.
        threads: where it works.
        tokens: those that are accepted; none: anybody is answered.
    """
    app = FastAPI(title="DAGNN search", version="1", docs_url=None, redoc_url=None, openapi_url=None)
    door = _Door(service, threads)
    _add_searches(app, door)
    _add_lookups(app, service)
    _add_state(app, service)
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")]))
    app.mount("/assets", StaticFiles(directory=PAGE))
    gate = _Gate(app, service.metrics, Rates(service.limits.rate), tokens)
    app.add_exception_handler(HTTPException, _of_starlette)
    for kind in (DagnnError, Exception):
        app.add_exception_handler(kind, gate.failure)
    return gate


def _add_searches(app: FastAPI, door: "_Door") -> None:
    service = door.service

    @app.post("/search", **_documented("Search with one query.", schemas.Answer, takes=schemas.SearchRequest))
    async def search(request: Request) -> Response:
        body = await door.body(request, JSON)
        return _json(await door.work(lambda: service.search(body, request=_name_of(request)), body))

    parameters = [
        {"name": name, "in": "query", "schema": schema}
        for name, schema in schemas.Options.model_json_schema()["properties"].items()
    ]

    @app.post(
        "/search/image",
        **_documented("Search with an encoded image as the body.", schemas.Answer, parameters=parameters),
    )
    async def search_image(request: Request) -> Response:
        body = await door.body(request, "image/", "application/octet-stream", "")
        found: dict[str, Any] = dict(request.query_params)
        if "filters" in found:
            found["filters"] = request.query_params.getlist("filters")
        return _json(await door.work(lambda: service.search_image(body, found, request=_name_of(request)), body))

    @app.post(
        "/search/batch", **_documented("Search with many queries.", schemas.BatchAnswer, takes=schemas.BatchRequest)
    )
    async def search_batch(request: Request) -> Response:
        body = await door.body(request, JSON)

        def answer() -> bytes:
            asked = service.parse_batch(body)
            request.scope["dagnn.charge"](len(asked) - 1)
            return service.search_batch(asked, request=_name_of(request))

        return _json(await door.work(answer, body))


def _add_lookups(app: FastAPI, service: SearchService) -> None:
    @app.get("/index", **_documented("Describe the index and the model.", schemas.IndexDescription))
    def index() -> Response:
        return _json(service.describe())

    @app.get("/items/{id:path}", **_documented("Show an item.", schemas.Item))
    def item(id: str) -> Response:
        return _json(service.item(id))

    @app.get("/thumbnails/{id:path}", summary="Show a small copy of an item's image (JPEG).", response_class=Response)
    def thumbnail(request: Request, id: str) -> Response:
        jpeg, tag = service.thumbnail(id)
        headers = {"etag": tag, "cache-control": f"private, max-age={THUMBNAIL_SECONDS}"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(jpeg, media_type="image/jpeg", headers=headers)


def _add_state(app: FastAPI, service: SearchService) -> None:
    page, reference = ((PAGE / name).read_bytes() for name in ("index.html", "docs.html"))

    @app.get("/", include_in_schema=False)
    async def show_page() -> Response:
        return Response(page, media_type="text/html", headers={"cache-control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    async def show_reference() -> Response:
        return Response(reference, media_type="text/html", headers={"cache-control": "no-cache"})

    @app.get("/healthz", **_documented("Whether the process lives.", schemas.Alive))
    async def healthz() -> Response:
        return _json(b'{"alive": true}')

    @app.get("/readyz", **_documented("Whether searches are answered (503: not yet).", schemas.Readiness))
    async def readyz() -> Response:
        is_ready, said = service.ready()
        return _json(said, 200 if is_ready else 503)

    @app.get("/metrics", summary="Metrics, as Prometheus reads them.", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        kinds = (schemas.SearchRequest, schemas.BatchRequest)
        for kind in kinds:
            schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
            document["components"]["schemas"] |= {**schema.pop("$defs", {}), kind.__name__: schema}
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{}, {"token": []}]
        return _json(json.dumps(document).encode())


class _Door:
    """Brings bodies in and work to the threads, both bounded."""

    def __init__(self, service: SearchService, threads: Executor) -> None:
        self.service = service
        self._limits, self._metrics, self._threads = service.limits, service.metrics, threads
        self._num_pending = 0
        self._num_held = 0

    async def body(self, request: Request, *kinds: str) -> bytes:
        """Read the body of a request, of one of some content types.

        Raises:
            RequestError: it has another type, is too large, or does not come.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not any(kind == known or (known.endswith("/") and kind.startswith(known)) for known in kinds):
            known = " or ".join(f"{name}*" if name.endswith("/") else name for name in kinds if name)
            raise RequestError(415, f"the content type is {kind or 'missing'}", f"send {known}", reason="type")
        declared = request.headers.get("content-length", "0")
        if int(declared) > self._limits.body_bytes:  # digits: the server has checked them
            raise _too_large(self._limits)
        chunks, size = [], 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                async for chunk in request.stream():
                    chunks.append(chunk)
                    size += len(chunk)
                    self._num_held += len(chunk)
                    if size > self._limits.body_bytes:
                        raise _too_large(self._limits)
                    if self._num_held > BODIES * self._limits.body_bytes:
                        raise _busy("too many large requests at once")
        except BaseException as error:
            self._num_held -= size
            if isinstance(error, ClientDisconnect):
                raise RequestError(400, "the client left before all of the body had come", reason="gone") from error
            if isinstance(error, TimeoutError):
                raise RequestError(
                    408, f"the body did not come within {self._limits.body_seconds:g} s", "try again", reason="slow"
                ) from error
            raise
        return b"".join(chunks)

    async def work(self, function: Callable[[], T], body: bytes) -> T:
        """Run a function on the threads, and let go of its body.

        Raises:
            RequestError: too many wait already (503).
        """
        try:
            if self._num_pending >= self._limits.queue:
                raise _busy(f"{self._num_pending} requests wait already")
            self._num_pending += 1
            self._metrics.queue.set(self._num_pending)
            try:
                with self._metrics.stage("whole"):
                    return await asyncio.get_running_loop().run_in_executor(self._threads, function)
            finally:
                self._num_pending -= 1
                self._metrics.queue.set(self._num_pending)
        finally:
            self._num_held -= len(body)


class _Gate:
    """Around everything: token, rate, headers, and failures as JSON."""

    def __init__(self, app: ASGIApp, metrics: Metrics, rates: Rates, tokens: Sequence[str]) -> None:
        self._app, self._metrics, self._rates = app, metrics, rates
        self._tokens = [hashlib.sha256(token.encode()).digest() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = has_ended = False

        async def send_on(message: Message) -> None:
            nonlocal has_started, has_ended
            has_started = True
            has_ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_RAW_HEADERS]
                self._metrics.answers.labels(str(message["status"])).inc()
            await send(message)

        try:
            client = self._check(scope)
            scope["dagnn.charge"] = lambda queries: self._rates.charge(client, queries)
            if scope["method"] == "POST":
                self._rates.spend(client)
            await self._app(scope, receive, send_on)
        except Exception as error:
            if not has_started:
                await (await self.failure(Request(scope), error))(scope, receive, send_on)
            elif not has_ended:  # else Starlette raises what has been answered
                raise

    def _check(self, scope: Scope) -> str:
        """The client, which has a token where one is needed."""
        path = scope["path"]
        address = client_of(scope["client"][0]) if scope.get("client") else ""
        if not self._tokens or path in OPEN or path.startswith(OPEN_BELOW):
            return address
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, token = given.partition(b" ")
        digest = hashlib.sha256(token.strip()).digest()
        # every token is compared, in constant time
        places = [place for place, known in enumerate(self._tokens) if hmac.compare_digest(digest, known)]
        if scheme.lower() != b"bearer" or not places:
            raise RequestError(
                401,
                "the token is missing or wrong",
                "send it in the header Authorization, after the word Bearer",  # what follows that word would be hidden
                reason="token",
            )
        return f"token {places[0]}"

    async def failure(self, _: Request, error: Exception) -> Response:
        """What a request that failed is answered."""
        if isinstance(error, RequestError):
            self._metrics.rejected.labels(error.reason).inc()
            headers = {"retry-after": str(error.retry_after)} if error.retry_after else {}
            if error.status == 401:
                headers["www-authenticate"] = "Bearer"
            return _failed(error.status, error, headers)
        if isinstance(error, DagnnError) and not isinstance(error, UnexpectedError):
            if isinstance(error, BackendError):
                log.error("%s", error_line(error))
                return _failed(503, error, {"retry-after": "5"})
            self._metrics.rejected.labels("query").inc()
            return _failed(422, error)
        log.error("a request failed: %s", one_line(error), exc_info=error)
        return _failed(500, DagnnError("the service failed", "see its log"))


def _name_of(request: Request) -> str:
    """What the log calls a request: as its sender or a proxy does, so that the logs of two services can be joined."""
    given = request.headers.get("x-request-id", "")
    return given if re.fullmatch(r"[\w.:-]{1,64}", given, re.ASCII) else uuid4().hex


def _failed(status: int, error: DagnnError, headers: dict[str, str] | None = None) -> Response:
    said = {"error": one_line(error.what), "remedy": one_line(error.remedy) if error.remedy else ""}
    return _json(json.dumps(said).encode(), status, headers)


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, {"cache-control": "no-store", **(headers or {})}, JSON)


async def _of_starlette(_: Request, error: Exception) -> Response:
    """No such address, or no such method there."""
    assert isinstance(error, HTTPException)
    what = {404: "there is no such address", 405: "the address takes another method"}.get(
        error.status_code, str(error.detail)
    )
    return _failed(error.status_code, DagnnError(what, "see /docs for the addresses"), dict(error.headers or {}))


def _too_large(limits: Limits) -> RequestError:
    return RequestError(
        413,
        f"the body is larger than {limits.body_bytes} bytes",
        "send a smaller image or a smaller batch",
        reason="size",
    )


def _busy(why: str) -> RequestError:
    return RequestError(503, f"the service is busy: {why}", "try again soon", reason="queue", retry_after=1)


def _documented(
    summary: str,
    gives: type[BaseModel],
    *,
    takes: type[BaseModel] | None = None,
    parameters: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """What the OpenAPI document says of an address; FastAPI itself checks nothing, and copies no answer."""
    if takes is not None:
        schema: dict[str, Any] = {JSON: {"schema": {"$ref": f"#/components/schemas/{takes.__name__}"}}}
    else:
        schema = {"image/*": {"schema": {"type": "string", "format": "binary"}}}
    extra: dict[str, Any] = {}
    if takes is not None or parameters:
        extra["requestBody"] = {"required": True, "content": schema}
    if parameters:
        extra["parameters"] = list(parameters)
    return {
        "summary": summary,
        "response_class": Response,
        "responses": {200: {"model": gives}, "4XX": {"model": schemas.Failure}, "5XX": {"model": schemas.Failure}},
        "openapi_extra": extra,
    }

"""`dagnn serve`: searches over HTTP."""

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.locations import INDEX, INDICES, MODEL, MODELS
from dagnn_core.errors import InputError

if TYPE_CHECKING:
    from components.services.serving.following import Follower
    from components.services.serving.service import SearchService

MIN_TOKEN = 16  # characters
MEGA = 1_000_000


def serve(
    *,
    index: Annotated[
        Path | None, typer.Option(help=f"Folder of the index; it is taken again when it changes. [default: {INDEX}]")
    ] = None,
    indexes: Annotated[
        str | None,
        typer.Option(metavar="DIR|s3://...", help="Folder, or prefix of S3, that has an index of each model."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(help="Model artifact, or a registered version, whose alias is followed."),
    ] = str(MODEL),
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8000,
    poll_seconds: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two looks for a newer model or index.")
    ] = 10.0,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the tokens that clients must send, one a line; default: none.")
    ] = None,
    query_log: Annotated[
        Path | None, typer.Option(help="File to which each query is appended as a line of JSON; default: none.")
    ] = None,
    shadow: Annotated[
        str,
        typer.Option(
            metavar="models:/NAME@ALIAS",
            help="Model that is asked the same, for its log alone: FILE.shadow.jsonl beside --query-log FILE.jsonl.",
        ),
    ] = "",
    threads: Annotated[int, typer.Option(min=0, help="Searches at the same time; 0: one for each processor.")] = 0,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait or run; more are answered 503.")] = 64,
    rate: Annotated[
        float, typer.Option(min=0, help="Queries a second of one client (token, else address); 0: any.")
    ] = 50.0,
    max_connections: Annotated[int, typer.Option(min=1, help="Connections at the same time.")] = 1000,
    max_body: Annotated[float, typer.Option(min=0.001, help="Megabytes of a request.")] = 16.0,
    max_pixels: Annotated[float, typer.Option(min=0.001, help="Megapixels of an image.")] = 50.0,
    max_k: Annotated[int, typer.Option(min=1, help="Results of a query.")] = 200,
    max_batch: Annotated[int, typer.Option(min=1, help="Queries of a batch.")] = 64,
    max_text: Annotated[int, typer.Option(min=1, help="Characters of a text.")] = 2000,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Seconds in which a request must have come.")] = 20.0,
) -> None:
    """Answer searches over HTTP, with a page for the browser.

    Follows the alias of a registered model: a new champion and its index are loaded beside what is served, and swapped
    in without a dropped request. SIGTERM and Ctrl-C answer what is in flight, and end.
    """
    from components.services.serving.limits import Limits
    from components.services.serving.server import address_of, open_socket, run_server

    if index is not None and indexes is not None:
        raise InputError("--index and --indexes exclude each other", "give one of them")
    if shadow and (indexes is None or query_log is None):
        raise InputError(
            "--shadow needs the index of a second model, and a place for what it finds", "add --indexes and --query-log"
        )
    tokens = _read_tokens(token_file) if token_file is not None else []
    limits = Limits(
        body_bytes=int(max_body * MEGA),
        body_seconds=max_seconds,
        image_pixels=int(max_pixels * MEGA),
        k=max_k,
        batch=max_batch,
        text_characters=max_text,
        queue=queue,
        rate=rate,
        connections=max_connections,
    )
    with open_socket(host, port) as listener:  # before what takes seconds to load
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # searches run beside each other instead
        from concurrent.futures import ThreadPoolExecutor

        from components.services.serving.app import create_app
        from components.services.serving.metrics import Metrics
        from components.services.serving.query_log import QueryLog
        from components.services.serving.service import SearchService
        from components.services.serving.shadow import ShadowModel, log_of_shadow

        metrics, stop = Metrics(), threading.Event()
        shadow_model = shadow_follower = None
        if shadow and query_log is not None:
            own = Metrics()
            beside = SearchService(limits, own, QueryLog(log_of_shadow(query_log), own))
            shadow_model = ShadowModel(beside, metrics)
            shadow_follower = _follower(beside, shadow, index or INDEX, indexes, served="the shadow")
        log_of_answers = QueryLog(query_log, metrics) if query_log is not None else None
        service = SearchService(limits, metrics, log_of_answers, shadow_model)
        follower = _follower(service, model, index or INDEX, indexes)

        def start() -> None:
            follower.start()
            if shadow_follower is not None:  # unlike the model that answers, it may be missing
                looks = threading.Thread(
                    target=_follow_from_now, args=(shadow_follower, stop, poll_seconds), daemon=True
                )
                looks.start()
            typer.echo(f"ready at {address_of(listener)}: {len(service.served.index)} items; Ctrl-C ends it")
            follower.follow(stop, poll_seconds)

        try:
            with ThreadPoolExecutor(threads or _num_processors(), thread_name_prefix="search") as pool:
                run_server(create_app(service, pool, tokens=tokens), listener, limits, start)
        finally:
            stop.set()
            if shadow_model is not None:
                shadow_model.close()


def _follow_from_now(follower: "Follower", stop: threading.Event, seconds: float) -> None:
    follower.look()
    follower.follow(stop, seconds)


def _num_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _follower(
    service: "SearchService", model: str, index: Path, indexes: str | None, served: str = "what is served"
) -> "Follower":
    from components.services.lineage.tree import parse_reference
    from components.services.serving.following import Follower, Indices, ModelFolder, Models, ModelVersion
    from components.services.serving.indices import IndexAt, IndexBucket, IndexFolder
    from components.services.serving.models import PREFIX
    from components.services.storage.s3 import Storage
    from components.services.tracking.mlflow import IMPATIENT, Tracking

    has_registry = model.startswith(PREFIX)
    if has_registry:
        for name, value in IMPATIENT.items():
            os.environ.setdefault(name, value)  # a registry that is down is asked again at the next look
    models: Models = (
        ModelVersion(parse_reference(model), Tracking.from_environment(), MODELS)
        if has_registry
        else ModelFolder(Path(model))
    )
    indices: Indices = IndexAt(index)
    if indexes is not None:
        is_bucket = indexes.startswith("s3://")
        indices = IndexBucket(indexes, Storage(), INDICES) if is_bucket else IndexFolder(Path(indexes))
    return Follower(service, models, indices, has_registry=has_registry, served=served)


def _read_tokens(path: Path) -> list[str]:
    """The tokens of a file, which no message shows from now on."""
    from dagnn_core.redaction import hide

    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}), expected a token a line", "correct --token-file") from error
    tokens = [line.strip() for line in lines if line.strip()]
    hide(tokens)
    for number, token in enumerate(tokens, start=1):
        if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
            raise InputError(
                f"token {number} of {path} is none, expected at least {MIN_TOKEN} letters, digits and signs",
                "make one with: openssl rand -hex 32",
            )
    if not tokens:
        raise InputError(f"{path} has no token", "make one with: openssl rand -hex 32")
    return tokens

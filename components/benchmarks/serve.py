"""The program behind `dagnn bench serve`: latency and rate of the search service, by real requests over HTTP."""

import itertools
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from dagnn_core.artifacts import read_artifact, write_artifact
from dagnn_core.errors import BackendError, InputError
from dagnn_core.search.index import ITEMS, KIND, MODALITIES, REJECTED, REJECTED_SCHEMA

CLIENTS = (1, 8, 32)
SHARE = 0.8
"""Of the highest rate, at which the service is asked for minutes."""
STAGES = ("decode", "embed", "search", "whole")
MAX_TEXTS = 500
MIB = 1 << 20
SECONDS_BETWEEN_SAMPLES = 1.0


class Answered(NamedTuple):
    """What requests gave."""

    seconds: list[float]
    num_errors: int


class Service(NamedTuple):
    """A service that runs."""

    port: int
    process: psutil.Process

    def ask(self, text: str, connection: HTTPConnection) -> bool:
        """Search by a text; returns whether it was answered."""
        body = json.dumps({"text": text})
        try:
            connection.request("POST", "/search", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
        except (OSError, HTTPException):
            connection.close()  # the next request connects again
            return False
        return answer.status == 200

    def stages(self) -> dict[str, tuple[float, float]]:
        """Seconds and requests of each stage so far."""
        connection = HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", "/metrics")
        families = text_string_to_metric_families(connection.getresponse().read().decode())
        connection.close()
        samples = {
            (sample.name, sample.labels.get("stage")): sample.value for family in families for sample in family.samples
        }
        name = "dagnn_search_seconds"
        return {stage: (samples[f"{name}_sum", stage], samples[f"{name}_count", stage]) for stage in STAGES}


def run(
    *,
    command: Sequence[str],
    index: Path,
    model: str,
    items: int,
    clients: Sequence[int] = CLIENTS,
    seconds: float = 10.0,
    minutes: float = 0.0,
) -> dict[str, float]:
    """Search by the texts of an index, from several clients that ask again at once; then for minutes at a steady rate.

    Args:
        command: starts the service; options are added.
        index: the index.
        model: the model that made it.
        items: as many as the index gets, by repeating its own with other vectors nearby.
        clients: how many ask at the same time, one after the other.
        seconds: how long, for each number of clients.
        minutes: how long at SHARE of the highest rate; 0: not at all.

    Returns:
        For each number of clients: milliseconds of a request (median and 99th percentile), requests per second, errors;
        mean milliseconds of the stages; of the steady rate the same, and by how much the memory of the service grew
        from a fifth of the time on.

    Raises:
        ArtifactError: the index is damaged.
        BackendError: the service did not start, or answers nothing.
    """
    with tempfile.TemporaryDirectory(prefix="dagnn-bench-") as folder:
        grown = _grow(index, Path(folder) / "index", items)
        texts = _texts(grown)
        options = ["--index", str(grown), "--model", model, "--port", "0", "--rate", "0", "--queue", "1000"]
        with _running([*command, *options]) as service:
            texts = _answerable(service, texts)
            figures = {"items": float(items)}
            rates = []
            for number in clients:
                before = service.stages()
                done = _ask_at_once(service, texts, number, seconds)
                rates.append(len(done.seconds) / seconds)
                figures |= {f"{number} clients: {name}": value for name, value in _figures(done, seconds).items()}
                for stage, (total, count) in service.stages().items():
                    mean = (total - before[stage][0]) / max(1.0, count - before[stage][1])
                    figures[f"{number} clients: {stage}, ms, mean"] = 1e3 * mean
            if minutes:
                figures |= _steady(service, texts, SHARE * max(rates), 60 * minutes)
    return figures


def _figures(done: Answered, seconds: float) -> dict[str, float]:
    latencies = done.seconds or [float("nan")]
    return {
        "ms, median": 1e3 * float(np.median(latencies)),
        "ms, 99th percentile": 1e3 * float(np.percentile(latencies, 99)),
        "requests per second": len(done.seconds) / seconds,
        "errors": float(done.num_errors),
    }


def _ask_at_once(service: Service, texts: Sequence[str], clients: int, seconds: float) -> Answered:
    """Each client asks again as soon as it is answered."""
    end = time.perf_counter() + seconds

    def ask(first: int) -> Answered:
        return _ask(service, itertools.islice(itertools.cycle(texts), first, None), lambda: time.perf_counter() < end)

    with ThreadPoolExecutor(clients) as threads:
        return _joined(list(threads.map(ask, range(clients))))


def _ask(
    service: Service, texts: Iterator[str], is_wanted: Callable[[], bool], starts: Iterator[float] | None = None
) -> Answered:
    """Ask one text after the other; with `starts`, each at its time, from which the seconds count."""
    connection = HTTPConnection("127.0.0.1", service.port, timeout=60)
    seconds, num_errors = [], 0
    while is_wanted():
        start = time.perf_counter() if starts is None else next(starts)
        time.sleep(max(0.0, start - time.perf_counter()))
        if service.ask(next(texts), connection):
            seconds.append(time.perf_counter() - start)
        else:
            num_errors += 1
    connection.close()
    return Answered(seconds, num_errors)


def _joined(parts: Sequence[Answered]) -> Answered:
    return Answered([value for part in parts for value in part.seconds], sum(part.num_errors for part in parts))


def _steady(service: Service, texts: Sequence[str], rate: float, seconds: float, clients: int = 32) -> dict[str, float]:
    """Ask at a steady rate, whether or not the answers keep up."""
    begin = time.perf_counter()
    memory: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SECONDS_BETWEEN_SAMPLES):
            memory.append(service.process.memory_info().rss)

    def ask(first: int) -> Answered:
        starts = (begin + number / rate for number in itertools.count(first, clients))
        remaining = itertools.islice(itertools.cycle(texts), first, None)
        return _ask(service, remaining, lambda: time.perf_counter() < begin + seconds, starts)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(clients) as threads:
            answered = _joined(list(threads.map(ask, range(clients))))
    finally:
        done.set()
        watcher.join()
    figures = {"rate asked for": rate, **_figures(answered, seconds), "memory at the end, MiB": memory[-1] / MIB}
    tenth = max(1, len(memory) // 10)
    early = float(np.median(memory[2 * tenth : 3 * tenth] or memory[:1]))
    figures["growth of memory, MiB"] = (float(np.median(memory[-tenth:])) - early) / MIB
    return {f"steady: {name}": value for name, value in figures.items()}


def _answerable(service: Service, texts: Sequence[str]) -> list[str]:
    """The texts of which the model knows a word; asking warms the service up."""
    connection = HTTPConnection("127.0.0.1", service.port, timeout=60)
    known = [text for text in texts if service.ask(text, connection)]
    connection.close()
    if not known:
        raise BackendError("the service answers none of the texts of the index", "see what it says")
    return known


def _texts(index: Path) -> list[str]:
    texts = pq.read_table(read_artifact(index, KIND).file(ITEMS), columns=["text"])["text"].to_pylist()
    found = list(dict.fromkeys(text for text in texts if text))[:MAX_TEXTS]
    if not found:
        raise InputError(f"{index} has no texts, expected some to search by", "give another index")
    return found


def _grow(index: Path, out: Path, items: int) -> Path:
    """Make a larger index of the items of one, in turn, each with vectors a little apart."""
    source = read_artifact(index, KIND)
    if items <= source.content["num_items"]:
        return index
    rows = np.arange(items) % source.content["num_items"]
    rng = np.random.default_rng(0)
    with write_artifact(out, kind=KIND, provenance={}) as draft:
        table = pq.read_table(source.file(ITEMS)).take(pa.array(rows))
        ids = pa.array([f"item-{number}" for number in range(items)])
        pq.write_table(table.set_column(table.column_names.index("id"), "id", ids), draft.path / ITEMS)
        pq.write_table(REJECTED_SCHEMA.empty_table(), draft.path / REJECTED)
        present = {}
        for modality in MODALITIES:
            vectors: NDArray[np.float32] = np.load(source.file(f"{modality}.npy"), allow_pickle=False)[rows]
            present[modality] = int(vectors.any(axis=1).sum())
            # smaller, so that probabilities stay probabilities
            nearby = vectors * rng.uniform(0.8, 1, vectors.shape).astype(np.float32)
            np.save(draft.path / f"{modality}.npy", nearby.astype(source.content["dtype"]), allow_pickle=False)
        np.save(draft.path / "thumbnails.npy", np.zeros(0, np.uint8), allow_pickle=False)
        np.save(draft.path / "thumbnail_ends.npy", np.zeros(items, np.int64), allow_pickle=False)
        draft.content = source.content | {
            "num_items": items,
            "num_images": present["image"],
            "num_texts": present["text"],
            "num_rejected": 0,
            "exact_limit": max(items, source.content["exact_limit"]),
            "cells": {},
        }
    return out


@contextmanager
def _running(command: Sequence[str]) -> Iterator[Service]:
    """The service, once it is ready."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", errors="replace") as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("ready at "):
                raise BackendError("the service did not start", "see what it says")
            yield Service(int(line.split(":")[2]), psutil.Process(process.pid))
        finally:
            process.terminate()

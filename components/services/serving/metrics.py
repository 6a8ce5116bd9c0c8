"""What the service measures of itself, in the format of Prometheus."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

Stage = Literal["decode", "embed", "search", "whole"]

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Metrics:
    """The metrics of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, processor time, open files
        self.seconds = Histogram(
            "dagnn_search_seconds",
            "Seconds of a request: decode (parse, check), embed, search (filter, rank), and whole with the queue.",
            ["stage"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.answers = Counter("dagnn_answers", "Answers by HTTP status.", ["status"], registry=self.registry)
        self.queries = Counter("dagnn_queries", "Queries that were answered.", ["kind"], registry=self.registry)
        self.rejected = Counter("dagnn_rejected", "Requests refused, by reason.", ["reason"], registry=self.registry)
        self.queue = Gauge("dagnn_queue_length", "Requests that wait for a thread or run.", registry=self.registry)
        self.items = Gauge("dagnn_index_items", "Items of the index.", registry=self.registry)
        self.model = Gauge(
            "dagnn_model_info",
            "1 for the model served.",
            ["name", "version", "digest", "index"],
            registry=self.registry,
        )
        self.swaps = Counter("dagnn_swaps", "Times that another model or index was taken.", registry=self.registry)
        self.swap_failures = Counter(
            "dagnn_swap_failures", "Times that a newer model or index could not be taken.", registry=self.registry
        )
        self.registry_reachable = Gauge(
            "dagnn_registry_reachable", "1 while the registry of models answers; 1 without one.", registry=self.registry
        )
        self.log_failures = Counter(
            "dagnn_query_log_failures", "Lines that the query log lacks, as of a full disk.", registry=self.registry
        )
        self.shadow = Counter(
            "dagnn_shadow",
            "Requests that the shadow answered, failed at or skipped.",
            ["outcome"],
            registry=self.registry,
        )

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Time the body as a stage of a request."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds.labels(name).observe(time.perf_counter() - start)

    def serve(self, *, items: int, name: str, version: str, digest: str, index: str) -> None:
        """Note which model and index answer from now on."""
        self.items.set(items)
        self.model.clear()
        self.model.labels(name=name, version=version, digest=digest, index=index).set(1)

    def text(self) -> bytes:
        """All metrics, as Prometheus reads them."""
        return generate_latest(self.registry)

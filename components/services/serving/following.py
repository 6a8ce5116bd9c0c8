"""Keeps the newest model and its index in service: follows an alias of the registry, and the folder of an index."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from components.command import failure_of
from components.output import error_line
from components.services.lineage.tree import Reference
from components.services.serving.indices import Found
from components.services.serving.models import fetch_model, find_version
from components.services.serving.service import Readiness, SearchService, Served
from components.services.tracking.mlflow import Tracking
from dagnn_core.artifacts import read_artifact
from dagnn_core.errors import ArtifactError, BackendError, DagnnError, InputError
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.search.index import KIND, Query, SearchIndex
from dagnn_core.text import one_line

log = logging.getLogger(__name__)

RETRY_SECONDS = 60.0
"""Until a model or an index that was refused is tried again, unchanged."""


class Version(NamedTuple):
    """The model that is to be served."""

    digest: str
    name: str | None = None
    number: str | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.number}" if self.name else f"model {self.digest[:12]}"


class Models(Protocol):
    """Where the model comes from."""

    def newest(self) -> Version:
        """The model that is to be served now."""

    def fetch(self, version: Version) -> Path:
        """Folder of a model."""


class Indices(Protocol):
    """Where indices come from."""

    def find(self, model_digest: str) -> Found:
        """The index that a model made."""

    def fetch(self, found: Found) -> Path:
        """Folder of an index."""


class ModelFolder:
    """A model artifact in a folder."""

    registry = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def newest(self) -> Version:
        """The model that is there now."""
        return Version(read_artifact(self._folder, "model").content_digest)

    def fetch(self, version: Version) -> Path:
        """The folder."""
        return self._folder


class ModelVersion:
    """A version of a registered model, or the one that has an alias."""

    def __init__(self, reference: Reference, tracking: Tracking, cache: Path) -> None:
        self._reference, self._tracking, self._cache = reference, tracking, cache

    def newest(self) -> Version:
        """The version that has the alias now."""
        name, number, digest = find_version(self._reference, self._tracking)
        return Version(digest, name, number)

    def fetch(self, version: Version) -> Path:
        """Download it, unless it is there."""
        return fetch_model(f"models:/{version.name}/{version.number}", self._tracking, self._cache)


class Follower:
    """Looks for a newer model or index, loads it beside what is served, and swaps both at once.

    Args:
        service: what answers.
        models: where the model comes from.
        indices: where its index comes from.
        has_registry: whether `models` asks a registry.
        served: what the log calls the model that answers.
    """

    def __init__(
        self,
        service: SearchService,
        models: Models,
        indices: Indices,
        *,
        has_registry: bool,
        served: str = "what is served",
    ) -> None:
        self._service, self._models, self._indices = service, models, indices
        self._name = served
        self._has_registry = has_registry
        self._down_since: str | None = None
        self._fault: str | None = None
        self._refused: tuple[tuple[Version, str], InputError] | None = None
        self._retry_at = 0.0
        self._served: tuple[Version, str] | None = None

    def start(self) -> None:
        """Load the first model and index.

        Raises:
            DagnnError: they cannot be served.
        """
        version = self._models.newest()
        self._tell(loading=str(version))
        self._take(version, self._indices.find(version.digest))
        self._tell()

    def follow(self, stop: threading.Event, seconds: float) -> None:
        """Look every so many seconds, until the event is set; failures are logged once, and what is served stays."""
        while not stop.wait(seconds):
            self.look()

    def look(self) -> None:
        """Look once, and take what is newer; a failure is logged once."""
        try:
            self._update()
            self._fault = None
        except Exception as error:
            fault = error_line(failure_of(error))
            if fault != self._fault:
                log.warning(
                    "%s stays: %s", self._name, fault, exc_info=None if isinstance(error, DagnnError) else error
                )
                self._service.metrics.swap_failures.inc()
            self._fault = fault
        self._tell()

    def _update(self) -> None:
        try:
            version = self._models.newest()
        except BackendError:
            self._down_since = self._down_since or datetime.now(UTC).isoformat(timespec="seconds")
            raise
        self._down_since = None
        found = self._indices.find(version.digest)
        wanted = version, found.digest
        if wanted == self._served:
            return
        if self._refused is not None and wanted == self._refused[0] and time.monotonic() < self._retry_at:
            raise self._refused[1]
        self._tell(loading=str(version))
        try:
            self._take(version, found)
        except InputError as error:  # it is damaged or does not fit, which takes a while to find
            self._refused, self._retry_at = (wanted, error), time.monotonic() + RETRY_SECONDS
            raise
        log.info("serving %s with the index %s", version, found.digest[:12])
        self._service.metrics.swaps.inc()

    def _take(self, version: Version, found: Found) -> None:
        served = self._service.served_or_none
        if served is not None and served.index.model.artifact.content_digest == version.digest:
            model = served.index.model  # the index alone has changed, or the version's number
        else:
            model = TrainedModel.read(self._models.fetch(version), verify=True)
        folder = self._indices.fetch(found)
        index = SearchIndex.read(folder, model, verify=True)
        if (read_artifact(folder, KIND).content_digest, model.artifact.content_digest) != (
            found.digest,
            version.digest,
        ):
            raise ArtifactError(f"{folder} or its model was replaced while it was opened", "it is opened again")
        newer = Served(index, version.name, version.number)
        warm_up(newer)
        self._service.serve(newer)
        self._served = version, found.digest

    def _tell(self, loading: str | None = None) -> None:
        registry = None
        if self._has_registry:
            registry = {"reachable": self._down_since is None, "since": self._down_since}
        self._service.readiness = Readiness(registry, loading, self._fault)
        self._service.metrics.registry_reachable.set(self._down_since is None)


def warm_up(served: Served) -> None:
    """Use everything once that the first request would wait for."""
    index = served.index
    _ = served.description
    if not index.ids:
        return
    kinds: list[Callable[[], Query]] = [
        lambda: index.text_query(index.item(0).text or " ".join(index.model.label_names)),
        lambda: index.image_query(index.thumbnail(0) or b""),
        lambda: index.item_query(index.ids[0]),
    ]
    for embed in kinds:
        try:
            index.search([embed()], 10)
        except InputError as error:  # precomputed features, a text of unknown words, an item without an image
            log.debug("not warmed up: %s", one_line(error))

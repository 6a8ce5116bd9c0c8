"""Searches as the service does them: each request takes the model and the index that are served once, as one."""

import json
import time
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from components.services.serving.answers import answer_of, item_of, thumbnail_address
from components.services.serving.limits import Limits, RequestError
from components.services.serving.metrics import Metrics
from components.services.serving.queries import Asked, embed, find_row, of_query, parse_batch, parse_image, parse_search
from components.services.serving.query_log import QueryLog, Words, record_of
from dagnn_core.errors import InputError
from dagnn_core.features.encoders.words import WordEncoder
from dagnn_core.features.tokens import Rule, tokenize
from dagnn_core.search.index import Query, SearchIndex


class Shadow(Protocol):
    """Takes what was asked, without delay and without an error."""

    def __call__(self, asked: Sequence[Asked], request: str, is_batch: bool) -> None:
        """Take it."""


class Served:
    """A model and its index.

    Args:
        index: the index, with the model.
        name: name of the registered model; None for a folder.
        version: its version; None for a folder.
    """

    def __init__(self, index: SearchIndex, name: str | None = None, version: str | None = None) -> None:
        self.index = index
        self.model = {"name": name, "version": version, "digest": index.model.artifact.content_digest}
        self.digest = index.artifact.content_digest

    @cached_property
    def description(self) -> dict[str, Any]:
        """What `/index` says."""
        index, content = self.index, self.index.artifact.content
        counts = zip(index.label_names, index.labels.sum(axis=0, dtype=int).tolist(), strict=True)
        kinds = {modality: index.model.artifact.content[modality]["kind"] for modality in ("text", "image")}
        return {
            "items": len(index),
            "images": content["num_images"],
            "texts": content["num_texts"],
            "dim": content["dim"],
            "digest": self.digest,
            "model": self.model,
            "labels": dict(counts),
            "columns": list(content["columns"]),
            "takes": {modality: kind != "precomputed" for modality, kind in kinds.items()},
        }

    @cached_property
    def _words(self) -> tuple[frozenset[str], Rule] | None:
        encoder = self.index.model.text_encoder
        words = getattr(encoder, "words", encoder)
        return (frozenset(words.vocabulary), words.rule) if isinstance(words, WordEncoder) else None

    def count_words(self, text: str) -> Words:
        """Words of a text, and those that are not in the model's vocabulary, where it has one."""
        if self._words is None:
            return Words(len(tokenize(text)), None)
        vocabulary, rule = self._words
        words = tokenize(text, rule)
        return Words(len(words), sum(word not in vocabulary for word in words))

    def knows_nothing_of(self, asked: Asked) -> bool:
        """Whether a query is a text of words that are all unknown to the model."""
        words, unknown = self.count_words(str(asked.value)) if asked.kind == "text" else (None, None)
        return bool(words) and words == unknown

    @property
    def no_answer(self) -> dict[str, Any]:
        """What the log says of the answer to a query that the model could not embed."""
        return {"hits": [], "relevant": False, "nearest_labels": {}, "model": self.model, "index": self.digest}


class Readiness(NamedTuple):
    """What `/readyz` says beside the model and the index."""

    registry: dict[str, Any] | None = None
    loading: str | None = None
    fault: str | None = None


class SearchService:
    """Answers requests in JSON; its methods may run on several threads.

    Args:
        limits: what a request may ask for.
        metrics: where times are noted.
        query_log: where queries are noted; None: nowhere.
        shadow: is asked the same, after the answer is known; None: nobody is.
    """

    def __init__(
        self, limits: Limits, metrics: Metrics, query_log: QueryLog | None = None, shadow: Shadow | None = None
    ) -> None:
        self.limits = limits
        self.metrics = metrics
        self._log = query_log
        self._shadow = shadow
        self.readiness = Readiness()
        self._served: Served | None = None

    @property
    def served(self) -> Served:
        """The model and index that answer now.

        Raises:
            RequestError: the first ones are still being loaded (503).
        """
        if self._served is None:
            raise RequestError(
                503, "the model is still being loaded", "try again soon", reason="loading", retry_after=2
            )
        return self._served

    @property
    def served_or_none(self) -> Served | None:
        """The same; None while the first ones are being loaded."""
        return self._served

    def serve(self, served: Served) -> None:
        """Answer with another model and index from now on."""
        self._served = served
        names = {key: str(served.model[key] or "") for key in ("name", "version", "digest")}
        self.metrics.serve(items=len(served.index), index=served.digest, **names)

    def search(self, body: bytes, *, request: str = "") -> bytes:
        """Answer `/search`; `request` names the request in the log."""
        with self.metrics.stage("decode"):
            asked = parse_search(body, self.limits)
        return _dump(self.answer([asked], request=request)[0])

    def search_image(self, image: bytes, parameters: dict[str, Any], *, request: str = "") -> bytes:
        """Answer `/search/image`."""
        with self.metrics.stage("decode"):
            asked = parse_image(image, parameters, self.limits)
        return _dump(self.answer([asked], request=request)[0])

    def search_batch(self, asked: Sequence[Asked], *, request: str = "") -> bytes:
        """Answer `/search/batch`."""
        return _dump({"results": self.answer(asked, request=request, is_batch=True)})

    def parse_batch(self, body: bytes) -> list[Asked]:
        """Parse what `/search/batch` is sent."""
        with self.metrics.stage("decode"):
            return parse_batch(body, self.limits)

    def describe(self) -> bytes:
        """Answer `/index`."""
        return _dump(self.served.description | {"max_k": self.limits.k})

    def item(self, item_id: str) -> bytes:
        """Answer `/items/...`."""
        index = self.served.index
        row = find_row(index, item_id)
        return _dump(item_of(index.item(row)) | {"thumbnail": thumbnail_address(index, row)})

    def thumbnail(self, item_id: str) -> tuple[bytes, str]:
        """The JPEG of an item, and its ETag."""
        served = self.served
        jpeg = served.index.thumbnail(find_row(served.index, item_id))
        if jpeg is None:
            raise RequestError(404, "the item has no image", "search images alone", reason="unknown")
        return jpeg, f'"{served.digest[:32]}"'

    def ready(self) -> tuple[bool, bytes]:
        """Whether requests can be answered, and what `/readyz` says."""
        served = self._served
        model, digest = (served.model, served.digest) if served else (None, None)
        said = {"ready": served is not None, "model": model, "index": digest} | self.readiness._asdict()
        return served is not None, _dump(said)

    def answer(self, asked: Sequence[Asked], *, request: str, is_batch: bool = False) -> list[dict[str, Any]]:
        """Answer queries, and note them, with those of which the model knows no word.

        Raises:
            RequestError: the first model is still being loaded (503), or there is no such item (404).
            InputError: the model cannot embed a query, or there is no such label or column.
        """
        start = time.perf_counter()
        served = self.served
        index = served.index
        names = [f"{request}/{number}" if is_batch else request for number in range(len(asked))]
        try:
            with self.metrics.stage("embed"):
                queries = _embed_batch(index, asked) if is_batch else embed(asked, index)
        except (InputError, RequestError):
            # no answer, but the plainest sign that users ask for what the model does not know
            if unknown := [number for number, one in enumerate(asked) if served.knows_nothing_of(one)]:
                answer = served.no_answer
                self._note(served, [(names[number], asked[number], None, answer) for number in unknown], start)
                self._ask_shadow(asked, request, is_batch=is_batch)  # it may know more
            raise
        with self.metrics.stage("search"):
            answers = self._search(served, asked, queries, is_batch=is_batch)
        for one in asked:
            self.metrics.queries.labels(one.kind).inc()
        self._note(served, zip(names, asked, queries, answers, strict=True), start)
        self._ask_shadow(asked, request, is_batch=is_batch)
        return answers

    def _note(
        self, served: Served, done: Iterable[tuple[str, Asked, Query | None, dict[str, Any]]], start: float
    ) -> None:
        if self._log is None:
            return
        milliseconds = 1000 * (time.perf_counter() - start)
        for name, one, query, answer in done:
            words = served.count_words(str(one.value)) if one.kind == "text" else Words(None, None)
            self._log.write(record_of(one, query, answer, words, milliseconds=milliseconds, request=name))

    def _ask_shadow(self, asked: Sequence[Asked], request: str, *, is_batch: bool) -> None:
        if self._shadow is not None:
            self._shadow(asked, request, is_batch)

    def _search(
        self, served: Served, asked: Sequence[Asked], queries: Sequence[Query], *, is_batch: bool
    ) -> list[dict[str, Any]]:
        """Search queries of equal options together."""
        groups: dict[tuple[Any, ...], list[int]] = {}
        for number, one in enumerate(asked):
            options = one.options
            key = (one.target, options.k, options.labels, tuple(options.filters), options.min_score)
            groups.setdefault(key, []).append(number)
        answers: dict[int, dict[str, Any]] = {}
        for (_, k, labels, filters, min_score), numbers in groups.items():
            index = served.index
            try:
                allowed = index.allowed(labels, filters)
            except InputError as error:
                raise of_query(numbers[0], error) if is_batch else error from error
            found = index.search([queries[number] for number in numbers], k, allowed=allowed, min_score=min_score)
            for number, hits in zip(numbers, found, strict=True):
                answer = answer_of(index, queries[number], hits)
                for hit, shown in zip(hits, answer["hits"], strict=True):
                    shown["thumbnail"] = thumbnail_address(index, hit.row)
                answers[number] = answer | {"model": served.model, "index": served.digest}
        return [answers[number] for number in range(len(asked))]


def _embed_batch(index: SearchIndex, asked: Sequence[Asked]) -> list[Query]:
    try:
        return embed(asked, index)
    except (InputError, RequestError):
        for number, one in enumerate(asked):  # which of them it is, they say one by one
            try:
                embed([one], index)
            except (InputError, RequestError) as error:
                raise of_query(number, error) from error
        raise


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()

"""Requests as they come, checked against the limits before anything is decoded or embedded."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from components.services.serving.limits import Limits, RequestError
from components.services.serving.schemas import BatchRequest, Modality, Options, SearchRequest
from dagnn_core.data.images import read_header
from dagnn_core.errors import InputError
from dagnn_core.records import parse_json
from dagnn_core.search.index import Query, SearchIndex
from dagnn_core.text import quote

KINDS = ("text", "id", "vector", "image")
DEFAULT_TARGET: dict[str, Modality] = {"text": "image", "id": "image", "vector": "image", "image": "text"}

T = TypeVar("T", bound=BaseModel)


class Asked(BaseModel):
    """One query that keeps to the limits, its image decoded from base64."""

    kind: str
    """One of KINDS."""
    options: Options
    value: str | bytes | list[float]
    modality: Modality | None = None

    @property
    def target(self) -> Modality:
        """What is searched."""
        return self.options.target or DEFAULT_TARGET[self.kind]


def embed(asked: Sequence[Asked], index: SearchIndex) -> list[Query]:
    """Embed queries, the texts and the images of one target together.

    Raises:
        InputError: the model or the index cannot.
        RequestError: no such item (404).
    """
    together: dict[tuple[str, Modality], list[int]] = {}
    for number, one in enumerate(asked):
        together.setdefault((one.kind, one.target), []).append(number)
    queries: dict[int, Query] = {}
    for (kind, target), numbers in together.items():
        values: list[Any] = [asked[number].value for number in numbers]
        if kind == "text":
            found = index.text_queries(values, target=target)
        elif kind == "image":
            found = index.image_queries(values, target=target)
        elif kind == "id":
            for item_id in values:
                find_row(index, item_id)
            found = [index.item_query(item_id, target=target) for item_id in values]
        else:
            found = [_vector_query(index, asked[number]) for number in numbers]
        queries |= zip(numbers, found, strict=True)
    return [queries[number] for number in range(len(asked))]


def _vector_query(index: SearchIndex, asked: Asked) -> Query:
    assert asked.modality is not None
    return index.vector_query(np.array(asked.value), asked.modality, target=asked.target)


def parse_search(body: bytes, limits: Limits) -> Asked:
    """One query in JSON.

    Raises:
        RequestError: it is none, or goes beyond a limit.
    """
    return check_request(_parse(SearchRequest, _json(body)), limits)


def parse_batch(body: bytes, limits: Limits) -> list[Asked]:
    """Several queries in JSON.

    Raises:
        RequestError: they are none, or go beyond a limit; it names the query.
    """
    values = _json(body)
    queries = values.get("queries") if isinstance(values, dict) else None
    if isinstance(queries, list) and len(queries) > limits.batch:
        raise RequestError(422, f"the batch has {len(queries)} queries, expected at most {limits.batch}", "divide it")
    asked = []
    for number, request in enumerate(_parse(BatchRequest, values).queries):
        try:
            asked.append(check_request(request, limits))
        except RequestError as error:
            raise of_query(number, error) from error
    return asked


def parse_image(image: bytes, parameters: dict[str, Any], limits: Limits) -> Asked:
    """An encoded image, with options as the parameters of an address have them.

    Raises:
        RequestError: they are none, or go beyond a limit.
    """
    values = dict(parameters)
    for name, kind in (("k", int), ("min_score", float)):
        if name in values:
            try:
                values[name] = kind(values[name])
            except ValueError:
                raise RequestError(422, f"{name} is {quote(values[name])}, expected a number") from None
    options = _parse(Options, values)
    _check_options(options, limits)
    _check_image(image, limits)
    return Asked(kind="image", options=options, value=image)


def of_query(number: int, error: InputError | RequestError) -> RequestError:
    """A failure of one query of a batch, which it names by its number from 0."""
    status, reason = (error.status, error.reason) if isinstance(error, RequestError) else (422, "query")
    return RequestError(status, f"queries.{number}: {error.what}", error.remedy, reason=reason)


def find_row(index: SearchIndex, item_id: str) -> int:
    """Number of an item.

    Raises:
        RequestError: there is no such item (404).
    """
    try:
        return index.row(item_id)
    except InputError:
        raise RequestError(404, f"the index has no item {quote(item_id)}", "check the id", reason="unknown") from None


def check_request(request: SearchRequest, limits: Limits) -> Asked:
    """Check a query against the limits, its image before it is decoded.

    Raises:
        RequestError: it asks for nothing, for several things, or for too much.
    """
    kinds = [kind for kind in KINDS if getattr(request, kind) is not None]
    if len(kinds) != 1:
        raise RequestError(422, f"the query has {' and '.join(kinds) or 'none'} of {', '.join(KINDS)}", "give one")
    kind = kinds[0]
    if (request.modality is None) == (kind == "vector"):
        raise RequestError(422, "`modality` belongs to `vector`", "give image or text with a vector, else leave it out")
    _check_options(request, limits)
    value = getattr(request, kind)
    if kind == "text" and len(value) > limits.text_characters:
        raise RequestError(
            422, f"the text has {len(value)} characters, expected at most {limits.text_characters}", "shorten it"
        )
    if kind == "image":
        try:
            value = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise RequestError(422, "`image` is not in base64", "encode it, or send it to /search/image") from None
        _check_image(value, limits)
    return Asked(kind=kind, options=request, value=value, modality=request.modality)


def _check_options(options: Options, limits: Limits) -> None:
    if options.k > limits.k:
        raise RequestError(422, f"k is {quote(options.k)}, expected at most {limits.k}", "ask for fewer results")
    if len(options.filters) > limits.batch:
        raise RequestError(422, f"there are {len(options.filters)} filters, expected at most {limits.batch}")


def _check_image(image: bytes, limits: Limits) -> None:
    try:
        header = read_header(image)
    except InputError as error:
        raise RequestError(422, f"the image {error.what}", "send another image", reason="image") from error
    if header.width * header.height > limits.image_pixels:
        raise RequestError(
            413,
            f"the image has {header.width} x {header.height} pixels, expected at most {limits.image_pixels} in all",
            "make it smaller",
            reason="pixels",
        )


def _json(body: bytes) -> Any:
    try:
        return parse_json(body)
    except ValueError as error:
        raise RequestError(400, f"the body is no JSON ({error})", "send a JSON object in UTF-8") from error


def _parse(kind: type[T], values: Any) -> T:
    try:
        return kind.model_validate(values, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise RequestError(422, f"{place}: {first['msg']}", "see /docs for what is expected") from error

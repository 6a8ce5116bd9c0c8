"""What the Kubeflow Pipelines API v2beta1 has, as a judge of requests and answers.

The package `kfp_server_api`, which kfp installs, is generated from the official OpenAPI file: its models name every
field and type, its API classes every path and parameter. So the judge needs no file; where it is there, it judges, too.
"""

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import kfp_server_api
from jsonschema import Draft4Validator

from tests.fixtures.locations import SHARED

OFFICIAL_FILE = SHARED / "data/kfp_api/kfp_api_v2beta1.swagger.json"

Json = dict[str, Any]

_PLAIN_TYPES: Mapping[str, Json] = {
    "str": {"type": "string"},
    "datetime": {"type": "string"},
    "int": {"type": "integer"},
    "bool": {"type": "boolean"},
    "object": {},  # any object, or any JSON: the package does not tell them apart
    "file": {"type": "file"},
}


class Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Request(NamedTuple):
    """A request, taken apart as the description says."""

    operation: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    """JSON, or the content of the uploaded file."""


def read_official_file() -> Json:
    """The OpenAPI file, where it is there."""
    spec: Json = json.loads(OFFICIAL_FILE.read_text(encoding="utf-8"))
    return spec


def read_package() -> Json:
    """The same from the installed package: `paths` and `definitions` as in an OpenAPI file of version 2."""
    paths: dict[str, Json] = {}
    for _, api in inspect.getmembers(kfp_server_api, lambda value: str(getattr(value, "__name__", "")).endswith("Api")):
        for name, _ in inspect.getmembers(api, inspect.isfunction):
            if name.endswith("_with_http_info"):
                path, method, operation = _read_operation(api, name)
                paths.setdefault(path, {})[method] = operation
    models = inspect.getmembers(kfp_server_api, lambda value: hasattr(value, "openapi_types"))
    return {"paths": paths, "definitions": {name: _read_model(model) for name, model in models}}


class _Recorder:
    """Stands where the API classes expect their HTTP client, and keeps what a method would send."""

    client_side_validation = False

    def __init__(self) -> None:
        self.sent: Json = {}

    def select_header_accept(self, kinds: Sequence[str]) -> str:
        return kinds[0]

    select_header_content_type = select_header_accept

    def call_api(
        self, path: str, method: str, in_path: Json, in_query: list[Any], headers: Json, **options: Any
    ) -> None:
        self.sent = options | {"path": path, "method": method, "in_path": in_path, "in_query": in_query} | headers


def _read_operation(api: Any, name: str) -> tuple[str, str, Json]:
    """Path, method and operation: call the method with the names of its parameters as values, and see where they go."""
    text = inspect.getdoc(getattr(api, name)) or ""
    types = {key: kind for key, kind in re.findall(r"^:type (\w+): (.+)$", text, re.M) if not kind.endswith("optional")}
    recorder = _Recorder()
    getattr(api(recorder), name)(**{key: key for key in types})
    sent = recorder.sent
    origins = {"path": sent["in_path"].values(), "query": [value for _, value in sent["in_query"]]}
    origins |= {"body": [sent["body"]], "formData": sent["files"].values()}
    names = {value: key for key, value in [*sent["in_path"].items(), *sent["in_query"]]}
    parameters = []
    for key, kind in types.items():
        (origin,) = (origin for origin, keys in origins.items() if key in keys)
        schema = {"schema": _schema(kind)} if origin == "body" else _schema(kind)
        parameters.append({"name": names.get(key, key), "in": origin, **schema})
    operation = {
        "operationId": _operation_id(api.__name__, name.removesuffix("_with_http_info")),
        "parameters": parameters,
        "consumes": [sent.get("Content-Type", "application/json")],
        "responses": {
            "200": {"schema": _schema(sent["response_type"])},
            "default": {"schema": _schema("GoogleRpcStatus")},
        },
    }
    return sent["path"], sent["method"].lower(), operation


def _operation_id(api: str, method: str) -> str:
    """As the file has it: `RunService_GetRun` for `run_service_get_run`, `UploadPipeline` for `upload_pipeline`."""
    service = api.removesuffix("Api")
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", service).lower()
    rest = method.removeprefix(f"{snake}_")
    camel = rest.title().replace("_", "")
    return camel if rest == method else f"{service}_{camel}"


def _read_model(model: Any) -> Json:
    if hasattr(model, "allowable_values"):
        return {"type": "string", "enum": model.allowable_values}
    properties = {model.attribute_map[name]: _schema(kind) for name, kind in model.openapi_types.items()}
    return {"type": "object", "properties": properties}


def _schema(kind: str) -> Json:
    if match := re.fullmatch(r"list\[(.+)\]", kind):
        return {"type": "array", "items": _schema(match[1])}
    if match := re.fullmatch(r"dict\(str, (.+)\)", kind):
        values: Json = {} if match[1] == "object" else _schema(match[1])  # protobuf's Value: any JSON
        return {"type": "object", "additionalProperties": values}
    return dict(_PLAIN_TYPES[kind]) if kind in _PLAIN_TYPES else {"$ref": f"#/definitions/{kind}"}


class Judge(Protocol):
    """What the server asks about requests and answers."""

    def request(self, method: str, target: str, headers: Message, content: bytes) -> Request:
        """Take a request apart; raises `Refusal` where the description does not have it."""

    def judge_answer(self, operation_id: str, status: int, answer: object) -> None:
        """Raises `Refusal` where the description does not have an answer of this server."""


class Description:
    """A description as a judge.

    Args:
        spec: an OpenAPI description of version 2.
    """

    def __init__(self, spec: Json) -> None:
        self.spec = spec
        for schema in self.spec["definitions"].values():
            if "properties" in schema:
                schema.setdefault("additionalProperties", False)  # as the server's JSON parser has it

    def request(self, method: str, target: str, headers: Message, content: bytes) -> Request:
        """Raises `Refusal` where the description does not have it."""
        url = urlsplit(target)
        for template, operations in self.spec["paths"].items():
            pattern = re.sub(r"\{([\w.]+)\}", lambda name: f"(?P<{name[1].replace('.', '_')}>[^/:]+)", template)
            match = re.fullmatch(pattern, url.path)
            if match and method.lower() in operations:
                operation = operations[method.lower()]
                break
        else:
            raise Refusal(404, f"no such path: {method} {url.path}")
        known = {entry["name"]: entry for entry in operation.get("parameters", [])}
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        for name, value in query.items():
            if known.get(name, {}).get("in") != "query":
                raise Refusal(400, f"{operation['operationId']} has no query parameter {name}")
            if known[name]["type"] == "integer" and not value.isdigit():
                raise Refusal(400, f"{name} is no integer: {value}")
        body: Any = None
        for entry in known.values():
            if entry["in"] == "body":
                self._require_type(headers, "application/json")
                body = json.loads(content)
                self.judge(body, entry["schema"])
            if entry["in"] == "formData":
                self._require_type(headers, operation["consumes"][0])
                body = _form_file(headers, content, entry["name"])
        return Request(operation["operationId"], {k: unquote(v) for k, v in match.groupdict().items()}, query, body)

    def judge(self, value: object, schema: Json) -> None:
        """Raises `Refusal` where a value does not fit a schema."""
        whole = schema | {"definitions": self.spec["definitions"]}
        for error in Draft4Validator(whole).iter_errors(value):
            raise Refusal(400, f"{'/'.join(map(str, error.absolute_path))}: {error.message}")

    def judge_answer(self, operation_id: str, status: int, answer: object) -> None:
        """The same for what this server answers: a mistake of the tests' server itself."""
        operation = next(
            operation
            for operations in self.spec["paths"].values()
            for operation in operations.values()
            if operation["operationId"] == operation_id
        )
        responses = operation["responses"]
        self.judge(answer, responses.get(str(status), responses["default"])["schema"])

    @staticmethod
    def _require_type(headers: Message, expected: str) -> None:
        if headers.get_content_type() != expected:
            raise Refusal(415, f"expected {expected}, got {headers.get_content_type()}")


class Agreement:
    """Several descriptions as one judge, which also refuses what they do not agree on."""

    def __init__(self, *descriptions: Description) -> None:
        self.descriptions = descriptions

    def request(self, method: str, target: str, headers: Message, content: bytes) -> Request:
        return self._agree([_verdict(one.request, method, target, headers, content) for one in self.descriptions])

    def judge_answer(self, operation_id: str, status: int, answer: object) -> None:
        self._agree([_verdict(one.judge_answer, operation_id, status, answer) for one in self.descriptions])

    @staticmethod
    def _agree(verdicts: list[Any]) -> Any:
        kinds = [verdict.status if isinstance(verdict, Refusal) else verdict for verdict in verdicts]
        if any(kind != kinds[0] for kind in kinds):
            raise Refusal(500, f"the descriptions do not agree: {' | '.join(map(repr, verdicts))}")
        if isinstance(verdicts[0], Refusal):
            raise verdicts[0]
        return verdicts[0]


def _verdict(judge: Callable[..., Any], *arguments: Any) -> Any:
    """What a judge says, or the refusal that it raises."""
    try:
        return judge(*arguments)
    except Refusal as refusal:
        return refusal


def _form_file(headers: Message, content: bytes, name: str) -> bytes:
    parsed = BytesParser(policy=HTTP).parsebytes(
        b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + content
    )
    for part in parsed.iter_parts():  # type: ignore[attr-defined]
        if part.get_param("name", header="content-disposition") == name and part.get_filename():
            return bytes(part.get_payload(decode=True))
    raise Refusal(400, f"no file {name} in the form")

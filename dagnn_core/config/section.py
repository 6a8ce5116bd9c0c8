"""What a section is: a frozen dataclass whose fields pydantic checks, with one clear line for every mistake."""

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from dataclasses import dataclass as dataclass_std
from functools import wraps
from typing import Annotated, Any, Literal, TypeVar, cast, dataclass_transform, get_args, get_origin

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from dagnn_core.errors import InputError
from dagnn_core.registry import IMPORT_PATH

T = TypeVar("T")

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
DEFAULT_SEED = 103
"""Of every draw that the user gives no other seed."""
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Preset = Literal["aaai21", "tpami22", "best", "unseen_labels", "few_labels"]


@dataclass_std(frozen=True)
class Expected:
    """Says what a text that does not match its pattern should have been."""

    words: str


@dataclass_std(frozen=True)
class Named:
    """Marks a text that is a name in a table, or the import path of a user's own (`package.module:name`)."""

    table: Mapping[str, object]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return handler.generate_schema(Annotated[source, AfterValidator(self._check)])

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        pattern = f"^{IMPORT_PATH.pattern}$"
        return {"anyOf": [{"type": "string", "enum": list(self.table)}, {"type": "string", "pattern": pattern}]}

    def _check(self, name: str) -> str:
        if name not in self.table and not IMPORT_PATH.fullmatch(name):
            raise ValueError(name)
        return name


_UNKNOWN_KEY = "unexpected_keyword_argument"
_BOUNDS = {"ge": (">=", "at least"), "gt": (">", "above"), "le": ("<=", "at most"), "lt": ("<", "below")}
_EXPECTED = {int: "a whole number", float: "a finite number", str: "a text", bool: "true or false"}


@dataclass_transform(frozen_default=True, kw_only_default=True)
def section(cls: type[T]) -> type[T]:
    """Make a class a section: frozen, keywords alone, strict types, finite numbers, no unknown keys.

    The docstring below a field is its description, in the JSON schema as well. `__post_init__` checks what concerns
    several fields, with `require`. Making an instance raises `InputError`.
    """
    config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
    made = dataclass(frozen=True, kw_only=True, slots=True, config=config)(cls)
    construct = made.__init__

    @wraps(construct)
    def init(self: object, **values: Any) -> None:
        values = _with_preset(made, values)
        try:
            construct(self, **values)
        except ValidationError as error:
            raise _input_error(error, made, values, made.__name__) from error

    made.__init__ = init  # type: ignore[method-assign]
    return cast(type[T], made)


def require(condition: bool, key: str, expected: str, got: object) -> None:
    """Check what concerns several fields.

    Raises:
        InputError: `condition` is false.
    """
    if not condition:
        raise InputError(f"{key} must be {expected}, got {got!r}")


def parse_section(kind: type[T], values: object, key: str) -> T:
    """Build a section from plain values, as YAML or JSON gives them.

    Args:
        kind: the section.
        values: a mapping from field to value; missing fields take their values from the section's preset, where it
            has one, or else their defaults.
        key: dotted path of the section, for messages.

    Raises:
        InputError: an unknown key, a value of the wrong type or out of range, named by its dotted path.
    """
    if isinstance(values, Mapping):
        values = _with_preset(kind, values)
    try:
        parsed: T = _validate(kind, values)
    except ValidationError as error:
        raise _input_error(error, kind, values, key) from error
    return parsed


def check_value(kind: type[Any], field: str, value: object, key: str) -> None:
    """Check a value of one field, whatever the other fields are.

    Args:
        kind: the section.
        field: its field, which exists.
        value: as YAML or JSON gives it.
        key: dotted path of the section, for messages.

    Raises:
        InputError: the value is of the wrong type or out of range, named by its dotted path.
    """
    try:
        _validate(kind, {field: value})
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
        if not any(isinstance(mistake.get("ctx", {}).get("error"), InputError) for mistake in mistakes):
            raise _input_error(error, kind, {field: value}, key) from error


def unknown_key(path: str, known: Iterable[str]) -> InputError:
    """The error about a key that there is not, with the nearest one that there is.

    Args:
        path: the dotted path that was given.
        known: the keys that may stand in place of its last part.
    """
    names = list(known)
    close = difflib.get_close_matches(path.rpartition(".")[2], names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return InputError(f"unknown key {path}", f"{hint}valid keys: {', '.join(names)}")


def sections_of(values: object) -> Mapping[str, object]:
    """What a `params.yaml` holds: values by the name of the section.

    Raises:
        InputError: it holds something else.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"expected a mapping of sections, got {values!r}")
    return {str(name): section for name, section in values.items()}


def section_json(section: object) -> str:
    """Canonical JSON of a section: every key, sorted; integers stay integers."""
    assert is_dataclass(section) and not isinstance(section, type)
    return json.dumps(asdict(section), sort_keys=True, separators=(",", ":"))


def fields_of(kind: type[Any]) -> Mapping[str, FieldInfo]:
    """The fields of a section: annotation, default, description and bounds by name."""
    fields: Mapping[str, FieldInfo] = kind.__pydantic_fields__
    return fields


def describe(kind: type[Any], key: str) -> str:
    """What a field is, in one line: the docstring below it."""
    return " ".join((fields_of(kind)[key].description or "").split())


def json_schema(kind: type[Any]) -> dict[str, Any]:
    """JSON schema of a section, for editors."""
    return TypeAdapter(kind).json_schema()


def _with_preset(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are given, and those of the preset that they name for all other keys."""
    presets: Mapping[object, Mapping[str, object]] = getattr(kind, "PRESETS", {})
    name = values.get("preset")
    return {**(presets.get(name, {}) if isinstance(name, str) else {}), **values}


def _validate(kind: Any, values: object) -> Any:
    # as JSON, where a list is a tuple and a mapping a section; what JSON does not know is no value of a section
    return kind.__pydantic_validator__.validate_json(json.dumps(values, default=lambda other: {"": repr(other)}))


def _input_error(error: ValidationError, kind: type[Any], values: object, key: str) -> InputError:
    """The first mistake in one line; an unknown key comes first, since it may be the reason for the others."""
    mistakes = error.errors(include_url=False)
    first = next((mistake for mistake in mistakes if mistake["type"] == _UNKNOWN_KEY), mistakes[0])
    raised = first.get("ctx", {}).get("error")
    if isinstance(raised, InputError):
        return raised
    field: FieldInfo | None = None
    owner, got, path = kind, values, key
    for part in first["loc"]:
        if not isinstance(part, str) or (field is not None and not is_dataclass(field.annotation)):
            break  # an entry of a list
        if field is not None:
            owner = field.annotation  # type: ignore[assignment]
        if part not in fields_of(owner):
            return unknown_key(f"{path}.{part}", fields_of(owner))
        field = fields_of(owner)[part]
        got, path = got[part] if isinstance(got, Mapping) else got, f"{path}.{part}"
    out_of_range = first["type"].startswith(("greater", "less", "string_too_short", "string_pattern"))
    is_list = field is not None and get_origin(field.annotation) is tuple
    expected = _range(field) if field and out_of_range and not is_list else _type(field)
    return InputError(f"{path} must be {expected}, got {got!r}")


def _type(field: FieldInfo | None) -> str:
    if field is None or is_dataclass(field.annotation):
        return "a mapping of keys to values"
    named = next((mark for mark in field.metadata if isinstance(mark, Named)), None)
    if named:
        return f"one of {', '.join(named.table)}, or an import path as package.module:name"
    if get_origin(field.annotation) is Literal:
        return f"one of {', '.join(get_args(field.annotation))}"
    if get_origin(field.annotation) is tuple:
        return "a list of texts" if str in get_args(field.annotation) else "a list of whole numbers of at least 0"
    return _EXPECTED[field.annotation]  # type: ignore[index]


def _range(field: FieldInfo) -> str:
    if expected := next((mark.words for mark in field.metadata if isinstance(mark, Expected)), ""):
        return expected
    bounds = [(name, getattr(bound, name)) for bound in field.metadata for name in _BOUNDS if hasattr(bound, name)]
    if [name for name, _ in bounds] == ["ge", "le"]:
        return f"between {bounds[0][1]} and {bounds[1][1]}"
    if len(bounds) == 1:
        return " ".join(f"{_BOUNDS[name][0]} {value}" for name, value in bounds)
    return " and ".join(f"{_BOUNDS[name][1]} {value}" for name, value in bounds) or "a text that is not empty"

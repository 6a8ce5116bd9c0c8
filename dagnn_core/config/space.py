"""A search space: which keys of the configuration a search varies, and over which values.

Its file has the shape of `params.yaml`: a key with `{low, high}` or with a list of values is searched, any other key
has the value that is written there. Only what comes after the features can be searched, since all trials share them.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import (
    DEFAULT_SEED,
    Count,
    Seed,
    check_value,
    fields_of,
    parse_section,
    require,
    section,
    unknown_key,
)
from dagnn_core.config.train import TrainConfig
from dagnn_core.errors import InputError
from dagnn_core.text import quote

Value = bool | int | float | str
Sections = Mapping[str, Any]
"""Section of the configuration by name: `label_graph`, `model` and `train`."""

SEARCHABLE: Mapping[str, type[Any]] = {kind.NAME: kind for kind in (LabelGraphConfig, ModelConfig, TrainConfig)}
DIGITS = 3
"""Significant digits of a drawn number, so that what is found can be written down."""

_NOT_SEARCHED = {
    "train.seed": "`seeds` says which",
    "train.device": "the whole search runs on one",
    "model.preset": "write the one to start from",
    "train.preset": "write the one to start from",
}
"""Key -> what to do instead."""
_RANGE = ("low", "high", "log")


@section
class SearchOptions:
    """How long a search takes, and what a trial is."""

    trials: Count = 40
    """Trials of the whole search, of all processes together; those that were lost with their process do not count."""
    seeds: tuple[Seed, ...] = (DEFAULT_SEED,)
    """A trial trains with each of these; the mean of the validation MAP counts. They stand in place of `train.seed`."""
    prune: bool = True
    """Whether a trial ends early whose validation MAP is below the median of the others at the same epoch."""

    def __post_init__(self) -> None:
        is_set = len(self.seeds) > 0 and len(set(self.seeds)) == len(self.seeds)
        require(is_set, "seeds", "different whole numbers, at least one", list(self.seeds))


@dataclass(frozen=True, slots=True)
class Range:
    """All numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool
    """Whether the logarithm is drawn evenly."""
    is_whole: bool

    def rounded(self, value: float) -> int | float:
        """A number of the range, to `DIGITS` significant digits where it is no whole number."""
        if self.is_whole:
            return int(value)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Choices:
    """A few values."""

    values: tuple[Value, ...]

    def __contains__(self, value: object) -> bool:
        return value in self.values


@dataclass(frozen=True, kw_only=True)
class Space:
    """A search space, checked."""

    options: SearchOptions
    searched: Mapping[str, Range | Choices]
    """Dotted key -> the values that are searched."""
    fixed: Mapping[str, Value]
    """Dotted key -> the value that all trials have, whatever the configuration says."""
    plain: Mapping[str, Any]
    """What the file holds, from which `parse_space` makes the same."""

    @property
    def has_label_graph(self) -> bool:
        """Whether it says anything about the label graph, so that the graph depends on the trial."""
        return any(key.startswith("label_graph.") for key in (*self.searched, *self.fixed))

    def over(self, params: Mapping[str, object]) -> Sections:
        """The sections of a configuration with the fixed values in them: what the trials have in common.

        Args:
            params: section -> plain values, as `params.yaml` has them; others than the searched sections are passed by.

        Raises:
            InputError: a section is wrong, or the fixed values do not go with it.
        """
        sections = {}
        for name, kind in SEARCHABLE.items():
            given = params.get(name, {})
            fixed = dict(_of_section(self.fixed, name))
            sections[name] = parse_section(kind, {**given, **fixed} if isinstance(given, Mapping) else given, name)
        return sections

    def present(self, base: Sections) -> dict[str, Value]:
        """The searched values that a configuration has, those that lie in the space: where a search begins."""
        values = {key: getattr(base[key.partition(".")[0]], key.partition(".")[2]) for key in self.searched}
        return {key: value for key, value in values.items() if value in self.searched[key]}

    def changes(self, params: Mapping[str, object], values: Mapping[str, Value]) -> dict[str, Value]:
        """What to write into a configuration so that it has the fixed values and those of a trial, and no more.

        Args:
            params: section -> plain values.
            values: dotted key -> value, of the trial.
        """
        wanted = apply(self.over(params), values)
        needed = {**self.fixed, **values}
        for key in list(needed):
            fewer = {other: value for other, value in needed.items() if other != key}
            try:
                if replace(self, fixed=fewer).over(params) == wanted:
                    needed = fewer
            except InputError:  # the rest does not go together without it
                continue
        return needed


def apply(base: Sections, values: Mapping[str, Value]) -> dict[str, Any]:
    """Sections with other values.

    Args:
        base: the sections.
        values: dotted key -> value.

    Raises:
        InputError: the values do not go together.
    """
    return {name: replace(part, **dict(_of_section(values, name))) for name, part in base.items()}


def check_search_name(name: str) -> None:
    """Check that a search may have this name, which is that of a folder, too.

    Raises:
        InputError: it may not.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", name):
        raise InputError(
            f"the name of a search must consist of letters, digits, '_', '-' and '.', at most 100, got {quote(name)}",
            "give it another --name",
        )


def parse_space(values: object) -> Space:
    """Check what a file of a search space holds.

    Args:
        values: plain values, as YAML or JSON gives them.

    Raises:
        InputError: an unknown key, an empty range, a value of the wrong type or out of bounds, or nothing to search.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"expected a mapping with {', '.join(SEARCHABLE)}, got {quote(values)}")
    plain = {str(key): value for key, value in values.items()}
    options = list(fields_of(SearchOptions))
    for name in plain:
        if name not in options and name not in SEARCHABLE:
            raise unknown_key(name, [*options, *SEARCHABLE])
    searched: dict[str, Range | Choices] = {}
    fixed: dict[str, Value] = {}
    for name, kind in SEARCHABLE.items():
        given = plain.get(name, {})
        if not isinstance(given, Mapping):
            raise InputError(f"{name} must be a mapping of keys to values, got {quote(given)}")
        for field, value in given.items():
            if field not in fields_of(kind):
                raise unknown_key(f"{name}.{field}", fields_of(kind))
            if isinstance(value, Mapping | list):
                searched[f"{name}.{field}"] = _parse_searched(kind, field, value, name)
            else:
                fixed[f"{name}.{field}"] = _parse_fixed(kind, field, value, name)
    if not searched:
        raise InputError("there is nothing to search", "give a key a list of values, or low and high")
    given = {name: value for name, value in plain.items() if name in options}
    return Space(options=_parse_options(given), searched=searched, fixed=fixed, plain=plain)


def _parse_options(values: Mapping[str, object]) -> SearchOptions:
    try:
        return parse_section(SearchOptions, values, "")
    except InputError as error:  # these keys lie at the top
        raise InputError(error.what.removeprefix("."), error.remedy) from error


def _parse_fixed(kind: type[Any], field: str, value: Any, name: str) -> Value:
    if (name, field) == ("train", "seed"):
        raise InputError("train.seed is not a key of a search", _NOT_SEARCHED["train.seed"])
    check_value(kind, field, value, name)
    return value  # type: ignore[no-any-return]  # no field of these sections is a list or a mapping


def _parse_searched(kind: type[Any], field: str, value: Mapping[Any, Any] | list[Any], name: str) -> Range | Choices:
    key = f"{name}.{field}"
    if key in _NOT_SEARCHED:
        raise InputError(f"{key} cannot be searched", _NOT_SEARCHED[key])
    if isinstance(value, list):
        return _parse_choices(kind, field, value, name)
    return _parse_range(kind, field, value, name)


def _parse_range(kind: type[Any], field: str, value: Mapping[Any, Any], name: str) -> Range:
    key, annotation = f"{name}.{field}", fields_of(kind)[field].annotation
    if annotation not in (int, float):
        raise InputError(f"{key} is no number, so it has no range, got {quote(dict(value))}", "list the values")
    for part in value:
        if part not in _RANGE:
            raise unknown_key(f"{key}.{part}", _RANGE)
    for end in ("low", "high"):
        if end not in value:
            raise InputError(f"{key} has no {end}, expected low and high, got {quote(dict(value))}")
        check_value(kind, field, value[end], name)
    low, high, log = value["low"], value["high"], value.get("log", False)
    if not isinstance(log, bool):
        raise InputError(f"{key}.log must be true or false, got {quote(log)}")
    if low >= high:
        raise InputError(f"the range of {key} is empty: low must be below high, got {low} and {high}")
    if log and low <= 0:
        raise InputError(f"{key}.low must be > 0 with log, got {low}")
    return Range(low, high, log, annotation is int)


def _parse_choices(kind: type[Any], field: str, values: Sequence[Any], name: str) -> Choices:
    key = f"{name}.{field}"
    for value in values:
        if not isinstance(value, Value) or (isinstance(value, float) and not math.isfinite(value)):
            raise InputError(f"{key} must be chosen from texts, numbers, true and false, got {quote(value)}")
        check_value(kind, field, value, name)
    if len(values) < 2:
        raise InputError(f"{key} must have at least 2 values to choose from, got {quote(list(values))}")
    if len(set(values)) < len(values):
        raise InputError(f"{key} must have different values to choose from, got {quote(list(values))}")
    return Choices(tuple(values))


def _of_section(values: Mapping[str, Value], name: str) -> Iterator[tuple[str, Value]]:
    for key, value in values.items():
        section_name, _, field = key.partition(".")
        if section_name == name:
            yield field, value

"""Cron schedules as Kubeflow Pipelines reads them: with six fields, the first for seconds, in UTC."""

import re
from typing import NamedTuple

from dagnn_core.errors import InputError


class _Field(NamedTuple):
    name: str
    first: int
    last: int
    words: tuple[str, ...] = ()
    """Names of the numbers, from `first` on."""


_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 6, _DAYS),
)
_ITEM = re.compile(r"(?:[*?]|(?P<start>\w+)(?:-(?P<end>\w+))?)(?:/(?P<step>\d+))?", re.ASCII)


def read_cron(text: str) -> str:
    """A schedule with six fields; one with the usual five gets 0 for the seconds.

    Kubeflow takes five fields, too, but as seconds to month: `10 10 * * *` would run at every hour.

    Raises:
        InputError: it is not such a schedule.
    """
    fields = text.split()
    if len(fields) == len(_FIELDS) - 1:
        fields = ["0", *fields]
    if len(fields) != len(_FIELDS):
        raise _wrong(text, f"it has {len(fields)} fields")
    for value, field in zip(fields, _FIELDS, strict=True):
        for item in value.split(","):
            fault = _fault(item, field)
            if fault:
                raise _wrong(text, f"{item!r} is no {field.name}: {fault}")
    return " ".join(fields)


def _fault(item: str, field: _Field) -> str:
    """Why an item of a field's list cannot be; empty where it can."""
    match = _ITEM.fullmatch(item)
    if match is None:
        return "expected *, a number, a range a-b, each with /step where wanted"
    numbers = [_number(match[part], field) for part in ("start", "end") if match[part]]
    if None in numbers:
        words = f" or {field.words[0]} to {field.words[-1]}" if field.words else ""
        return f"expected {field.first} to {field.last}{words}"
    if numbers != sorted(numbers, key=lambda number: number or 0):
        return "the range ends before it begins"
    return "expected a step of 1 or more" if match["step"] and int(match["step"]) < 1 else ""


def _number(text: str, field: _Field) -> int | None:
    if text.upper() in field.words:
        return field.first + field.words.index(text.upper())
    return int(text) if text.isdigit() and field.first <= int(text) <= field.last else None


def _wrong(text: str, why: str) -> InputError:
    return InputError(
        f"{text!r} is not a cron schedule: {why}",
        "expected minute, hour, day of the month, month, day of the week, "
        "in UTC, as '30 2 * * MON-FRI', with seconds before them where wanted",
    )

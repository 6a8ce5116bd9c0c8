"""Which items of an index may be found: expressions over labels, and values of columns.

    beach and not person
    (sunset or "golden hour") and sea

`and` binds more than `or`, `not` more than both; a label with spaces or one of these words is quoted.
"""

import difflib
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dagnn_core.errors import InputError
from dagnn_core.text import quote

MAX_CHARACTERS = 2000  # of an expression; parentheses nest no deeper than Python's stack allows
_TOKEN = re.compile(r'\s*(?:([()])|"([^"]*)"|([^\s()"]+))')
_WORDS = {"and", "or", "not"}

Mask = NDArray[np.bool_]


def label_mask(expression: str, labels: NDArray[np.uint8], names: Sequence[str]) -> Mask:
    """The items whose labels fit an expression.

    Args:
        expression: such as `beach and not person`.
        labels: label matrix Y of the items, [N, C].
        names: names of the labels, [C].

    Returns:
        [N].

    Raises:
        InputError: it is no such expression, or a label is unknown.
    """
    return _Expression(expression, labels, names).parse()


def column_mask(conditions: Sequence[str], columns: Mapping[str, pa.ChunkedArray], num_items: int) -> Mask:
    """The items whose columns have all of some values, compared as texts.

    Args:
        conditions: each `column=value`.
        columns: name -> values of all items.
        num_items: N.

    Returns:
        [N].

    Raises:
        InputError: a condition has no `=`, or a column is unknown.
    """
    mask = np.ones(num_items, dtype=np.bool_)
    for condition in conditions:
        name, equals, value = condition.partition("=")
        if not equals:
            raise InputError(f"filter {quote(condition)} has no '=', expected column=value")
        if name not in columns:
            raise InputError(
                f"filter {quote(condition)}: there is no column {quote(name)}", _known("columns", name, list(columns))
            )
        same = pc.equal(pc.cast(columns[name], pa.string()), value)
        mask &= pc.fill_null(same, False).to_numpy().astype(np.bool_)
    return mask


class _Expression:
    """A parser by recursive descent over the tokens of an expression."""

    def __init__(self, text: str, labels: NDArray[np.uint8], names: Sequence[str]) -> None:
        self._text, self._labels = text, labels
        self._column = {name: column for column, name in enumerate(names)}
        if len(text) > MAX_CHARACTERS:
            raise InputError(f"the label filter has {len(text)} characters, expected at most {MAX_CHARACTERS}")
        self._tokens, end = [], 0
        while text[end:].strip():
            match = _TOKEN.match(text, end)
            if match is None:
                raise InputError(f"label filter {quote(text)}: a quote is not closed", "close it")
            bracket, quoted, bare = match.groups()
            # a token is its text, and whether it can be a word of the language
            self._tokens.append((bracket or (bare if bare in _WORDS else None), quoted if bare is None else bare))
            end = match.end()

    def parse(self) -> Mask:
        if not self._tokens:
            raise InputError("the label filter is empty, expected labels, such as: beach and not person")
        try:
            mask = self._either()
        except RecursionError:
            raise InputError("the label filter nests too deeply", "use fewer parentheses") from None
        if self._tokens:
            raise self._fault(
                f"{self._said()} is not expected there; join labels by 'and' or 'or', quote those with spaces"
            )
        return mask

    def _either(self) -> Mask:
        mask = self._both()
        while self._take("or"):
            mask = mask | self._both()
        return mask

    def _both(self) -> Mask:
        mask = self._one()
        while self._take("and"):
            mask = mask & self._one()
        return mask

    def _one(self) -> Mask:
        if self._take("not"):
            return ~self._one()
        if self._take("("):
            mask = self._either()
            if not self._take(")"):
                raise self._fault("a parenthesis is not closed")
            return mask
        if not self._tokens or self._tokens[0][0]:
            raise self._fault(f"{self._said()} where a label is expected")
        name = self._tokens.pop(0)[1]
        if name not in self._column:
            raise InputError(f"there is no label {quote(name)}", _known("labels", name, list(self._column)))
        has_label: Mask = self._labels[:, self._column[name]] > 0
        return has_label

    def _take(self, word: str) -> bool:
        if self._tokens and self._tokens[0][0] == word:
            self._tokens.pop(0)
            return True
        return False

    def _said(self) -> str:
        return repr(self._tokens[0][0] or self._tokens[0][1]) if self._tokens else "the end"

    def _fault(self, what: str) -> InputError:
        return InputError(f"label filter {quote(self._text)}: {what}")


def _known(what: str, name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"its {what} are {', '.join(names[:20])}"

"""Tables of measurements, as Markdown."""

from collections.abc import Mapping, Sequence

Row = Mapping[str, float | str]
"""Column -> value."""


def to_table(rows: Sequence[Row], names: Sequence[str] | None = None) -> str:
    """A table of rows.

    Args:
        rows: what is measured; a column that a row lacks is empty.
        names: columns, in order; default: all, as the rows have them.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row)) if names is None else names
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(name, "")) for name in columns] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"

"""The numbers of a chart as a file that a page carries in itself."""

import base64
import csv
import io
from collections.abc import Mapping, Sequence


def csv_uri(columns: Mapping[str, Sequence[object]]) -> str:
    """A table as CSV, as the address of itself; None is an empty cell.

    Args:
        columns: title -> cells, as many in each.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(stream.getvalue().encode()).decode('ascii')}"

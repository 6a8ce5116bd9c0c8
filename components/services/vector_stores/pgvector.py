"""A copy of an index as a table of PostgreSQL with pgvector.

The table has `position` (row of the index, from 0: it breaks ties), `id`, `text`, `labels` (text[]), `columns` (jsonb)
and the vectors `image_vector` and `text_vector`, null where an item lacks the modality. Its comment says what it is.
"""

import json
import secrets
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dagnn_core.artifacts import Artifact
from dagnn_core.errors import BackendError, InputError
from dagnn_core.records import parse_json
from dagnn_core.search.export import describe, export_batches, rows_of, vectors_of
from dagnn_core.search.index import MODALITIES
from dagnn_core.text import one_line, quote

if TYPE_CHECKING:
    from psycopg import Connection

MAX_DIM = 16_000  # of pgvector's type
MAX_NAME_BYTES = 63  # of PostgreSQL; longer names are cut


def load_pgvector(index: Artifact, table: str, *, url: str = "") -> int:
    """Copy an index into a table, in one transaction: readers see the old table until the new one is whole.

    Args:
        index: the index, whose checksums were checked.
        table: name of the table; one that is there is replaced, if it is a copy of an index.
        url: the database, as `postgresql://USER@HOST/DATABASE`; what it lacks comes from PGHOST, PGPASSWORD and so on,
            and from ~/.pgpass.

    Returns:
        Number of rows.

    Raises:
        InputError: the name or an item cannot be stored, the table holds something else, or psycopg is not installed.
        BackendError: the database cannot be reached, lacks pgvector, or fails; or another load of the table is running.
    """
    if not table or len(table.encode()) > MAX_NAME_BYTES or "\0" in table:
        raise InputError(f"table {quote(table)}: expected a name of 1 to {MAX_NAME_BYTES} bytes")
    if index.content["dim"] > MAX_DIM:
        raise InputError(f"{index.path} has vectors of {index.content['dim']} numbers, pgvector takes {MAX_DIM}")
    new = f"dagnn_{secrets.token_hex(8)}"  # until it takes its place
    with _connection(url) as connection:
        _check_replaceable(connection, table)
        _create(connection, new, index.content["dim"])
        num_rows = _copy(connection, new, index)
        _take_place(connection, new, table, index)
    return num_rows


@contextmanager
def _connection(url: str) -> Iterator["Connection"]:
    """A connection, whose transaction is committed when the body ends, and rolled back when it raises."""
    try:
        import psycopg
    except ModuleNotFoundError as error:
        raise InputError("psycopg is not installed, which PostgreSQL needs", "pip install 'dagnn[pgvector]'") from error
    try:
        with psycopg.connect(url, application_name="dagnn") as connection:
            yield connection
    except psycopg.DataError as error:  # a text with a NUL character
        raise InputError(f"PostgreSQL cannot store an item: {one_line(error)}", "correct the item") from error
    except psycopg.OperationalError as error:
        remedy = "check --url, PGHOST, PGPASSWORD, and the server"
        raise BackendError(f"PostgreSQL failed: {one_line(error)}", remedy) from error
    except psycopg.Error as error:
        raise BackendError(f"PostgreSQL refused: {one_line(error)}") from error


def _check_replaceable(connection: "Connection", table: str) -> None:
    from psycopg import sql

    locked = connection.execute("SELECT pg_try_advisory_xact_lock(hashtext('dagnn'), hashtext(%s))", [table]).fetchone()
    if locked != (True,):
        raise BackendError(
            f"another export to the table {quote(table)} is running, expected one at a time", "wait for it"
        )
    name = sql.Identifier(table).as_string(connection)
    found = connection.execute("SELECT to_regclass(%s)::oid, obj_description(to_regclass(%s))", [name, name]).fetchone()
    if found and found[0] is not None and not _is_copy(found[1]):
        raise InputError(
            f"the table {quote(table)} is no copy of an index, so it is not replaced", "name another one with --table"
        )


def _is_copy(comment: str | None) -> bool:
    try:
        return "index_digest" in parse_json(comment or "")
    except (ValueError, TypeError):
        return False


def _create(connection: "Connection", table: str, dim: int) -> None:
    from psycopg import sql

    if not connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchone():
        raise BackendError(
            "this PostgreSQL server has no pgvector",
            "install its package, such as postgresql-17-pgvector, or use an image that has it",
        )
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    statement = sql.SQL(
        "CREATE TABLE {} (position bigint PRIMARY KEY, id text NOT NULL UNIQUE, text text NOT NULL,"
        " labels text[] NOT NULL, columns jsonb NOT NULL, image_vector vector({dim}), text_vector vector({dim}))"
    )
    connection.execute(statement.format(sql.Identifier(table), dim=sql.Literal(dim)))


def _copy(connection: "Connection", table: str, index: Artifact) -> int:
    """Send all rows; return their number."""
    from psycopg import sql
    from psycopg.types import TypeInfo
    from psycopg.types.json import Jsonb

    vector_type = TypeInfo.fetch(connection, "vector")
    assert vector_type is not None
    vector_type.register(connection)
    _register_vectors(connection, vector_type.oid)
    position = 0
    statement = sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(sql.Identifier(table))
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(["int8", "text", "text", "text[]", "jsonb", *["vector"] * len(MODALITIES)])
        for batch in export_batches(index):
            vectors = [vectors_of(batch, modality) for modality in MODALITIES]
            for row, *of_row in zip(rows_of(batch), *vectors, strict=True):
                copy.write_row([position, row.id, row.text, row.labels, Jsonb(row.columns), *of_row])
                position += 1
    return position


def _register_vectors(connection: "Connection", oid: int) -> None:
    """Have psycopg send arrays as pgvector receives them: dimension and zero in 16 bits, numbers in 32, big-endian."""
    from psycopg.adapt import Dumper
    from psycopg.pq import Format

    class VectorDumper(Dumper):
        format = Format.BINARY

        def dump(self, obj: NDArray[np.float32]) -> bytes:
            return struct.pack(">HH", len(obj), 0) + obj.astype(">f4").tobytes()

    VectorDumper.oid = oid
    connection.adapters.register_dumper(np.ndarray, VectorDumper)


def _take_place(connection: "Connection", new: str, table: str, index: Artifact) -> None:
    from psycopg import sql

    names = {"new": sql.Identifier(new), "table": sql.Identifier(table)}
    comment = sql.Literal(json.dumps(describe(index), ensure_ascii=False))
    connection.execute(sql.SQL("COMMENT ON TABLE {new} IS {comment}").format(**names, comment=comment))
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {table}").format(**names))
    connection.execute(sql.SQL("ALTER TABLE {new} RENAME TO {table}").format(**names))

"""Copies of an index elsewhere find what the index finds."""

import json
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from components.services.vector_stores import pgvector
from dagnn_core.artifacts import read_artifact
from dagnn_core.errors import BackendError, DagnnError, InputError
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.search import export
from dagnn_core.search.build import build_index
from dagnn_core.search.index import SearchIndex
from dagnn_core.search.sources import open_source
from pipeline.cli.main import app
from tests.fixtures.mlflow_server import postgres_binaries, postgres_server

from .conftest import OPTIONS

QUERIES = ("a boat on the water", "two trees", "a house and the moon", "stars")


@pytest.fixture(scope="module")
def opened(collection, tmp_path_factory):
    """An index of images, texts and both, with equal items, which tie."""
    folder = tmp_path_factory.mktemp("export")
    source = SearchIndex.read(collection.index, TrainedModel.read(collection.best))
    rows = []
    for row in range(30):
        text = source._items["text"][row % 20].as_py()
        (folder / f"{row}.jpg").write_bytes(source.thumbnail(row % 20))
        has_image, has_text = row % 5 != 3, row % 5 != 4
        rows.append(
            {"id": f"Ü{row}", "text": text if has_text else "", "image": f"{row}.jpg" if has_image else ""}
            | {"labels": ["tree", "it's"] if row % 2 else [], "year": 2000 + row if row else None}
        )
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = TrainedModel.read(collection.best)
    table = open_source(folder / "table.jsonl")
    made = build_index(folder / "index", model, table, work=folder / "work", options=OPTIONS, provenance={})
    assert made.content["num_items"] == 30
    return SearchIndex(made, model)


def expected(opened, query):
    return [(hit.id, hit.score) for hit in opened.search([query], 10)[0]]


def assert_same(found, wanted):
    """The same ten, in the same order; cosines in float32 may not tell apart what differs by less than they can."""
    assert [score for _, score in found] == pytest.approx([score for _, score in wanted], abs=1e-6)
    scores = [score for _, score in wanted]
    clear = [place for place in range(9) if abs(scores[place] - scores[place + 1]) > 1e-6 or scores[place] == 1]
    for first, last in zip([-1, *clear], [*clear], strict=False):
        assert {i for i, _ in found[first + 1 : last + 1]} == {i for i, _ in wanted[first + 1 : last + 1]}


def queries(opened):
    for text in QUERIES:
        for target in ("image", "text"):
            yield opened.text_query(text, target=target)


def run(*arguments):
    result = CliRunner().invoke(app, ["index", "export", *map(str, arguments)])
    if isinstance(result.exception, DagnnError):
        return str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.output


def test_a_parquet_file_has_vectors_texts_labels_columns_and_the_model(opened, tmp_path):
    out = tmp_path / "index.parquet"
    assert f"30 items of {opened.artifact.path}" in run(opened.artifact.path, "--to", "parquet", "--out", out)
    table = pq.read_table(out)
    assert table.schema.names == ["id", "text", "labels", "image_vector", "text_vector", "year"]
    assert table.schema.field("image_vector").type.list_size == opened.artifact.content["dim"]
    record = json.loads(table.schema.metadata[b"dagnn"])
    assert record["model_digest"] == opened.model.artifact.content_digest
    assert record["index_digest"] == opened.artifact.content_digest
    assert table["id"].to_pylist() == opened.ids and table["year"].to_pylist()[:2] == ["", "2001"]
    for modality in ("image", "text"):
        assert table[f"{modality}_vector"].to_pylist() == opened.vectors(modality).tolist()
    before = out.read_bytes()
    run(opened.artifact.path, "--to", "parquet", "--out", out)
    assert out.read_bytes() == before


def test_a_failed_export_leaves_the_old_file(opened, tmp_path, monkeypatch):
    out = tmp_path / "index.parquet"
    out.write_bytes(b"old")

    def crash(_index):
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr(export, "export_batches", crash)
    with pytest.raises(BackendError, match=r"index\.parquet: no space is left"):
        export.write_parquet(opened.artifact, out)
    assert out.read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["index.parquet"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "csv"), "--to is 'csv', expected parquet, pgvector or qdrant"),
        (("--to", "parquet"), "give --out FILE for parquet alone"),
        (("--to", "parquet", "--out", "index.csv"), "expected a file that ends in .parquet in a folder that exists"),
        (("--to", "qdrant"), "--url for qdrant"),
        (("--to", "pgvector", "--table", "x" * 64), "expected a name of 1 to 63 bytes"),
        (("--to", "pgvector", "--url", "postgresql://x:hunter22@127.0.0.1:1/x"), "PostgreSQL failed: "),
    ],
)
def test_wrong_targets_are_one_line(opened, arguments, message):
    said = run(opened.artifact.path, *arguments)
    assert message in said and "\n" not in said.strip() and "hunter22" not in said


class Database:
    def __init__(self, url):
        self.url = url

    def query(self, statement, *values):
        import psycopg

        with psycopg.connect(self.url) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def database():
    binaries = postgres_binaries("vector")
    if binaries is None:
        pytest.skip("no PostgreSQL server with pgvector is installed (Debian: postgresql-17-pgvector)")
    pytest.importorskip("psycopg", reason="psycopg, the driver for PostgreSQL, is not installed")
    with postgres_server(binaries) as address:
        yield Database(f"postgresql://{address}")


TEN = """SELECT id, 1 - ({0}_vector <=> %s::vector) FROM {1} WHERE {0}_vector IS NOT NULL
ORDER BY {0}_vector <=> %s::vector, position LIMIT 10"""


def test_pgvector_finds_the_same_ten(opened, database):
    said = run(opened.artifact.path, "--to", "pgvector", "--url", database.url, "--table", "My items")
    assert "30 items" in said and "are in the table My items" in said
    for query in queries(opened):
        vector = str(query.vector.tolist())
        assert_same(database.query(TEN.format(query.target, '"My items"'), vector, vector), expected(opened, query))
    row = opened.row("Ü1")
    stored = database.query('SELECT text, labels, columns, image_vector::text FROM "My items" WHERE id = %s', "Ü1")[0]
    assert stored[:3] == (opened._items["text"][row].as_py(), ["it's", "tree"], {"year": "2001"})
    np.testing.assert_array_equal(np.array(json.loads(stored[3]), np.float32), opened.vectors("image")[row])
    comment = json.loads(database.query("SELECT obj_description('\"My items\"'::regclass)")[0][0])
    assert comment["model_digest"] == opened.model.artifact.content_digest


def test_loading_again_gives_the_same_table_and_a_crash_leaves_the_old_one(opened, database, monkeypatch):
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    pgvector.load_pgvector(opened.artifact, "items", url=database.url)
    before, names = database.query("SELECT * FROM items ORDER BY position"), database.query(tables)
    pgvector.load_pgvector(opened.artifact, "items", url=database.url)
    assert database.query("SELECT * FROM items ORDER BY position") == before
    assert database.query(tables) == names

    def crash(index):
        yield next(export.export_batches(index))
        raise KeyboardInterrupt

    monkeypatch.setattr(pgvector, "export_batches", crash)
    with pytest.raises(KeyboardInterrupt):
        pgvector.load_pgvector(opened.artifact, "items", url=database.url)
    assert database.query("SELECT * FROM items ORDER BY position") == before
    assert database.query(tables) == names


def test_a_table_with_other_data_and_a_second_load_are_refused(opened, database, monkeypatch):
    database.query("CREATE TABLE users (name text)")
    with pytest.raises(InputError, match="the table 'users' is no copy of an index, so it is not replaced"):
        pgvector.load_pgvector(opened.artifact, "users", url=database.url)
    assert database.query("SELECT * FROM users") == []

    def second(index):
        with pytest.raises(BackendError, match="another export to the table 'two' is running"):
            pgvector.load_pgvector(index, "two", url=database.url)
        return export.export_batches(index)

    monkeypatch.setattr(pgvector, "export_batches", second)
    assert pgvector.load_pgvector(opened.artifact, "two", url=database.url) == 30


def test_a_text_that_postgresql_cannot_store_is_named(collection, database, tmp_path):
    model = TrainedModel.read(collection.best)
    (tmp_path / "table.jsonl").write_text(json.dumps({"id": "1", "text": "a tree \0"}) + "\n")
    table = open_source(tmp_path / "table.jsonl")
    index = build_index(tmp_path / "index", model, table, work=tmp_path, options=OPTIONS, provenance={})
    with pytest.raises(InputError, match="PostgreSQL cannot store an item: "):
        pgvector.load_pgvector(index, "nul", url=database.url)
    assert database.query("SELECT to_regclass('nul')") == [(None,)]


def test_a_server_without_pgvector_is_named(opened):
    binaries = postgres_binaries()
    if binaries is None or binaries == postgres_binaries("vector"):
        pytest.skip("no PostgreSQL server without pgvector is installed")
    with (
        postgres_server(binaries) as address,
        pytest.raises(BackendError, match="this PostgreSQL server has no pgvector; install its package"),
    ):
        pgvector.load_pgvector(opened.artifact, "items", url=f"postgresql://{address}")


@pytest.fixture
def qdrant():
    client = pytest.importorskip("qdrant_client", reason="qdrant-client is not installed").QdrantClient(":memory:")
    yield client
    client.close()


def test_qdrant_finds_the_same_ten(opened, qdrant):
    from components.services.vector_stores.qdrant import fill_collection

    assert fill_collection(qdrant, opened.artifact, "items") == 30
    for query in queries(opened):
        found = qdrant.query_points("items", query=query.vector.tolist(), using=query.target, limit=10).points
        assert_same([(point.payload["id"], point.score) for point in found], expected(opened, query))
    (point,) = qdrant.retrieve("items", [1], with_vectors=True)
    assert point.payload == {
        "id": "Ü1",
        "text": opened._items["text"][1].as_py(),
        "labels": ["it's", "tree"],
        "columns": {"year": "2001"},
    }
    assert set(qdrant.retrieve("items", [3], with_vectors=True)[0].vector) == {"text"}
    assert set(qdrant.retrieve("items", [4], with_vectors=True)[0].vector) == {"image"}


def test_the_alias_moves_when_the_collection_is_whole(collection, opened, qdrant, monkeypatch):
    from components.services.vector_stores import qdrant as loader

    loader.fill_collection(qdrant, opened.artifact, "items")
    other = read_artifact(collection.index, "index")

    def crash(index):
        yield next(export.export_batches(index))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loader, "export_batches", crash)
        loader.fill_collection(qdrant, other, "items")
    assert qdrant.count("items").count == 30
    for _ in range(2):  # again is the same
        assert loader.fill_collection(qdrant, other, "items") == other.content["num_items"]
        assert qdrant.count("items").count == other.content["num_items"]
        assert [entry.name for entry in qdrant.get_collections().collections] == [f"items-{other.content_digest[:16]}"]
    qdrant.create_collection("taken", vectors_config={})
    with pytest.raises(InputError, match="Qdrant has a collection 'taken', which an alias cannot replace"):
        loader.fill_collection(qdrant, other, "taken")


def test_a_qdrant_server_that_does_not_answer_is_one_line(opened):
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    start = time.monotonic()
    said = run(opened.artifact.path, "--to", "qdrant", "--url", "http://127.0.0.1:1")
    assert said.startswith("Qdrant at http://127.0.0.1:1 failed: ") and "\n" not in said.strip()
    assert time.monotonic() - start < 20

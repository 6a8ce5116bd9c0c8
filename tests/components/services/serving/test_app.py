"""What the service answers, and what it refuses; over HTTP, by a real server."""

import base64
import contextlib
import json
import socket
import threading
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from components.services.serving import schemas
from components.services.serving.answers import answer_of
from components.services.serving.following import warm_up
from components.services.serving.limits import RequestError
from dagnn_core.errors import InputError

from .conftest import ODD_IDS

TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def good(served):
    found = served("good")
    warm_up(found)
    return found


@pytest.fixture(scope="module")
def server(good, serving):
    with serving(good, k=50, batch=4, text_characters=100, image_pixels=10_000, body_bytes=100_000) as running:
        yield running


@pytest.fixture
def ask(server):
    return server.ask


def metric(server, metric_name, **labels):
    """Value of a metric, as Prometheus reads it; 0 where it has not been counted yet."""
    text = server.ask("/metrics").body.decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(
        sample.value for sample in samples if sample.name == metric_name and labels.items() <= sample.labels.items()
    )


def test_a_text_is_answered_as_the_command_answers_it(ask, good):
    answer = ask("/search", {"text": "a boat on the water", "k": 3}).json
    schemas.Answer.model_validate(answer)
    query = good.index.text_query("a boat on the water")
    expected = json.loads(json.dumps(answer_of(good.index, query, good.index.search([query], 3)[0])))
    for hit, same in zip(answer["hits"], expected["hits"], strict=True):
        assert hit.pop("thumbnail") == f"/thumbnails/{hit['id']}"
        assert hit == same
    assert answer["target"] == "image" and answer["index"] == good.index.artifact.content_digest
    assert answer["model"] == {"name": "good", "version": "1", "digest": good.index.model.artifact.content_digest}


def test_an_image_an_item_and_a_vector_are_queries(ask, good):
    item = good.index.ids[5]
    jpeg = good.index.thumbnail(5)
    sent = ask("/search/image?k=2&filters=split%3Dtest", jpeg, content_type="image/jpeg").json
    coded = ask("/search", {"image": base64.b64encode(jpeg).decode(), "k": 2}).json
    assert sent["hits"] == coded["hits"] and sent["target"] == "text" and len(sent["hits"]) == 2
    assert ask("/search", {"id": item, "k": 1}).json["hits"][0]["id"] == item
    vector = good.index.vectors("image")[5].tolist()
    same = ask("/search", {"vector": vector, "modality": "image", "k": 1}).json
    assert same["hits"][0]["id"] == item and same["hits"][0]["score"] == pytest.approx(1)


def test_a_batch_is_answered_in_its_order(ask, good):
    queries = [
        {"text": "a boat"},
        {"id": good.index.ids[1], "k": 2},
        {"text": "a tree", "labels": "not tree"},
        {"text": "a house"},
    ]
    results = ask("/search/batch", {"queries": queries}).json["results"]
    for query, together in zip(queries, results, strict=True):
        alone = ask("/search", query).json
        assert [hit["id"] for hit in together["hits"]] == [hit["id"] for hit in alone["hits"]]
        # in a batch the last digit of an embedding may be another one
        scores = [hit["score"] for hit in alone["hits"]]
        assert [hit["score"] for hit in together["hits"]] == pytest.approx(scores, abs=1e-6)


def test_the_index_and_its_items_are_described(ask, good, serving, served):
    described = ask("/index").json
    schemas.IndexDescription.model_validate(described)
    items = [good.index.item(row) for row in range(len(good.index))]
    assert described["labels"]["tree"] == sum("tree" in item.labels for item in items) > 0
    assert (described["items"], described["columns"]) == (len(items), ["split"])
    assert described["takes"] == {"text": True, "image": True}
    assert described["max_k"] == 50
    item = ask(f"/items/{items[3].id}").json
    assert item == json.loads(json.dumps(items[3]._asdict())) | {"thumbnail": f"/thumbnails/{items[3].id}"}
    with serving(served("vectors")) as other:
        assert other.ask("/index").json["takes"] == {"text": True, "image": False}
        refused = other.ask("/search/image", good.index.thumbnail(0))
        assert refused.status == 422 and "precomputed image vectors" in refused.json["error"]


def test_ids_may_have_any_character(serving, served):
    with serving(served("odd")) as server:
        hits = {hit["id"]: hit for hit in server.ask("/search", {"text": "a boat", "k": 4}).json["hits"]}
        assert sorted(hits) == sorted(ODD_IDS[:3])
        for item_id, hit in hits.items():
            assert server.ask(hit["thumbnail"]).headers["content-type"] == "image/jpeg"
            assert server.ask(f"/items/{quote(item_id, safe='')}").json["id"] == item_id
        last = server.ask(f"/items/{ODD_IDS[3]}").json
        assert last["id"] == ".." and last["thumbnail"] is None and last["columns"] == {"year": "2003"}
        assert server.ask(f"/thumbnails/{ODD_IDS[3]}").json["error"] == "the item has no image"


def test_thumbnails_are_kept_by_browsers_until_the_index_changes(ask, good):
    path = f"/thumbnails/{good.index.ids[0]}"
    first = ask(path)
    assert first.body == good.index.thumbnail(0) and good.digest.startswith(first.headers["etag"].strip('"'))
    again = ask(path, if_none_match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "the body is no JSON"),
        (b"{", 400, "the body is no JSON"),
        (b"\xff\xfe", 400, "the body is no JSON"),
        (b'{"text": "a", "min_score": NaN}', 400, "not finite"),
        (b'{"text": "a", "min_score": 1e999}', 400, "not finite"),
        (b'{"k": ' + b"9" * 5000 + b"}", 400, "the body is no JSON"),
        (b"[" * 50_000, 400, "nested too deep"),
        (b"[]", 422, "the body: "),
        ({}, 422, "the query has none of text, id, vector, image; give one"),
        ({"text": "a tree", "id": "x"}, 422, "the query has text and id"),
        ({"text": "a tree", "limit": 3}, 422, "limit: "),
        ({"text": 3}, 422, "text: "),
        ({"text": "\ud800"}, 422, "text: "),
        ({"text": ""}, 422, "the query is empty"),
        ({"text": "qqq zzz"}, 422, "no word that the model knows; use other words"),
        ({"text": "a" * 101}, 422, "101 characters, expected at most 100"),
        ({"text": "a tree", "k": 0}, 422, "k: "),
        ({"text": "a tree", "k": 51}, 422, "k is 51, expected at most 50"),
        ({"text": "a tree", "k": 10**30}, 422, "expected at most 50"),
        ({"text": "a tree", "k": True}, 422, "k: "),
        ({"text": "a tree", "min_score": 2}, 422, "min_score: "),
        ({"text": "a tree", "target": "sound"}, 422, "target: "),
        ({"text": "a tree", "labels": "trees"}, 422, "no label 'trees'; did you mean 'tree'"),
        ({"text": "a tree", "labels": "(" * 1000}, 422, "label"),
        ({"text": "a tree", "filters": ["year=1"]}, 422, "no column 'year'"),
        ({"text": "a tree", "filters": ["split"]}, 422, "has no '='"),
        ({"text": "a tree", "filters": ["split=test"] * 5}, 422, "5 filters, expected at most 4"),
        ({"text": "a tree", "modality": "text"}, 422, "`modality` belongs to `vector`"),
        ({"vector": [1.0]}, 422, "`modality` belongs to `vector`"),
        ({"vector": [1.0], "modality": "text"}, 422, "the query vector has shape [1], expected"),
        ({"vector": [[1.0]], "modality": "text"}, 422, "vector.0: "),
        ({"vector": [10**400], "modality": "text"}, 422, "vector"),
        ({"id": "nobody"}, 404, "the index has no item 'nobody'; check the id"),
        ({"image": "%%%"}, 422, "`image` is not in base64"),
        ({"image": base64.b64encode(b"GIF89a").decode()}, 422, "the image cannot be decoded"),
    ],
)
def test_a_wrong_query_is_refused_in_one_line(ask, body, status, message):
    refused = ask("/search", body, content_type="application/json")
    said = "; ".join(filter(None, refused.json.values()))
    assert (refused.status, list(refused.json)) == (status, ["error", "remedy"]) and message in said
    assert "\n" not in said and len(said) < 700 and "Traceback" not in said


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/nowhere", 404, "no such address"),
        ("/search", 405, "another method"),
        ("/items/nobody", 404, "no item 'nobody'"),
        ("/thumbnails/nobody", 404, "no item 'nobody'"),
        ("/items/", 404, "no item ''"),
        ("/assets/../app.py", 404, "no such address"),
        ("/assets/%2e%2e/app.py", 404, "no such address"),
    ],
)
def test_wrong_addresses_are_answered_in_json(ask, path, status, message):
    refused = ask(path)
    assert refused.status == status and message in refused.json["error"]


def test_other_content_parameters_and_batches_are_refused(ask, png):
    assert ask("/search", b"text=a", content_type="application/x-www-form-urlencoded").status == 415
    assert ask("/search", b"{}").status == 415
    assert ask("/search/image", b"{}", content_type="application/json").status == 415
    assert "k is 'x'" in ask("/search/image?k=x", png()).json["error"]
    assert "size: " in ask("/search/image?size=3", png()).json["error"]
    assert ask("/search/image?min_score=nan", png()).status == 422
    wide = ask("/search/image", png(10_001, 1))
    assert (wide.status, wide.json["error"]) == (413, "the image has 10001 x 1 pixels, expected at most 10000 in all")
    known, unknown = {"text": "a tree"}, {"text": "zzz"}
    for queries, message in (
        ([known, unknown], "queries.1: the query 'zzz'"),
        ([known, {"id": "nobody"}], "queries.1: the index has no item"),
        ([known, known | {"k": 99}], "queries.1: k is 99"),
        ([known, known | {"labels": "none"}], "queries.1: there is no label"),
        ([known, 3], "queries.1"),
        ([known] * 5, "the batch has 5 queries, expected at most 4"),
        ([], "queries: "),
        (None, "queries: "),
    ):
        refused = ask("/search/batch", {"queries": queries})
        assert refused.status in (404, 422) and message in refused.json["error"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("text", "id", "vector", "modality", "image", "target", "k", "labels", "filters", "min_score")


REQUESTS = st.builds(lambda field, value: {"text": "a tree"} | {field: value}, st.sampled_from(FIELDS), JSON_VALUES)


@given(
    body=st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES, max_size=4) | REQUESTS | JSON_VALUES, path=st.booleans()
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_makes_the_service_fail(server, body, path):
    service = server.service
    encoded = json.dumps(body if path else {"queries": [body]}).encode(errors="surrogatepass")
    with contextlib.suppress(InputError):  # what else is raised would be answered 500
        try:
            service.search(encoded) if path else service.search_batch(service.parse_batch(encoded))
        except RequestError as error:
            assert 400 <= error.status < 500


def test_a_failure_of_the_service_is_one_line_and_its_log_has_the_trace(serving, served, caplog):
    found = served("weak")
    found.index.nearest_labels = lambda query: 1 / 0
    with serving(found) as server:
        failed = server.ask("/search", {"text": "a boat"})
        assert (failed.status, failed.json) == (500, {"error": "the service failed", "remedy": "see its log"})
        assert server.ask("/healthz").status == 200
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info is not None and "division by zero" in record.getMessage()


def test_before_the_first_model_is_loaded_searches_wait(serving, good):
    with serving() as server:
        assert server.ask("/healthz").status == 200
        assert (server.ask("/readyz").status, server.ask("/readyz").json["ready"]) == (503, False)
        early = server.ask("/search", {"text": "a boat"})
        assert (early.status, early.headers["retry-after"]) == (503, "2")
        server.service.serve(good)
        ready = server.ask("/readyz")
        schemas.Readiness.model_validate(ready.json)
        assert ready.status == 200 and ready.json["model"]["version"] == "1" and ready.json["registry"] is None
        assert server.ask("/search", {"text": "a boat"}).status == 200


def test_a_token_is_needed_where_there_is_one(serving, good):
    with serving(good, tokens=("another-token-of-mine", TOKEN)) as server:
        for path in ("/", "/healthz", "/readyz", "/openapi.json"):
            assert server.ask(path).status == 200, path
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}, {"authorization": "Basic x"}):
            for path in ("/index", "/metrics", f"/thumbnails/{good.index.ids[0]}", "/nowhere"):
                refused = server.ask(path, **headers)
                assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
                assert TOKEN not in refused.body.decode()
        right = {"authorization": f"Bearer {TOKEN}"}
        assert server.ask("/index", **right).status == 200
        assert server.ask("/search", {"text": "a boat"}, **right).status == 200
        assert server.ask("/search", {"text": "a boat"}).status == 401
        text = server.ask("/metrics", **right).body.decode()
        assert 'dagnn_rejected_total{reason="token"} 17.0' in text


def test_every_answer_has_the_headers_that_keep_browsers_safe(ask):
    for path in ("/", "/index", "/nowhere", "/metrics"):
        headers = ask(path).headers
        assert headers["x-content-type-options"] == "nosniff" and "access-control-allow-origin" not in headers
        policy = dict(rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'" and policy["script-src"] == policy["connect-src"] == "'self'"


def test_a_client_beyond_its_rate_waits(serving, good):
    with serving(good, rate=0.1, batch=8) as server:
        batch = {"queries": [{"text": "a boat"}] * 4}
        assert server.ask("/search/batch", batch).status == 200
        refused = server.ask("/search", {"text": "a boat"})
        assert refused.status == 429 and 20 < int(refused.headers["retry-after"]) <= 40
        assert server.ask("/index").status == 200
        assert metric(server, "dagnn_rejected_total", reason="rate") == 1


def test_a_full_queue_refuses_at_once(serving, good):
    found = good
    with serving(found, queue=1, threads=1) as server:
        release = threading.Event()
        server.service.search = lambda body, request: b"{}" if release.wait(30) else b""
        waiting = _begin(server.port, b"POST /search HTTP/1.1\r\ncontent-type: application/json\r\n", length=19)
        waiting.sendall(b'{"text": "a boat"}\n')
        while metric(server, "dagnn_queue_length") < 1:
            time.sleep(0.01)
        refused = server.ask("/search", {"text": "a boat"})
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert metric(server, "dagnn_rejected_total", reason="queue") == 1
        release.set()
        assert b"200 OK" in waiting.recv(1000)
        waiting.close()


def _begin(port: int, head: bytes, *, length: int | None = None) -> socket.socket:
    """Send the head of a request, and no body yet."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    size = b"transfer-encoding: chunked" if length is None else f"content-length: {length}".encode()
    connection.sendall(head + b"host: here\r\n" + size + b"\r\n\r\n")
    return connection


def test_bodies_are_bounded_and_have_to_come(serving, good):
    head = b"POST /search HTTP/1.1\r\ncontent-type: application/json\r\n"
    with serving(good, body_bytes=1000, body_seconds=0.5) as server:
        declared = _begin(server.port, head, length=1001)
        assert b"413 " in declared.recv(100)  # before any of it was sent
        chunked = _begin(server.port, head)
        chunked.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
        assert b"413 " in chunked.recv(100)
        slow = _begin(server.port, head, length=10)
        silent = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        half = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        half.sendall(b"POST /search HT")
        start = time.monotonic()
        assert b"408 " in slow.recv(100)
        for connection in (silent, half):  # ended by the server
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(100) == b""
        assert time.monotonic() - start < 5
        with contextlib.suppress(OSError):  # what was refused cannot be sent without end
            while time.monotonic() - start < 10:
                chunked.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
                time.sleep(0.05)
            raise AssertionError("the connection stays open")
        assert server.ask("/search", {"text": "a boat"}).status == 200
        for connection in (declared, chunked, slow, silent, half):
            connection.close()


def test_a_client_that_sends_all_of_a_body_before_it_reads_gets_the_answer(serving, good):
    head = b"POST /search HTTP/1.1\r\ncontent-type: application/json\r\nconnection: close\r\n"
    with serving(good, body_bytes=1000) as server:
        size = 30_000_000  # more than the buffers of the connection hold
        with _begin(server.port, head, length=size) as connection:
            connection.sendall(b" " * size)
            assert connection.makefile("rb").read().endswith(b'"send a smaller image or a smaller batch"}')
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nx: " + b"a" * size)
            assert b'"this is no HTTP/1.1"' in connection.makefile("rb").read()
        assert server.ask("/healthz").status == 200


def test_what_is_no_http_is_answered_in_json(server):
    for head in (
        b"nonsense\r\n\r\n",
        b"POST /search HTTP/1.1\r\nhost: here\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(head)
            answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 4") and b'{"error": ' in answer, head[:20]


def test_metrics_count_what_happens(serving, good, served):
    with serving(good) as server:
        server.ask("/search", {"text": "a boat"})
        server.ask("/search", {"text": "zzz"})
        for stage in ("decode", "embed", "search", "whole"):
            assert metric(server, "dagnn_search_seconds_count", stage=stage) == (1 if stage == "search" else 2)
        assert metric(server, "dagnn_queries_total", kind="text") == 1
        assert metric(server, "dagnn_answers_total", status="422") == 1
        assert metric(server, "dagnn_index_items") == len(good.index)
        assert metric(server, "dagnn_model_info", name="good", version="1", index=good.digest) == 1
        server.service.serve(served("weak"))
        assert metric(server, "dagnn_model_info", name="good") == 0
        assert metric(server, "dagnn_model_info", name="weak") == 1
        assert metric(server, "dagnn_queue_length") == 0


def test_queries_are_logged_without_images(serving, good, tmp_path, png):
    log = tmp_path / "queries.jsonl"
    with serving(good, query_log=log) as server:
        found = server.ask("/search", {"text": "a boat qqq", "k": 2, "filters": ["split=test"]}).json
        server.ask("/search/image?k=1", png())
        server.ask("/search", {"id": good.index.ids[0]})
        server.ask("/search", {"text": "zzz"})
    text, image, item, unknown = map(json.loads, log.read_text().splitlines())
    assert (text["text"], text["target"], text["k"], text["filters"]) == ("a boat qqq", "image", 2, ["split=test"])
    assert [hit["id"] for hit in text["hits"]] == [hit["id"] for hit in found["hits"]]
    assert text["unknown_words"] == 1 and text["model"] == found["model"] and text["milliseconds"] > 0
    assert (image["kind"], image["text"], item["id"]) == ("image", None, good.index.ids[0])
    assert (unknown["text"], unknown["hits"], unknown["relevant"], unknown["embedding"]) == ("zzz", [], False, "")
    assert unknown.keys() == text.keys()
    assert "127.0.0.1" not in log.read_text()


def test_a_full_disk_costs_lines_of_the_log_alone(serving, good, caplog):
    with serving(good, query_log=Path("/dev/full")) as server:
        assert [server.ask("/search", {"text": "a boat"}).status for _ in range(3)] == [200] * 3
        assert metric(server, "dagnn_query_log_failures_total") == 3
    assert sum("/dev/full lacks queries for now" in record.getMessage() for record in caplog.records) == 1


def test_the_openapi_document_describes_every_address(ask):
    document = ask("/openapi.json").json
    assert set(document["paths"]) >= {"/search", "/search/image", "/search/batch", "/index", "/items/{id}"}
    body = document["paths"]["/search"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    name = body["$ref"].rpartition("/")[2]
    assert set(document["components"]["schemas"][name]["properties"]) == set(FIELDS)

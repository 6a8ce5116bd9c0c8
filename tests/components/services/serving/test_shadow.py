"""A shadow is asked what the service is asked, and whatever it does, no answer is another one or comes later."""

import json
import threading
import time
from contextlib import contextmanager

import pytest

from components.services.serving import shadow as module
from components.services.serving.limits import Limits
from components.services.serving.metrics import Metrics
from components.services.serving.query_log import QueryLog
from components.services.serving.service import SearchService
from components.services.serving.shadow import ShadowModel, log_of_shadow
from components.services.watching.lines import Damage, read_queries
from components.services.watching.two_logs import compare_logs

TEXTS = ["a boat on the water", "a tree", "snow on the mountains", "a house"]


def counted(server):
    """Outcome -> requests, as the metrics have them."""
    lines = [
        line for line in server.ask("/metrics").body.decode().splitlines() if line.startswith("dagnn_shadow_total")
    ]
    return {line.split('"')[1]: int(float(line.split()[-1])) for line in lines}


def wait_for(is_true):
    deadline = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def shadowed(served, serving, tmp_path, monkeypatch):
    """A server with `good`, whose shadow is a service with `weak`, or what else is given."""

    @contextmanager
    def run(beside=None):
        log, metrics = tmp_path / "queries.jsonl", Metrics()
        if beside is None:
            beside = SearchService(Limits(), metrics, QueryLog(log_of_shadow(log), metrics))
            beside.serve(served("weak"))
        with serving(served("good"), query_log=log) as server:
            shadow = ShadowModel(beside, server.service.metrics)
            monkeypatch.setattr(server.service, "_shadow", shadow)
            yield server, log
            shadow.close()

    return run


def test_both_log_what_was_asked_and_the_champion_answers(shadowed, served):
    with shadowed() as (server, log):
        answers = [server.ask("/search", {"text": text, "k": 5}).json for text in TEXTS]
        named = server.ask("/search", {"text": "a boat"}, x_request_id="client-7").json
        batch = server.ask("/search/batch", {"queries": [{"text": text} for text in TEXTS[:2]]}).json
        image = served("good").index.thumbnail(0)
        server.ask("/search/image", image, content_type="image/jpeg")
        wait_for(lambda: counted(server).get("answered") == 7)
        assert {answer["model"]["name"] for answer in (*answers, named, *batch["results"])} == {"good"}
        odd = {"text": "a boat", "labels": "no such label"}
        assert server.ask("/search", odd).status == 422, "the shadow is not asked what was refused"
        vector = [0.5] * server.service.served.index.artifact.content["dim"]
        assert server.ask("/search", {"vector": vector, "modality": "text"}).status == 200
        assert counted(server) == {"answered": 7, "skipped": 1}
    damage = Damage()
    one, other = (list(read_queries([path], damage)) for path in (log, log_of_shadow(log)))
    assert damage.num_lines == 0
    assert [query.request for query in other] == [query.request for query in one[:-1]]
    assert {(query.model.name) for query in one} == {"good"} and {query.model.name for query in other} == {"weak"}
    assert one[4].request == "client-7" and one[5].request.endswith("/0") and one[6].request.endswith("/1")
    assert [query.words for query in one[:2]] == [5, 2] and one[0].vector.shape == (len(vector),)
    found = compare_logs(one, other)
    assert found.pairs.number == 8 and 0 < found.pairs.overlap < 8


def test_a_text_without_a_known_word_is_logged_and_the_shadow_may_know_more(shadowed):
    with shadowed() as (server, log):
        answer = server.ask("/search", {"text": "qqq zzz"})
        assert answer.status == 422 and "has no word that the model knows" in answer.json["error"]
        assert server.ask("/search/batch", {"queries": [{"text": "a boat"}, {"text": "xxx"}]}).status == 422
        assert server.ask("/search", {"text": "a boat", "labels": "no such label"}).status == 422
        wait_for(lambda: counted(server).get("failed") == 2)
    damage = Damage()
    for path in (log, log_of_shadow(log)):
        lone, of_batch = read_queries([path], damage)
        assert (lone.text, lone.words, lone.unknown_words) == ("qqq zzz", 2, 2)
        assert (lone.relevant, lone.hits, lone.vector) == (False, (), None)
        assert (of_batch.text, of_batch.request.endswith("/1")) == ("xxx", True)
    assert damage.num_lines == 0


def test_a_shadow_that_fails_or_hangs_changes_no_answer(shadowed, monkeypatch):
    class Broken:
        served_or_none = object()
        asked = 0

        def answer(self, asked, *, request, is_batch):
            Broken.asked += 1
            if Broken.asked == 1:
                raise MemoryError
            freed.wait(30)

    freed = threading.Event()
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    with shadowed(Broken()) as (server, _):
        server.ask("/search", {"text": TEXTS[0]})
        wait_for(lambda: counted(server).get("failed") == 1)
        times = []
        for text in TEXTS * 3:
            start = time.monotonic()
            assert server.ask("/search", {"text": text}).json["model"]["name"] == "good"
            times.append(time.monotonic() - start)
        assert max(times) < 5, "one search hangs, and nobody waits for it"
        assert counted(server) == {"failed": 1, "skipped": 12 - 3}
        freed.set()


def test_a_shadow_without_a_model_is_not_asked(shadowed):
    with shadowed(SearchService(Limits(), Metrics())) as (server, _):
        assert server.ask("/search", {"text": "a boat"}).status == 200
        assert counted(server) == {"skipped": 1}


def test_a_log_that_was_moved_away_is_made_again(served, serving, tmp_path):
    log = tmp_path / "queries.jsonl"
    with serving(served("good"), query_log=log) as server:
        for text in TEXTS:
            server.ask("/search", {"text": text})
            if text in TEXTS[1:3]:  # logrotate moves it, and later removes it
                log.rename(tmp_path / f"queries.jsonl.{TEXTS.index(text)}")
    texts = {
        path.name: [json.loads(line)["text"] for line in path.read_text().splitlines()]
        for path in tmp_path.glob("queries*")
    }
    assert texts == {
        "queries.jsonl.1": TEXTS[:2],
        "queries.jsonl.2": TEXTS[2:3],
        "queries.jsonl": TEXTS[3:],
    }

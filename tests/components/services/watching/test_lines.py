"""Logs of queries as they come: whole, rotated, compressed, damaged."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from components.services.watching.lines import MAX_LINE, Damage, LoggedQuery, log_files, read_queries
from dagnn_core.errors import InputError

# as services wrote it before lines had a request, words and an embedding
OLD = {
    "time": "2026-11-01T10:00:00.000+00:00",
    "kind": "text",
    "text": "a boat",
    "id": None,
    "target": "image",
    "k": 10,
    "labels": "",
    "filters": [],
    "min_score": -1.0,
    "hits": [{"id": "a", "score": 0.5}],
    "relevant": True,
    "nearest_labels": {"boat": 0.9},
    "expected_labels": 1.5,
    "unknown_words": 0,
    "milliseconds": 3.25,
    "model": {"name": "dagnn", "version": "3", "digest": "d" * 64},
    "index": "i" * 64,
}


def line(**changes: Any) -> bytes:
    return json.dumps(OLD | changes).encode() + b"\n"


def read(path: Path, **options: Any) -> tuple[list[LoggedQuery], Damage]:
    damage = Damage()
    return list(read_queries([path], damage, **options)), damage


def test_what_logrotate_made_of_a_log_belongs_to_it(tmp_path: Path) -> None:
    log = tmp_path / "queries[1].jsonl"
    log.write_bytes(line(text="now"))
    (tmp_path / "queries[1].jsonl.1").write_bytes(line(text="before"))
    (tmp_path / "queries[1].jsonl.2.gz").write_bytes(gzip.compress(line(text="long before")))
    (tmp_path / "queries[1].jsonl-20261101").write_bytes(line(text="dated"))
    (tmp_path / "queries[1].jsonl-20261101.gz").write_bytes(gzip.compress(line(text="dated")))  # being compressed
    for other in ("queries[1].jsonl.swp", "queries[1].jsonl.txt", "queries1.jsonl.1"):
        (tmp_path / other).write_bytes(line(text="another file"))
    queries, damage = read(log)
    assert sorted(query.text or "" for query in queries) == ["before", "dated", "long before", "now"]
    assert damage.num_lines == 0
    log.unlink()
    assert len(log_files(log)) == 3, "a log that was just moved away"


def test_damaged_lines_are_counted_and_named_and_the_others_are_read(tmp_path: Path) -> None:
    log = tmp_path / "queries.jsonl"
    wrong = [
        b'{"time": "2026-11-01T1\n',  # cut off by a full disk
        b"\xff\xfe\x00\n",
        line(kind="smell"),
        line(milliseconds="fast"),
        line(milliseconds=float("nan")),
        line(milliseconds=-1.0),
        line(milliseconds=1e300),
        line(words=1, unknown_words=2),
        line(words=-1),
        line(time="yesterday"),
        line(time="0001-01-01T00:00:00+23:59"),  # before the first year in UTC
        line(embedding="not base64"),
        b"[1, 2]\n",
        b"x" * (MAX_LINE + 10) + b"\n",
    ]
    log.write_bytes(line(text="first", unknown_words=2) + b"".join(wrong) + b"\n" + line(text="last"))
    queries, damage = read(log)
    assert [query.text for query in queries] == ["first", "last"]
    assert damage.num_lines == len(wrong)
    first, second, third = damage.examples
    assert first.startswith(f"{log}:2: Invalid JSON: ")
    assert second.startswith(f"{log}:3: Invalid JSON")
    assert third.startswith(f"{log}:4: kind: Input should be 'text', 'id', 'image' or 'vector'")


@pytest.mark.parametrize("spoil", [lambda content: content[:-12], lambda content: b"no gzip"])
def test_a_damaged_archive_costs_its_rest(tmp_path: Path, spoil: Any) -> None:
    log = tmp_path / "queries.jsonl"
    log.write_bytes(line(text="now"))
    (tmp_path / "queries.jsonl.1.gz").write_bytes(spoil(gzip.compress(line() * 100)))
    queries, damage = read(log)
    assert queries[-1].text == "now"
    assert damage.num_lines == 1 and "the file cannot be read on from here" in damage.examples[0]


def test_old_queries_are_left_out(tmp_path: Path) -> None:
    log = tmp_path / "queries.jsonl"
    log.write_bytes(line(time="2026-10-31T23:59:59+00:00") + line(time="2026-11-01T01:00:00+02:00") + line())
    queries, _ = read(log, since=datetime(2026, 11, 1, tzinfo=UTC))
    assert [query.time[:13] for query in queries] == ["2026-11-01T10"], "two in the morning elsewhere was October here"


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl does not exist, expected a log of queries; `dagnn serve"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path)

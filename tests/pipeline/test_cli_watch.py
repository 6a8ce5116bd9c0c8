"""`dagnn watch`, whole: what it prints, writes and exits with."""

import json
import shutil
from pathlib import Path

import pytest

from components.services.serving.query_log import encode_vector
from components.services.tracking.mlflow import Tracking
from dagnn_core.artifacts import read_artifact
from dagnn_core.model.embedder import TrainedModel
from tests.fixtures.collection import Collection, collection
from tests.pipeline.conftest import CommandLine

__all__ = ["collection"]


def write(
    path: Path, texts: list[str], *, model: TrainedModel | None = None, name: str = "dagnn", **changes: object
) -> None:
    digest = model.artifact.content_digest if model else "d" * 64
    vectors = model.encode_texts(texts) if model else [None] * len(texts)
    lines = []
    for number, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
        line = {
            "time": f"2026-11-{1 + number % 28:02}T10:00:00.000+00:00",
            "request": f"r{number}",
            "kind": "text",
            "text": text,
            "target": "image",
            "hits": [{"id": "a", "score": 0.5}],
            "relevant": True,
            "words": 2,
            "unknown_words": 0,
            "embedding": "" if vector is None else encode_vector(vector),
            "milliseconds": 5.0,
            "model": {"name": name, "version": "1", "digest": digest},
        }
        lines.append(json.dumps(line | changes))
    path.write_text("\n".join(lines) + "\n")


def test_a_table_json_and_a_page(in_project: CommandLine, tmp_path: Path) -> None:
    write(tmp_path / "queries.jsonl", ["a boat"] * 30)
    with (tmp_path / "queries.jsonl").open("a") as stream:
        stream.write("half a li")
    done = in_project(["watch", "queries.jsonl", "--html", "out/trend.html"])
    assert (done.status, done.err) == (0, "")
    rows = [line.split() for line in done.out.splitlines() if line]
    assert ["queries", "30"] in rows and ["damaged_lines", "1"] in rows
    assert ["ok", "nothing_relevant", "0", "0.2"] in rows and ["ok", "latency_p95_ms", "5", "500"] in rows
    assert "queries.jsonl:31: Invalid JSON" in done.out
    page = (tmp_path / "out/trend.html").read_text()
    assert page.count("<svg") == 4 and "Nothing relevant" in page
    answer = json.loads(in_project(["watch", "queries.jsonl", "--json"]).out)
    assert [finding["name"] for finding in answer["findings"]] == [
        "nothing_relevant",
        "unknown_words",
        "latency_p95_ms",
    ]
    assert len(answer["trend"]) == 28 and answer["trend"][0]["queries"] == 2
    assert answer["log"]["damaged_lines"] == 1


def test_who_looks_for_it_at_compare_is_sent_here(in_project: CommandLine, tmp_path: Path) -> None:
    write(tmp_path / "queries.jsonl", ["a boat"])
    done = in_project(["compare", "queries.jsonl", "other.jsonl"])
    assert done.status == 2
    assert done.err == (
        "error: queries.jsonl is a file, expected the folder of a report, an MLflow run, or a version; "
        "`dagnn watch LOG --compare OTHER` compares logs of queries\n"
    )


def test_beyond_a_limit(in_project: CommandLine, tmp_path: Path) -> None:
    write(tmp_path / "queries.jsonl", ["a boat"] * 30, relevant=False)
    done = in_project(["watch", "queries.jsonl"])
    assert done.status == 1
    assert done.err == "error: queries.jsonl: beyond the limit: nothing_relevant\n"
    assert "30 of 30" in done.out
    assert in_project(["watch", "queries.jsonl", "--max-nothing-relevant", "1"]).status == 0


def test_against_a_version_and_its_data(
    in_project: CommandLine, tmp_path: Path, collection: Collection, empty_database: Path
) -> None:
    model = TrainedModel.read(collection.best)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    client = Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db").client
    client.create_registered_model("dagnn")
    digest = model.artifact.content_digest
    client.create_model_version("dagnn", source="file:///nowhere", tags={"model_digest": digest})
    client.set_registered_model_alias("dagnn", "champion", "1")
    shutil.copytree(collection.best, tmp_path / ".dagnn/models" / digest)  # as if it had been fetched before
    write(tmp_path / "queries.jsonl", [f"{model.label_names[0]} zeppelin"] * 60, model=model)
    data = ["--dataset", str(collection.dataset)]
    done = in_project(["watch", "queries.jsonl", "--against", "dagnn@champion", *data])
    assert done.status == 1
    assert done.err == "error: queries.jsonl: beyond the limit: unseen_words\n"
    assert "warning  text_length_shift" in done.out and "warning  text_label_shift" in done.out
    assert "against            dagnn@champion" in done.out and "zeppelin" in done.out
    write(tmp_path / "queries.jsonl", ["a boat"] * 3, name="other")
    done = in_project(["watch", "queries.jsonl", "--against", "dagnn", *data])
    expected = "error: queries.jsonl has no query that dagnn has answered (3 of other 1); name one of these\n"
    assert (done.status, done.err) == (2, expected)
    assert read_artifact(collection.best, "model").content_digest == digest


def test_two_logs(in_project: CommandLine, tmp_path: Path) -> None:
    write(tmp_path / "champion.jsonl", ["a boat"] * 60)
    write(tmp_path / "challenger.jsonl", ["a boat"] * 60, milliseconds=9.0)
    done = in_project(["watch", "champion.jsonl", "--compare", "challenger.jsonl"])
    assert (done.status, done.err) == (0, "")
    rows = [line.split() for line in done.out.splitlines() if line]
    assert ["queries", "60", "60"] in rows and ["p50_ms", "5.0", "9.0"] in rows
    assert "60 requests are in both: the same first result for 100.0%, 100.0% of the results in common" in done.out
    write(tmp_path / "challenger.jsonl", ["a boat"] * 60, relevant=False)
    done = in_project(["watch", "champion.jsonl", "--compare", "challenger.jsonl", "--json"])
    assert (done.status, json.loads(done.out)["compared"]["lost"]) == (1, 60)
    assert done.err.startswith(
        "error: challenger.jsonl finds nothing relevant for more queries than champion.jsonl (p ="
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jsonl"], "none.jsonl does not exist, expected a log of queries"),
        (["empty.jsonl"], "empty.jsonl has no queries; check the path, and --days"),
        (["damaged.jsonl"], "damaged.jsonl has no queries (1 damaged lines, such as damaged.jsonl:1: Invalid JSON"),
        (["empty.jsonl", "--compare", "damaged.jsonl"], "empty.jsonl has no queries; check the path, and --days"),
        (["empty.jsonl", "--compare", "x", "--html", "y"], "--compare looks at two logs alone"),
        (["empty.jsonl", "--against", "a b/c"], "'a b/c' names no version, expected NAME, NAME@ALIAS or NAME/VERSION"),
        (["empty.jsonl", "--against", "dagnn"], "sqlite:///mlflow.db does not exist; go to the folder that has it"),
    ],
)
def test_what_is_wrong_is_one_line(in_project: CommandLine, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "damaged.jsonl").write_text("{\n")
    done = in_project(["watch", *arguments])
    assert done.status == 2
    assert message in done.err and done.err.count("\n") == 1

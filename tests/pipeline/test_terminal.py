"""What data, paths and servers call things reaches a terminal as text: no escapes, no forged lines, no markup."""

import io
import json
import logging
import unicodedata
import zipfile
from pathlib import Path

import pytest
from rich.console import Console

from components.output import MAX_LINE, LineFormatter, error_line
from components.services.lineage.tree import Node, State
from dagnn_core.artifacts import write_artifact
from dagnn_core.errors import DagnnError, InputError
from pipeline.cli.lineage import render
from pipeline.cli.run_table import RunTable
from pipeline.cli.runs import _table
from pipeline.follow import RunProgress
from pipeline.kubeflow.runs import Task
from tests.pipeline.conftest import CommandLine, Ended

CONTROLS = "\x1b[2J\x1b]0;title\x07\r\u202egpj\u200b\x9b31m"
HOSTILE = f"{CONTROLS}\nerror: forged [red]"
OF_A_FILE = f"{HOSTILE}\udc80"  # names of files may be any bytes


def _check(done: Ended, *, statuses: tuple[int, ...] = (2,)) -> None:
    text = done.out + done.err
    for character in text:
        assert character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs"), (character, text)
    assert not any(line.startswith("error: forged") for line in text.splitlines()), text
    assert done.status in statuses and "Traceback" not in text, text


@pytest.mark.parametrize(
    "arguments",
    [
        ["results", "--report", OF_A_FILE],
        ["data", "check", OF_A_FILE],
        ["data", "add", "photos", OF_A_FILE],
        ["data", "add", HOSTILE, "x"],
        ["data", "import", "folder", OF_A_FILE, "out", "--table", "x.csv"],
        ["params", "show", "--params", OF_A_FILE],
        ["results", "--report", "x" * 300],
        ["data", "check", "x" * 300],
    ],
)
def test_arguments(in_project: CommandLine, arguments: list[str]) -> None:
    _check(in_project(arguments))


@pytest.mark.parametrize(
    "params", [{HOSTILE: {HOSTILE: HOSTILE}}, {"dataset": {HOSTILE: HOSTILE}}, {"dataset": {"layout": HOSTILE}}]
)
def test_keys_of_yaml(in_project: CommandLine, tmp_path: Path, params: object) -> None:
    (tmp_path / "params.yaml").write_text(json.dumps(params))
    _check(in_project(["params", "show"]))


def test_columns_and_cells(in_project: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    table = tmp_path / "source/table.csv"
    command = ["data", "import", "folder", "source", "out", "--table", "table.csv"]
    table.write_text(f'id,"{HOSTILE}",labels\n"{HOSTILE}",x,a|b\n"{HOSTILE}",x,a|b\n')
    _check(in_project(command))
    table.write_text(f'id,text,labels\n"{HOSTILE}","{HOSTILE}","{HOSTILE}"\n"{HOSTILE}",x,a|b\n')
    _check(in_project(command))


def test_names_in_archives(in_project: CommandLine, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(f"../{HOSTILE}", b"x")
    _check(in_project(["data", "add", "photos", "x.zip"]))


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": HOSTILE},
        {"kind": HOSTILE},
        {"files": {HOSTILE: {"size": 1, "sha256": "0"}}},
        {"files": {"x": {HOSTILE: 1}}},
    ],
)
def test_manifests(in_project: CommandLine, tmp_path: Path, change: dict[str, object]) -> None:
    whole = {"schema_version": 2, "kind": "report", "content": {}, "files": {}, "content_digest": "", "provenance": {}}
    (tmp_path / "report").mkdir()
    (tmp_path / "report/manifest.json").write_text(json.dumps(whole | change))
    _check(in_project(["results", "--report", "report"]))


@pytest.mark.parametrize("metrics", ["{", "[]", "{}", '{"map_i2t": "x"}', "null", "[" * 100_000, "\x00"])
def test_results_of_a_damaged_report(in_project: CommandLine, tmp_path: Path, metrics: str) -> None:
    with write_artifact(tmp_path / "report", kind="report", provenance={}) as draft:
        (draft.path / "metrics.json").write_text(metrics)
    for option in ([], ["--json"]):
        done = in_project(["results", "--report", "report", *option])
        _check(done)
        assert "report/metrics.json " in done.err and "dvc repro --force evaluate" in done.err


def test_tables_of_what_a_server_says() -> None:
    shown = io.StringIO()
    task = Task(HOSTILE, "", HOSTILE, (), None, None, f"[bold]{HOSTILE}")
    with RunTable(Console(file=shown, width=1000, force_terminal=False)) as table:
        table(RunProgress(HOSTILE, HOSTILE, [task], HOSTILE, None, None))
    assert "[red]" in shown.getvalue() and "[bold]" in shown.getvalue() and r"\u001b[2J" in shown.getvalue()
    node = Node(
        kind=HOSTILE, identity=HOSTILE, state=State.MISSING, reason=HOSTILE, details={HOSTILE: HOSTILE}, children=()
    )
    for text in (shown.getvalue(), "\n".join(render(node)), _table(["run"], [[HOSTILE]])):
        assert not {"\x1b", "\x9b", "\u202e", "\r", "\u200b"} & set(text)
        assert not any(line.startswith("error: forged") for line in text.splitlines()), text


def test_log_lines_keep_to_themselves() -> None:
    values = ("a\nb\x1b", 3, Path("c\nd"))
    record = logging.LogRecord("x", logging.INFO, "", 0, "two\nlines: %s, %d, %s", values, None)
    assert LineFormatter().format(record) == "two\nlines: a\\nb\\u001b, 3, c\\nd"
    assert record.args == values


def test_the_line_of_an_error_is_bounded_and_keeps_its_remedy() -> None:
    line = error_line(InputError("x" * 10**7, "do this"))
    assert len(line) < MAX_LINE + 10 and line.endswith("x ...; do this")
    assert len(error_line(InputError("x" * 10**5, "y" * 10**5))) < MAX_LINE + 20
    assert error_line(DagnnError("what")) == "what"

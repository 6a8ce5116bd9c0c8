import json

import pytest
from typer.testing import CliRunner

from components.benchmarks import search
from pipeline.cli.main import app


@pytest.mark.slow
def test_searches_are_measured_beside_faiss_and_torch(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "SECONDS", 0.01)
    arguments = ["bench", "search", "--size", "4000", "--dim", "12", "--out", str(tmp_path / "rows.json")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert (tmp_path / "rows.md").read_text() in result.output
    assert [row["search"] for row in rows] == [
        *("exact", "plain faiss, exact", "cells", "plain faiss, cells", "torch topk")
    ]
    exact, cells = rows[0], rows[2]
    assert exact["recall at 10"] == 1 and 0.98 <= cells["recall at 10"] <= 1
    for row in (exact, cells):
        assert [row[f"filter {share}, recall"] for share in ("1%", "10%", "50%")] == [1, 1, 1]
        assert row["ratio to plain faiss"] > 0 and row["p99: ms"] >= row["p50: ms"] > 0

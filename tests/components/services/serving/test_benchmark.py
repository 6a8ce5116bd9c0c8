import sys

import pytest

from components.benchmarks.serve import CLIENTS, STAGES, run


@pytest.mark.slow
def test_a_service_is_timed_at_once_and_at_a_steady_rate(scenes, indices, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    figures = run(
        command=[sys.executable, "-m", "pipeline.cli.main", "serve"],
        index=indices / "good",
        model=str(scenes.models["good"]),
        items=300,
        seconds=0.5,
        minutes=0.05,
    )
    for clients in CLIENTS:
        assert figures[f"{clients} clients: errors"] == 0
        assert figures[f"{clients} clients: ms, median"] <= figures[f"{clients} clients: ms, 99th percentile"]
        whole = figures[f"{clients} clients: whole, ms, mean"]
        assert whole >= max(figures[f"{clients} clients: {stage}, ms, mean"] for stage in STAGES)
    rates = [figures[f"{clients} clients: requests per second"] for clients in CLIENTS]
    assert figures["steady: rate asked for"] == pytest.approx(0.8 * max(rates))
    assert figures["steady: errors"] == 0 and figures["steady: memory at the end, MiB"] > 50

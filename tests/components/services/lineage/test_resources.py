"""What steps use: measured, in records of pipelines alone, and in words."""

import re

import pytest

from components.services.lineage.provenance import provenance
from components.services.lineage.resources import record_use, used, used_by_steps
from dagnn_core.resources import recorded_resources, resource_words


def test_time_and_memory_grow(caplog: pytest.LogCaptureFixture) -> None:
    before = used()
    ballast = bytearray(64 << 20)
    sum(range(3_000_000))
    after = used()
    assert ballast and after["cpu_seconds"] >= before["cpu_seconds"] > 0
    assert after["wall_seconds"] >= before["wall_seconds"] > 0
    assert 64 < before["peak_memory_mib"] <= after["peak_memory_mib"] < 1 << 20


def test_only_a_record_of_a_pipeline_holds_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.delenv("DAGNN_PIPELINE_RUN", raising=False)
    record = provenance("dataset")
    record_use(record)
    assert record == provenance("dataset"), "equal work makes equal files"
    assert re.fullmatch(r"used [\d,]+ s, [\d,]+ CPU seconds, [\d,]+ MiB at most", caplog.messages[-1])
    monkeypatch.setenv("DAGNN_PIPELINE_RUN", "local/today")
    record = provenance("dataset")
    assert record_use(record) == record["execution"]["resources"]


def test_words_and_records_of_several_steps() -> None:
    resources = {"wall_seconds": 61.4, "gpu_seconds": 61.4, "peak_memory_mib": 2048.0}
    assert resource_words(resources) == "61 s, 61 GPU seconds, 2,048 MiB at most"
    record = {
        "execution": {"resources": resources},
        "origins": {"label_graph": {"execution": {"resources": {"cpu_seconds": 3.2}}}, "dataset": {"execution": {}}},
    }
    assert recorded_resources("model", record) == {
        "label graph": "3 CPU seconds",
        "model": "61 s, 61 GPU seconds, 2,048 MiB at most",
    }
    assert recorded_resources("model", {}) == {}
    assert used_by_steps(record) == {"build_label_graph_cpu_seconds": 3.2}
    assert used_by_steps({}) == {}

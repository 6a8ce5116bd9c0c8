"""Reports of runs and versions, fetched from the tracking server, and compared with each other."""

import json

import pytest

from components.services.lineage.reports import open_report
from dagnn_core.artifacts import read_artifact
from dagnn_core.errors import InputError
from dagnn_core.reports.comparison.compare import ComparedReport, compare_reports


def test_a_folder_a_run_and_a_version_are_the_same_report(scenes, tmp_path):
    folder = scenes.models["good"].parent / "report"
    run = read_artifact(scenes.models["good"], "model").provenance["mlflow_run_id"]
    expected = read_artifact(folder, "report").content_digest
    references = (str(folder), run, f"runs:/{run}", "good/1", "good@challenger", "models:/good/1")
    for number, reference in enumerate(references):
        assert open_report(reference, scenes.tracking, tmp_path / str(number)).content_digest == expected


def test_versions_compared_by_their_reports(scenes, tmp_path):
    def fetch(name):
        return ComparedReport.read(name, open_report(f"{name}/1", scenes.tracking, tmp_path / name))

    reports = [fetch("good"), fetch("weak")]
    both = compare_reports(reports).rows[2]
    for report, row in (("good", both.reference), ("weak", both.changes[0].mean)):
        metrics = json.loads((scenes.models[report].parent / "report" / "metrics.json").read_text())
        assert row == pytest.approx(metrics["map_mean"], abs=1e-12)
    with pytest.raises(InputError, match="vectors and good are about other test items"):
        compare_reports([reports[0], fetch("vectors")])


def test_what_is_not_there(scenes, store_version, tracking, tmp_path):
    for reference, message in (
        ("0" * 32, "has no run 0{32}, or it was deleted"),
        ("good/7", "good/7 does not exist"),
        ("a:b", "'a:b' is no report"),
    ):
        with pytest.raises(InputError, match=message):
            open_report(reference, scenes.tracking, tmp_path / "out")
    version = store_version(tracking)
    with pytest.raises(InputError, match=f"dagnn/{version} has no report; evaluate its model"):
        open_report(f"dagnn/{version}", tracking, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_report_of_another_model(scenes, tmp_path):
    name = "swapped"
    scenes.register(name, "good", model_digest="0" * 64)
    with pytest.raises(InputError, match="the report in the run of swapped/1 is about another model"):
        open_report(f"{name}/1", scenes.tracking, tmp_path / "out")

"""Step `promote`: the gate on real versions, of which each test spoils something."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components.services.data_versions.layout import folder_digest
from components.services.promotion import evidence
from components.services.promotion.gate import LoadTest
from components.services.promotion.load_test import load_test
from components.services.promotion.promotion import read_history
from components.services.registry.stored_model import model_folder
from components.services.registry.versions import CHALLENGER, CHAMPION
from components.steps.promote import run
from dagnn_core import artifacts
from dagnn_core.artifacts import read_artifact
from dagnn_core.config.register import GateConfig, RegisterConfig
from dagnn_core.errors import BackendError, CheckFailedError, InputError
from pipeline.cli import registry as commands

# small data: bounds are wide
PARAMS = RegisterConfig(gate=GateConfig(max_drop_i2t=0.1, max_drop_t2i=0.1, max_slice_drop=0.3))
COMMITTED = ("lineage", "committed", "dvc_lock")
DROPS = ("drop_i2t", "drop_t2i", "drop_rare_labels", "drop_short_texts")
SERVED = ("served_difference", "latency_p95_ms", "peak_memory_mib")
FLOORS = ("map_i2t", "map_t2i")


LOADED = LoadTest(served_difference=0.0, latency_p50_ms=1.0, latency_p95_ms=2.0, peak_memory_mib=500.0)
"""What a load test could say, for the tests that are about something else: a fresh process takes seconds."""


@pytest.fixture(scope="module", autouse=True)
def loaded_once(scenes):
    """Load the same files in a fresh process once for all tests, since the answer is the same, and `weak` never."""
    measured = {}
    weak = folder_digest(scenes.files("weak"))

    def load_once(stored, queries):
        key = digest, _ = folder_digest(stored), queries.embeddings.tobytes()
        if digest == weak:
            return LOADED
        if key not in measured:
            measured[key] = load_test(stored, queries)
        return measured[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence, "load_test", load_once)
        yield


@pytest.fixture
def project(tmp_path, monkeypatch, scenes):
    """The current folder: a repository whose dvc.lock lists the models `good` and `weak`."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    outs = [
        {"path": f"artifacts/{name}", "md5": folder_digest(scenes.models[name]), "hash": "md5"}
        for name in ("good", "weak")
    ]
    YAML().dump({"schema": "2.0", "stages": {"train": {"cmd": "train", "outs": outs}}}, folder / "dvc.lock")
    git("init", "--quiet")
    git("add", "dvc.lock")
    git("commit", "--quiet", "--message", "Train")
    return folder


def git(*arguments):
    names = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    return subprocess.run(["git", *names, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def promote(scenes, name, *, data="scenes", params=PARAMS, **options):
    options = {"version": None, "dataset": scenes.datasets[data]} | options
    return run(name=name, params=params, tracking=scenes.tracking, **options)


def failed(promotion):
    return {check.name: check.explanation for check in promotion.checks if check.verdict == "failed"}


def aliases(scenes, name):
    registered = scenes.tracking.client.get_registered_model(name)
    return {alias: str(version) for alias, version in registered.aliases.items()}


@pytest.mark.usefixtures("project")
def test_a_better_version_becomes_champion_and_a_worse_one_does_not(scenes, monkeypatch, capsys):
    scenes.register("boats", "weak")
    first = promote(scenes, "boats")
    assert first.decision.accepted, first.decision.reason
    assert [check.name for check in first.checks if check.verdict == "not applicable"] == list(DROPS)
    assert aliases(scenes, "boats") == {CHALLENGER: "1", CHAMPION: "1"}

    scenes.register("boats", "good")
    second = promote(scenes, "boats", why="ticket 7")
    assert (second.champion, second.decision.accepted) == ("1", True), second.decision.reason
    assert {check.verdict for check in second.checks} == {"passed"}
    metrics = {check.name: check.value for check in second.checks}
    assert metrics["drop_i2t"] < 0
    for metric in ("map_i2t", "map_t2i", "map_mean"):
        assert second.metrics[metric] == pytest.approx(float(scenes.version("good").tags[metric]), abs=1e-6)
        assert second.metrics[f"champion_{metric}"] == pytest.approx(
            float(scenes.version("weak").tags[metric]), abs=1e-6
        )
    assert metrics["served_difference"] < 1e-5
    assert 50 < metrics["peak_memory_mib"] < 2000
    event = read_history(scenes.tracking, name="boats").events[1]
    assert event.metrics == pytest.approx(second.metrics)
    commit = git("rev-parse", "HEAD")[:12]
    assert event.why == f"ticket 7; 18 of 18 checks passed; dvc.lock of commit {commit} lists this model"

    # and back again, by the command
    monkeypatch.setenv("MLFLOW_TRACKING_URI", scenes.tracking.uri)
    params = json.dumps({"gate": {"min_map_t2i": 0.8}})
    options = {"name": "boats", "version": "1", "dataset": scenes.datasets["scenes"], "params": params}
    with pytest.raises(
        CheckFailedError, match=r"boats version 1 is not promoted: \d of 18 checks failed: map_t2i: 0.7"
    ):
        commands.promote(**options, dry_run=True)
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "boats version 1, champion 2"
    rows = {line.split()[1]: line.split() for line in table[2:] if line[:3] in ("pas", "fai")}
    assert (rows["lineage"][0], rows["map_t2i"][0], rows["drop_i2t"][0]) == ("passed", "failed", "failed")
    assert rows["drop_i2t"][3] == "0.02"
    assert any("train a better model" in line for line in table)
    assert all(len(line) <= 100 for line in table)
    assert len(read_history(scenes.tracking, name="boats").events) == 2

    with pytest.raises(CheckFailedError):
        commands.promote(**options, as_json=True)
    answer = json.loads(capsys.readouterr().out)
    assert (answer["version"], answer["champion"], answer["accepted"], answer["dry_run"]) == ("1", "2", False, False)
    assert answer["checks"][0] == {
        "name": "lineage",
        "verdict": "passed",
        "value": 0,
        "limit": 0,
        "explanation": "parts of its lineage that the version does not name; nothing is missing",
    }
    assert {"map_i2t", "champion_map_i2t", "latency_p95_ms"} <= set(answer["figures"])
    assert read_history(scenes.tracking, name="boats").events[2].what == "refused"
    assert aliases(scenes, "boats") == {CHALLENGER: "2", CHAMPION: "2"}


def test_every_fault_of_a_version_is_found_and_nothing_but_the_refusal_is_written(scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no repository
    monkeypatch.setattr(evidence, "load_test", lambda stored, queries: LOADED)
    stored = shutil.copytree(scenes.files("good"), tmp_path / "stored")
    (stored / "artifacts" / "model" / "extra.bin").write_bytes(b"\x80\x04]\x94.")
    manifest = model_folder(stored) / "manifest.json"
    record = json.loads(manifest.read_text())
    record["provenance"]["origins"] = {"dataset": {"git": {"commit": "c0ffee", "dirty": True}}}
    leaky = read_artifact(scenes.datasets["leaky"], "dataset").content_digest
    record["provenance"]["ancestors"]["dataset"] = leaky
    record["manifest_digest"] = artifacts.manifest_digest_of(record)
    manifest.write_text(json.dumps(record))
    scenes.register(
        "spoiled",
        "good",
        source=stored,
        model_manifest_digest=record["manifest_digest"],
        features_digest="0" * 64,
        dataset_digest=leaky,
        report_digest=None,
        data_licence=None,
        description="",
    )
    params = RegisterConfig(gate=GateConfig(min_map_i2t=1.0, max_latency_ms=1e-3, max_memory_mib=1.0))

    promotion = promote(scenes, "spoiled", data="leaky", params=params, allow_dirty=True)
    reasons = failed(promotion)
    assert set(reasons) == {
        *("lineage", "map_i2t", "latency_p95_ms", "peak_memory_mib", "pickled_files", "card", "data_licence"),
        *("leaked_images",),
    }
    assert "missing: features_digest, report_digest" in reasons["lineage"]
    assert "artifacts/model/extra.bin" in reasons["pickled_files"]
    allowed = {check.name: check.explanation for check in promotion.checks if check.verdict == "allowed"}
    assert list(allowed) == ["committed", "dvc_lock"]
    assert "differed from the commit when these were made: dataset; commit" in allowed["committed"]
    assert promotion.decision.reason.startswith(f"8 of {len(promotion.checks)} checks failed: lineage: 2 against 0, ")
    assert aliases(scenes, "spoiled") == {CHALLENGER: "1"}
    [event] = read_history(scenes.tracking, name="spoiled").events
    assert (event.what, event.why) == ("refused", promotion.decision.reason)
    known = RegisterConfig(gate=GateConfig(max_leaked_images=0.99))  # the user knows of the copies
    assert "leaked_images" not in failed(promote(scenes, "spoiled", data="leaky", params=known, dry_run=True))


@pytest.mark.slow
def test_uncommitted_code_is_accepted_on_demand_alone_and_recorded(scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scenes.register("dirty", "good")
    assert set(failed(promote(scenes, "dirty", dry_run=True))) == {"dvc_lock"}
    assert promote(scenes, "dirty", allow_dirty=True).decision.accepted
    [event] = read_history(scenes.tracking, name="dirty").events
    assert "allowed by --allow-dirty: dvc_lock: no commit in this folder's repository has a dvc.lock" in event.why


@pytest.mark.slow
@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("embeddings * 1.001", r"^largest difference of embeddings in a fresh process"),
        (
            "__import__('components')",
            r"^the version does not work in a fresh process: ModuleNotFoundError: No module named 'components'",
        ),
        (
            "__import__('os').environ['AWS_SECRET_ACCESS_KEY']",
            r"^the version does not work in a fresh process: KeyError: 'AWS_SECRET_ACCESS_KEY'",
        ),
    ],
    ids=["other embeddings", "needs the project", "takes credentials"],
)
def test_a_version_that_serves_something_else(scenes, tmp_path, monkeypatch, spoil, reason):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    stored = shutil.copytree(scenes.files("good"), tmp_path / "stored")
    served = stored / "pyfunc_model.py"
    served.write_text(served.read_text().replace("        return embeddings\n", f"        return {spoil}\n"))
    name = f"served-{tmp_path.name}"
    scenes.register(name, "good", source=stored)
    reasons = failed(promote(scenes, name))
    assert set(reasons) in ({"served_difference"}, set(SERVED))
    assert all(re.search(reason, explanation) for explanation in reasons.values())


@pytest.mark.usefixtures("project")
def test_a_model_whose_weights_were_changed(scenes, tmp_path):
    stored = shutil.copytree(scenes.files("good"), tmp_path / "stored")
    weights = model_folder(stored) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    scenes.register("changed", "good", source=stored)
    reasons = failed(promote(scenes, "changed"))
    assert {*COMMITTED, *FLOORS, *DROPS, *SERVED, "data_check"} == set(reasons)
    assert "model.safetensors does not have the checksum" in reasons["map_i2t"]


@pytest.mark.slow
@pytest.mark.usefixtures("project")
def test_a_champion_with_other_labels_or_one_that_cannot_encode_these_data(scenes, tmp_path):
    scenes.register("others", "vectors")
    scenes.tracking.client.set_registered_model_alias("others", CHAMPION, "1")
    scenes.register("others", "good")
    reasons = failed(promote(scenes, "others"))
    assert set(reasons) == set(DROPS)
    assert all(
        re.match(r"the champion, version 1, has other labels \(\d+ .*\), so they cannot be compared", reason)
        for reason in reasons.values()
    )

    # a champion of the same labels, on images that data of precomputed vectors do not have
    stored = shutil.copytree(scenes.files("good"), tmp_path / "stored")
    folder = model_folder(stored)
    shutil.rmtree(folder)
    shutil.copytree(scenes.models["vectors"], folder)
    shutil.rmtree(folder / "image_encoder")
    shutil.copytree(scenes.models["good"] / "image_encoder", folder / "image_encoder")
    resealed = reseal(folder)
    scenes.register("images", "vectors", source=stored, model_digest=resealed, model_manifest_digest=None)
    scenes.tracking.client.set_registered_model_alias("images", CHAMPION, "1")
    scenes.register("images", "vectors")
    reasons = failed(promote(scenes, "images", data="vectors", allow_dirty=True))
    assert set(reasons) == set(DROPS)
    assert all(
        "the champion, version 1, cannot encode these data: it takes images (classic)" in r for r in reasons.values()
    )


def reseal(folder: Path) -> str:
    """Write the manifest of a changed artifact again; return its digest."""
    record = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").unlink()
    draft = artifacts.ArtifactDraft(path=folder, content=record["content"])
    artifacts._seal(draft, record["kind"], record["provenance"])
    return read_artifact(folder, "model").content_digest


@pytest.mark.slow
@pytest.mark.usefixtures("project")
def test_a_champion_whose_files_are_gone(scenes, tmp_path):
    stored = shutil.copytree(scenes.files("weak"), tmp_path / "stored")
    scenes.register("gone", "weak", source=stored)
    scenes.tracking.client.set_registered_model_alias("gone", CHAMPION, "1")
    shutil.rmtree(stored)
    scenes.register("gone", "good")
    reasons = failed(promote(scenes, "gone"))
    assert set(reasons) == set(DROPS)
    assert "the champion, version 1, has lost its files: MLmodel is missing" in reasons["drop_i2t"]


def test_data_of_another_version_or_none(scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scenes.register("data", "good")
    with pytest.raises(InputError, match=r"vectors is not the data set that version 1 was made from .*as --dataset"):
        promote(scenes, "data", data="vectors")
    with pytest.raises(InputError, match=r"artifacts/dataset is not the data set .* give its folder as --dataset"):
        promote(scenes, "data", dataset=None)
    assert read_history(scenes.tracking, name="data").events == ()
    shutil.copytree(scenes.datasets["scenes"], tmp_path / "artifacts" / "dataset")
    assert set(failed(promote(scenes, "data", dataset=None, dry_run=True))) == {"dvc_lock"}


def test_unreachable_server_is_no_refusal(scenes):
    with pytest.raises(BackendError, match="cannot be used"):
        promote(scenes._replace(tracking=replace(scenes.tracking, uri="http://127.0.0.1:9")), "good")

"""Copies of versions in other registries: the same files, what they say of themselves, and nothing half done."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from components.services.registry import copying
from components.services.registry.copying import COPIED_FROM, copy_version, other_registry
from components.services.registry.stored_model import download, model_folder
from components.services.registry.versions import CHALLENGER, MODEL_ID
from components.services.tracking.mlflow import Tracking
from dagnn_core.artifacts import read_artifact
from dagnn_core.errors import BackendError, InputError
from dagnn_core.model.embedder import TrainedModel
from pipeline.cli import registry as commands
from tests.components.services.data_versions.conftest import kill_at


@pytest.fixture
def prod(empty_database: Path, tmp_path: Path) -> Tracking:
    """Another registry, with nothing in it."""
    folder = tmp_path / "prod"
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    return Tracking(uri=f"sqlite:///{folder}/mlflow.db")


def versions(tracking: Tracking, name: str = "good") -> list:
    return tracking.client.search_model_versions(f"name = '{name}'")


def test_a_copy_has_the_same_files_tags_card_and_lineage(scenes, prod, tmp_path, monkeypatch, capsys):
    source = scenes.version("good")
    done = copy_version(scenes.tracking, source, prod)
    assert (done.name, done.version, done.is_new) == ("good", "1", True)
    (copied,) = versions(prod)
    assert prod.client.get_registered_model("good").aliases == {CHALLENGER: copied.version}
    own = {MODEL_ID, "mlflow_run_id", "registered_by", COPIED_FROM}
    assert {tag: value for tag, value in copied.tags.items() if tag not in own} == {
        tag: value for tag, value in source.tags.items() if tag not in own
    }
    assert copied.tags[COPIED_FROM] == f"{scenes.tracking.address} good/1"
    assert copied.description == source.description and "# Model card" in copied.description
    folders = [download(scenes.tracking, source, tmp_path / "one"), download(prod, copied, tmp_path / "other")]
    one, other = ({str(p.relative_to(f)): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in folders)
    assert set(one) == set(other) >= {"card.md", "card.html", "MLmodel"}
    differing = {name for name in one if one[name] != other[name]}
    assert differing == {"MLmodel"}
    assert copied.tags[MODEL_ID] in other["MLmodel"].decode() and source.run_id not in other["MLmodel"].decode()
    model = TrainedModel.read(model_folder(folders[1]), verify=True)
    assert model.artifact.content_digest == done.digest == source.tags["model_digest"]
    run = prod.client.get_run(copied.run_id)
    assert run.data.params == scenes.tracking.client.get_run(source.run_id).data.params
    assert run.data.metrics["map_mean"] == pytest.approx(float(source.tags["map_mean"]))
    report = Path(prod.client.download_artifacts(copied.run_id, "report", str(tmp_path)))
    assert read_artifact(report, "report", verify=True).content_digest == source.tags["report_digest"]
    assert [entry.model_id for entry in run.outputs.model_outputs] == [copied.tags[MODEL_ID]]

    monkeypatch.setenv("MLFLOW_TRACKING_URI", scenes.tracking.uri)
    commands.copy("good@challenger", to=prod.uri, as_json=True)
    assert json.loads(capsys.readouterr().out) == done._replace(is_new=False)._asdict()
    commands.copy("good/1", to=prod.uri)
    assert capsys.readouterr().out.splitlines()[0] == "there already  good version 1, alias challenger"
    assert len(versions(prod)) == 1
    with pytest.raises(InputError, match=r"there is no good@champion \(versions of good: 1\)"):
        commands.copy("good@champion", to=prod.uri)


@pytest.mark.slow
def test_a_copy_can_be_served(scenes, prod, monkeypatch, tmp_path):
    copy_version(scenes.tracking, scenes.version("good"), prod)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", prod.uri)
    load = "import mlflow.pyfunc, pandas; model = mlflow.pyfunc.load_model('models:/good@challenger')\n"
    load += "print(model.predict(pandas.DataFrame([{'text': 'a boat', 'image': ''}])).shape)"
    done = subprocess.run([sys.executable, "-c", load], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(1, 22)"


@pytest.mark.slow
def test_a_copy_that_differs_is_no_version(scenes, prod, monkeypatch):
    def spoil(tracking, uri, stored):
        (weights,) = Path(uri.removeprefix("file://")).rglob("model.safetensors")
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
        check(tracking, uri, stored)

    check = copying._check_copy
    monkeypatch.setattr(copying, "_check_copy", spoil)
    with pytest.raises(
        BackendError, match=r"differs from the version in 1 of \d+ files, such as .*model\.safetensors;"
    ):
        copy_version(scenes.tracking, scenes.version("good"), prod)
    assert versions(prod) == []
    monkeypatch.undo()
    assert copy_version(scenes.tracking, scenes.version("good"), prod).version == "1"


@pytest.mark.slow
def test_a_copy_that_is_there_and_damaged_is_told_and_nothing_moves(scenes, prod):
    copy_version(scenes.tracking, scenes.version("good"), prod)
    (copied,) = versions(prod)
    prod.client.delete_registered_model_alias("good", CHALLENGER)
    location = prod.client.get_model_version_download_uri("good", copied.version)
    (weights,) = Path(location.removeprefix("file://")).rglob("model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match=r"good 1 in .* has not the files that were registered; delete that version"):
        copy_version(scenes.tracking, scenes.version("good"), prod)
    assert prod.client.get_registered_model("good").aliases == {}
    prod.client.delete_model_version("good", copied.version)
    assert copy_version(scenes.tracking, scenes.version("good"), prod).is_new


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        "components.services.registry.copying:ensure_registered_model after 1",
        "components.services.registry.copying:_rename before 1",
        "components.services.registry.copying:_check_copy before 1",
        "components.services.registry.copying:log_evaluation after 1",
        "components.services.registry.copying:add_version before 1",
        "components.services.registry.copying:add_version after 1",
    ],
)
def test_a_copy_that_was_killed_is_repeated_and_there_is_one_version(scenes, prod, monkeypatch, tmp_path, point):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", scenes.tracking.uri)
    call = "from pipeline.cli.main import main\nmain()\n"
    kill_at(point, call, "registry", "copy", "good/1", "--to", prod.uri, cwd=tmp_path)
    known = point == "components.services.registry.copying:add_version after 1"
    assert len(versions(prod)) == known
    done = copy_version(scenes.tracking, scenes.version("good"), prod)
    assert (done.version, done.is_new) == ("1", not known)
    assert prod.client.get_registered_model("good").aliases == {CHALLENGER: versions(prod)[0].version}
    assert len(versions(prod)) == 1


def test_what_cannot_be_copied_is_one_line_and_nothing_is_made(scenes, prod, tmp_path, monkeypatch):
    source = scenes.version("good")
    with pytest.raises(InputError, match=r"is the registry that the version is in; name another one as --to"):
        copy_version(scenes.tracking, source, scenes.tracking)
    with pytest.raises(InputError, match=r"is the registry that the version is in; name another one as --to"):
        copy_version(scenes.tracking, source, replace(scenes.tracking, uri=f"{scenes.tracking.uri}?timeout=5"))
    lost = shutil.copytree(scenes.files("good"), tmp_path / "lost")
    (lost / "artifacts" / "model" / "model.json").unlink()
    scenes.register("copy-lost", "good", source=lost)
    with pytest.raises(
        InputError, match=r"copy-lost 1 has lost its files: .*model\.json is missing .*register the model again"
    ):
        copy_version(scenes.tracking, scenes.tracking.client.get_model_version("copy-lost", "1"), prod)
    spoiled = shutil.copytree(scenes.files("good"), tmp_path / "spoiled")
    weights = spoiled / "artifacts" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    scenes.register("copy-spoiled", "good", source=spoiled)
    with pytest.raises(
        InputError, match=r"copy-spoiled 1 in sqlite:.* has not the files that were registered; register it"
    ):
        copy_version(scenes.tracking, scenes.tracking.client.get_model_version("copy-spoiled", "1"), prod)
    scenes.register("copy-evaluated", "good", report_digest="0" * 64)
    with pytest.raises(InputError, match=r"has the report of another evaluation by now; register the model again"):
        copy_version(scenes.tracking, scenes.tracking.client.get_model_version("copy-evaluated", "1"), prod)
    assert prod.client.search_registered_models() == []
    nowhere = other_registry(scenes.tracking, "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(BackendError, match=r"MLflow at http://127\.0\.0\.1:9 cannot be used.*; start .* correct --to$"):
        copy_version(scenes.tracking, source, nowhere)

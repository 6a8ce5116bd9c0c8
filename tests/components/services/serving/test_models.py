import shutil

import pytest

from components.services.serving.models import fetch_model, open_model
from dagnn_core.artifacts import read_artifact
from dagnn_core.errors import ArtifactError, InputError


def digest(path):
    return read_artifact(path, "model", verify=True).content_digest


def test_a_version_is_downloaded_once_and_again_where_it_is_damaged(scenes, tmp_path):
    path = fetch_model("models:/good@challenger", scenes.tracking, tmp_path)
    assert digest(path) == digest(scenes.models["good"])
    (path / "mark").touch()
    assert (fetch_model("models:/good/1", scenes.tracking, tmp_path) / "mark").exists(), "not downloaded again"
    weights = bytearray((path / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (path / "model.safetensors").write_bytes(weights)
    assert digest(fetch_model("models:/good/1", scenes.tracking, tmp_path)) == digest(scenes.models["good"])
    assert [entry.name for entry in tmp_path.iterdir()] == [digest(scenes.models["good"])]


def test_what_is_no_version_is_refused(scenes, tmp_path):
    with pytest.raises(InputError, match="no registered model 'bad'"):
        fetch_model("models:/bad@champion", scenes.tracking, tmp_path)
    with pytest.raises(InputError, match="good@champion does not exist"):
        fetch_model("models:/good@champion", scenes.tracking, tmp_path)
    with pytest.raises(InputError, match="names no version"):
        fetch_model("models:/a/b/c", scenes.tracking, tmp_path)


def test_a_version_that_lost_its_files_is_refused(scenes, tmp_path):
    stored = tmp_path / "stored"
    shutil.copytree(scenes.files("good"), stored)
    scenes.register("lossy", "good", source=stored)
    next(stored.rglob("model.safetensors")).unlink()
    with pytest.raises(InputError, match="lossy 1 has lost its files"):
        fetch_model("models:/lossy/1", scenes.tracking, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_folder_is_opened_as_it_is(scenes, tmp_path):
    assert open_model(str(scenes.models["good"]), cache=tmp_path).config.kind == "ridge"
    with pytest.raises(ArtifactError, match="gone does not exist"):
        open_model("gone")

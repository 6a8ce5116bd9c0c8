import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from components.services.registry.stored_model import download, find_fault, model_folder, pickled_files
from dagnn_core.artifacts import manifest_digest_of, write_json
from dagnn_core.errors import ArtifactError


@pytest.fixture
def version(tracking, store_version):
    return tracking.client.get_model_version("dagnn", store_version(tracking))


@pytest.fixture
def files(tracking, files_of):
    return files_of(tracking, "1")


def test_whole_version(tracking, version):
    assert find_fault(tracking, version) is None


@pytest.mark.parametrize(
    ("file", "where"),
    [
        ("MLmodel", "MLmodel"),
        ("artifacts/model/manifest.json", "artifacts/model/manifest.json"),
        ("artifacts/model/config.json", "artifacts/model/config.json"),
        ("artifacts/model/parts/weights.txt", "artifacts/model/parts/weights.txt"),
        ("artifacts/model/parts", "artifacts/model/parts/weights.txt"),
        ("artifacts", "artifacts/model/manifest.json"),
        (".", "MLmodel"),
    ],
)
def test_missing_files(tracking, version, files, file, where):
    path = files / file
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert find_fault(tracking, version) == f"has lost its files: {where} is missing in its store"


def test_shortened_file(tracking, version, files):
    (files / "artifacts/model/config.json").write_text("{")
    expected = "has damaged files: artifacts/model/config.json has 1 bytes in its store, expected 2"
    assert find_fault(tracking, version) == expected


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("MLmodel", "flavors: {sklearn: {}}"),
        ("MLmodel", "flavors: ["),
        ("MLmodel", ""),
        ("MLmodel", "flavors: {python_function: {artifacts: {model: {path: 3}}}}"),
        ("artifacts/model/manifest.json", "{"),
        ("artifacts/model/manifest.json", "[]"),
        ("artifacts/model/manifest.json", b"\xff"),
    ],
)
def test_files_of_something_else(tracking, version, files, file, content):
    (files / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert find_fault(tracking, version).startswith("is no model of this program, or its files are damaged (")


def test_files_of_another_model(tracking, version, files):
    file = files / "artifacts/model/manifest.json"
    manifest = json.loads(file.read_text()) | {"content_digest": "0" * 64}
    write_json(file, manifest | {"manifest_digest": manifest_digest_of(manifest)})
    assert find_fault(tracking, version).startswith("has the files of another model: artifacts/model/manifest.json has")


def test_deleted_run(tracking, version):
    tracking.client.delete_run(version.run_id)
    assert find_fault(tracking, version) == f"stands on the MLflow run {version.run_id}, which was deleted"


def test_deleted_model(tracking, version):
    model_id = version.tags["mlflow_model_id"]
    tracking.client.delete_logged_model(model_id)
    assert find_fault(tracking, version) == f"stands on the MLflow model {model_id}, which was deleted"


def test_version_without_a_run(tracking):
    tracking.client.create_registered_model("other")
    version = tracking.client.create_model_version("other", source="s3://bucket/model")
    assert find_fault(tracking, version) == "stands on the MLflow run (none), which was deleted"


def test_downloaded_files_are_those_of_the_version(tracking, version, files, tmp_path):
    stored = download(tracking, version, tmp_path / "downloaded")
    names = {path.relative_to(files) for path in files.rglob("*")}
    assert {path.relative_to(stored) for path in stored.rglob("*")} == names
    assert model_folder(stored) == stored / "artifacts" / "model"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("flavors: {sklearn: {}}", "is not that of a model of this program"),
        ("flavors: [", "is not that of a model of this program"),
        ("flavors: {python_function: {artifacts: {model: {path: ../../elsewhere}}}}", "names a model outside of its"),
        ("flavors: {python_function: {artifacts: {model: {path: /etc}}}}", "names a model outside of its own folder"),
    ],
)
def test_files_without_a_model(tmp_path, content, message):
    (tmp_path / "MLmodel").write_text(content)
    with pytest.raises(ArtifactError, match=rf"MLmodel {message}"):
        model_folder(tmp_path)


def test_pickled_files_are_found_by_name_and_by_content(tmp_path):
    (tmp_path / "sub").mkdir()
    for protocol in range(2, 6):
        (tmp_path / f"protocol{protocol}.bin").write_bytes(pickle.dumps({"a": 1}, protocol=protocol))
    (tmp_path / "old.pkl").write_bytes(pickle.dumps({"a": 1}, protocol=0))
    torch.save({"weights": torch.ones(2)}, tmp_path / "sub" / "weights")
    torch.save({"weights": torch.ones(2)}, tmp_path / "legacy.bin", _use_new_zipfile_serialization=False)
    np.save(tmp_path / "objects.npy", np.array([{}, None], dtype=object))
    np.save(tmp_path / "fields.npy", np.array([(1, None)], dtype=[("a", "i4"), ("b", "O")]))
    np.savez(tmp_path / "objects.npz", plain=np.ones(3), objects=np.array([{}], dtype=object))
    (tmp_path / "damaged.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{")
    found = set(pickled_files(tmp_path))
    assert found == {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}

    np.save(tmp_path / "plain.npy", np.ones(3))
    np.savez(tmp_path / "plain.npz", plain=np.ones(3))
    np.save(tmp_path / "text.npy", np.array(["O", "descr"]))
    save_file({"weights": np.ones(3)}, tmp_path / "weights.safetensors")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "short").write_bytes(b"\x80")
    (tmp_path / "text.json").write_text('{"a": 1}')
    assert set(pickled_files(tmp_path)) == found

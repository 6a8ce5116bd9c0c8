import json
import shutil

import pytest

from components.services.stored_model import find_fault


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
    file.write_text(json.dumps(json.loads(file.read_text()) | {"content_digest": "0" * 64}))
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

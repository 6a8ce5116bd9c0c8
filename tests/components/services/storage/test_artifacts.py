"""Artifacts as folders in S3: whole, or not there."""

from pathlib import Path

import pytest

from components.services.storage.artifacts import delete_folder, fetch_artifact, send_artifact
from components.services.storage.s3 import Storage
from dagnn_core.artifacts import read_artifact, write_artifact
from dagnn_core.errors import ArtifactError, BackendError, InputError
from tests.fixtures.s3 import Bucket


def test_there_and_back_and_away(bucket: Bucket, tmp_path: Path) -> None:
    with write_artifact(tmp_path / "model", kind="model", provenance={}) as draft:
        (draft.path / "parts").mkdir()
        (draft.path / "parts/weights").write_text("1 2 3")
    storage, uri = Storage(endpoint_url=bucket.endpoint), f"{bucket.uri}/models/one"
    send_artifact(tmp_path / "model", uri, storage)
    bucket.put("models/one-more", b"of another")
    fetch_artifact(uri, tmp_path / "copy", storage)
    sent, got = (read_artifact(tmp_path / name, "model", verify=True) for name in ("model", "copy"))
    assert got.content_digest == sent.content_digest
    bucket.put("models/one/parts/weights", b"3 2 1")
    with pytest.raises(BackendError, match="models/one/parts/weights is damaged"):
        fetch_artifact(uri, tmp_path / "damaged", storage)
    bucket.put("models/one/manifest.json", b"{}")
    with pytest.raises(ArtifactError, match=r"models/one/manifest\.json is damaged"):
        fetch_artifact(uri, tmp_path / "damaged", storage)
    assert not (tmp_path / "damaged").exists()
    delete_folder(uri, storage)
    assert bucket.keys == ["models/one-more"]
    with pytest.raises(InputError, match=r"models/one/manifest\.json does not exist"):
        fetch_artifact(uri, tmp_path / "none", storage)

"""The tasks that share an extraction, as Kubeflow calls them, with artifacts that lie in a real S3 store."""

import json
import re
from pathlib import Path

import pytest
from kfp.dsl import Artifact, Dataset

from components.services.storage.artifacts import send_artifact
from components.services.storage.s3 import Storage
from dagnn_core.artifacts import read_artifact
from dagnn_core.config.dataset import DatasetConfig
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.config.section import section_json
from pipeline import steps
from tests.fixtures.s3 import Bucket

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("same_logging")]
NUM_TASKS = 2


def artifact(folder: Path, uri: str, cls: type[Artifact] = Artifact) -> Artifact:
    """As Kubeflow hands it to a task: stored at a URI, and a folder of the pod."""
    made = cls(uri=uri)
    made.custom_path = str(folder)
    return made


def test_the_tasks_of_a_run(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.endpoint)
    params = section_json(FeaturesConfig(image="classic", min_word_count=1, shards=NUM_TASKS))
    (tmp_path / "raw").write_text(json.dumps({"num_scenes": 150, "width": 96, "height": 96}))
    data = artifact(tmp_path / "dataset", f"{bucket.uri}/run-7/dataset_out", Dataset)
    raw = artifact(tmp_path / "raw", f"{bucket.uri}/run-7/raw_out")
    demo = section_json(DatasetConfig(min_label_count=2))
    uri, digest = steps.dataset(params=demo, work=str(tmp_path / "work"), dataset_out=data, raw=raw)
    assert (uri, digest) == (data.uri, read_artifact(tmp_path / "dataset", "dataset").content_digest)
    send_artifact(tmp_path / "dataset", uri, Storage())  # the launcher does it

    def extract(name: str, **source: object) -> str:
        out = artifact(tmp_path / name, f"{bucket.uri}/run-7/features_out")
        steps.extract_features(**source, params=params, cache=str(tmp_path / f"cache-{name}"), features_out=out)
        return read_artifact(tmp_path / name, "features", verify=True).content_digest

    def shard(index: int, dataset_uri: str = uri, dataset_digest: str = digest) -> Artifact:
        out = artifact(tmp_path / f"part-{index}", f"{bucket.uri}/run-7/{index}/shard_out")
        steps.extract_shard(
            dataset_uri=dataset_uri, dataset_digest=dataset_digest, params=params, index=str(index), shard_out=out
        )
        return out

    alone = extract("alone", dataset=data)
    parts = [shard(index) for index in range(NUM_TASKS)]
    assert extract("joined", dataset_uri=uri, dataset_digest=digest, shards=parts) == alone
    capsys.readouterr()

    bucket.client.delete_object(Bucket=bucket.name, Key="run-7/dataset_out/data-00000.parquet")
    for failing, status, message in (
        ((uri, digest), 3, "BackendError: s3://.*/data-00000.parquet is missing, expected"),
        ((uri, "0" * 64), 3, "BackendError: s3://.*/manifest.json is that of the dataset"),
        ((f"{bucket.uri}/none", digest), 3, "BackendError: s3://.*/none/manifest.json does not exist"),
        (("gs://runs/dataset_out", digest), 2, "InputError: the data set of this run is at 'gs://runs/dataset_out'"),
    ):
        with pytest.raises(SystemExit) as ended:
            shard(0, *failing)
        assert ended.value.code == status
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith("[extract_shard] ") and re.search(message, line)

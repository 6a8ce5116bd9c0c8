"""What several folders of tests share: tiny data sets in the official layouts, and a real S3 server."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
from PIL import Image


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, 100, 200)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Parts train2017 (pictures 1 to 20) and val2017 (21 to 25); odd ones show a cat, every third a dog in a crowd."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    for part, numbers in {"train2017": range(1, 21), "val2017": range(21, 26)}.items():
        (root / part).mkdir()
        for number in numbers:
            (root / part / f"{number:012d}.jpg").write_bytes(picture(number))
        write_coco_part(root / "annotations", part, numbers)
    return root


def write_coco_part(folder: Path, part: str, numbers: range) -> None:
    images = [{"license": 1, "file_name": f"{number:012d}.jpg", "id": number} for number in numbers]
    shown = [(number, 17) for number in numbers if number % 2]  # 17 cat, 18 dog, 3 car: on all
    shown += [(number, 18) for number in numbers if number % 3 == 0] + [(number, 3) for number in numbers] * 2
    annotations = [
        {"segmentation": [[1.5, 2.0] * 9], "iscrowd": int(kind == 18), "image_id": number, "category_id": kind, "id": i}
        for i, (number, kind) in enumerate(shown)
    ]
    categories = [
        {"supercategory": "vehicle", "id": 3, "name": "car"},
        {"supercategory": "animal", "id": 17, "name": "cat"},
        {"supercategory": "animal", "id": 18, "name": "dog"},
    ]
    info = {"year": 2017, "url": "http://cocodataset.org"}
    captions = [
        {"image_id": number, "id": 10 * number + k, "caption": f"Caption {k}\n of {number}. "}
        for k in range(2)
        for number in numbers
    ]
    instances = {"info": info, "images": images, "licenses": [{}], "annotations": annotations, "categories": categories}
    (folder / f"instances_{part}.json").write_text(json.dumps(instances))
    (folder / f"captions_{part}.json").write_text(
        json.dumps({"info": info, "images": images, "annotations": captions}, indent=1)
    )


@pytest.fixture
def mirflickr25k(tmp_path: Path) -> Path:
    """Pictures 1 to 24; 23 has no label, 24 rare tags only; `sky` is relevant for every fourth picture."""
    root = tmp_path / "mirflickr25k"
    tags, annotations = root / "mirflickr" / "meta" / "tags", root / "mirflickr25k_annotations_v080"
    tags.mkdir(parents=True)
    annotations.mkdir()
    (root / "mirflickr" / "meta" / "tags_raw").mkdir()
    for number in range(1, 25):
        (root / "mirflickr" / f"im{number}.jpg").write_bytes(picture(number))
        words = ["Canon", "été"] if number % 2 else ["nikon"]
        (tags / f"tags{number}.txt").write_text(
            "\r\n".join([*(words if number < 24 else []), f"rare{number}", ""]), encoding="utf-8"
        )
    labels = {
        "sky": range(1, 23),
        "animals": range(2, 23, 2),
        "sky_r1": range(4, 23, 4),
        "animals_r1": [*range(2, 23, 4), 1],
    }
    for name, numbers in labels.items():
        (annotations / f"{name}.txt").write_text("".join(f"{number}\r\n" for number in [*numbers, 24]))
    (annotations / "README.txt").write_text("Annotations of MIRFLICKR-25k\n")
    return root


NUSWIDE_CONCEPTS = {"sky": 1, "person": 2, "animal": 3, "zebra": 13}
"""Concept -> the pictures with a number divisible by this have it."""


@pytest.fixture
def nuswide(tmp_path: Path) -> Path:
    """Pictures 1 to 30: the odd ones are official training pictures, and number 6 has no tags."""
    root = tmp_path / "nuswide"
    numbers = range(1, 31)
    paths = {number: f"actor\\{number:04d}_{1000 + number}.jpg" for number in numbers}
    parts = {"Train": [n for n in numbers if n % 2], "Test": [n for n in numbers if not n % 2]}
    for folder in (
        *("ImageList", "Groundtruth/AllLabels", "Groundtruth/TrainTestLabels", "NUS_WID_Tags"),
        *("Low_Level_Features", "Flickr/actor"),
    ):
        (root / folder).mkdir(parents=True)
    for number in numbers:
        (root / "Flickr" / paths[number].replace("\\", "/")).write_bytes(picture(number))

    def write(folder, name, rows):
        (root / folder / name).write_text("".join(f"{row}\n" for row in rows))

    def tags(number):
        return [] if number == 6 else ["blue", "man"] if number % 2 else ["man"]

    def indicators(number):
        return "\t".join(str(int(tag in tags(number))) for tag in ("blue", "nature", "man")) + "\t"

    write("NUS_WID_Tags", "TagList1k.txt", ["blue", "nature", "man"])
    write("NUS_WID_Tags", "All_Tags.txt", [f"{1000 + n}      {' '.join(tags(n))} uncommon" for n in numbers if n != 6])
    for part, chosen in {"": list(numbers), **parts}.items():
        write("ImageList", f"{part}Imagelist.txt", [paths[n] for n in chosen])
        write("NUS_WID_Tags", f"{part}_Tags1k.dat" if part else "AllTags1k.txt", map(indicators, chosen))
        for concept, divisor in NUSWIDE_CONCEPTS.items():
            folder, name = ("TrainTestLabels", f"_{part}") if part else ("AllLabels", "")
            write(f"Groundtruth/{folder}", f"Labels_{concept}{name}.txt", [int(n % divisor == 0) for n in chosen])
        if part:
            write("Low_Level_Features", f"{part}_Normalized_CH.dat", [f"{n} {n / 2} " for n in chosen])
            write("Low_Level_Features", f"{part}_Normalized_WT.dat", [f"{-n} " for n in chosen])
    return root


@pytest.fixture
def matrices(tmp_path: Path) -> Path:
    """The DAGNN authors' files: 20 training and 6 test items with three labels."""
    root = tmp_path / "matrices"
    root.mkdir()
    rng = np.random.default_rng(0)
    for split, count in {"train": 20, "test": 6}.items():
        labels = np.stack([np.arange(count) % 2, np.arange(count) % 3 == 0, np.ones(count)], axis=1)
        values = {"img": rng.normal(size=(count, 5)), "txt": rng.integers(0, 2, (count, 4)), "lab": labels}
        values["txt"][:, 0] = 1
        for kind, value in values.items():
            scipy.io.savemat(root / f"{split}_{kind}.mat", {f"{split}_{kind}": value.astype(np.float64)})
    return root


@pytest.fixture
def huggingface(tmp_path: Path) -> Path:
    """Two shards of train (12 rows each) and one of test (6), labels by number, a row group of five pictures."""
    root = tmp_path / "huggingface"
    (root / "data").mkdir(parents=True)
    names = {"train-00000-of-00002": range(12), "train-00001-of-00002": range(12, 24), "test-00000-of-00001": range(6)}
    for name, numbers in names.items():
        write_parquet(root / "data" / f"{name}.parquet", numbers)
    return root


def write_parquet(path: Path, numbers: range, **changes: object) -> None:
    columns = {
        "image": [{"bytes": picture(number), "path": f"{number}.jpg"} for number in numbers],
        "text": [[f"one {number}", f"two {number}"] for number in numbers],
        "labels": [[number % 2, 2] for number in numbers],
    }
    feature = {"feature": {"names": ["cat", "dog", "car"], "_type": "ClassLabel"}, "_type": "Sequence"}
    table = pa.table(columns | changes)
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": {"labels": feature}}})})
    pq.write_table(table, path, row_group_size=5)


SECRET = "secret-that-nobody-shall-see"
# it ends with its standard input, so that it cannot outlive the tests
_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()
server.stop()
"""


class Bucket(NamedTuple):
    """An empty bucket of the server."""

    endpoint: str
    uri: str
    client: Any
    """A boto3 client, to look at what is there."""

    @property
    def name(self) -> str:
        return self.uri.removeprefix("s3://")

    @property
    def keys(self) -> list[str]:
        return [entry["Key"] for entry in self.client.list_objects_v2(Bucket=self.name).get("Contents", [])]

    def put(self, key: str, content: bytes) -> str:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)
        return f"{self.uri}/{key}"

    def get(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """URL of the server."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    with process:
        yield process.stdout.readline().strip()
        process.stdin.close()
        process.wait(timeout=30)


@pytest.fixture(scope="session")
def s3_client(s3_server: str) -> Any:
    import boto3

    keys = {"aws_access_key_id": "test", "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    return boto3.session.Session().client("s3", endpoint_url=s3_server, **keys)


AWS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_CONFIG_FILE": f"{os.devnull}/none",
    "AWS_SHARED_CREDENTIALS_FILE": f"{os.devnull}/none",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""Credentials by the environment, and nothing of the user's."""


def make_bucket(endpoint: str, client: Any) -> Bucket:
    name = f"test-{uuid4().hex}"
    client.create_bucket(Bucket=name)
    return Bucket(endpoint, f"s3://{name}", client)


@pytest.fixture
def bucket(s3_server: str, s3_client: Any, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A new bucket, and the environment to reach it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    return make_bucket(s3_server, s3_client)

"""A real S3 server, in a process of its own, for the tests of storage, versioned data and whole chains."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

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

"""Starts the server of the image `mlflow`: with passwords, and files in a bucket that it makes where it is missing.

All settings are MLflow's and boto3's own variables: MLFLOW_BACKEND_STORE_URI (users and passwords go there, too),
MLFLOW_ARTIFACTS_DESTINATION (s3://BUCKET/FOLDER), MLFLOW_AUTH_ADMIN_PASSWORD, MLFLOW_FLASK_SERVER_SECRET_KEY,
MLFLOW_SERVER_ALLOWED_HOSTS, MLFLOW_S3_ENDPOINT_URL, AWS_...; arguments are handed on to `mlflow server`.
"""

import configparser
import os
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError

environment = os.environ  # noqa: TID251  # the entry point of an image


def make_bucket(name: str) -> None:
    """Make the bucket unless it is there."""
    s3 = boto3.client("s3", endpoint_url=environment.get("MLFLOW_S3_ENDPOINT_URL"))
    try:
        s3.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        s3.create_bucket(Bucket=name)


def write_auth_config() -> Path:
    """MLflow takes the address of its users' database from a file alone; the admin comes from the environment."""
    config = configparser.ConfigParser(interpolation=None)
    config["mlflow"] = {
        "default_permission": "READ",
        "database_uri": environment["MLFLOW_BACKEND_STORE_URI"].replace("%", "%%"),
        "admin_username": "admin",
        "auth_cache_ttl_seconds": "60",  # checking a password takes a tenth of a second, and each call brings one
    }
    path = Path(tempfile.gettempdir(), "basic_auth.ini")
    path.touch(mode=0o600)
    with path.open("w", encoding="utf-8") as file:
        config.write(file)
    return path


def main() -> None:
    """Prepare, and become the server."""
    needed = ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION", "MLFLOW_AUTH_ADMIN_PASSWORD")
    for name in (*needed, "MLFLOW_FLASK_SERVER_SECRET_KEY", "MLFLOW_SERVER_ALLOWED_HOSTS"):
        if not environment.get(name):
            sys.exit(f"error: {name} is not set; infra/compose.yaml shows all that the server needs")
    bucket = urlsplit(environment["MLFLOW_ARTIFACTS_DESTINATION"]).netloc
    try:
        make_bucket(bucket)
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"error: bucket {bucket} cannot be used: {error}; correct MLFLOW_S3_ENDPOINT_URL or AWS_...")
    # what runs judges of language models and the like: seven processes of 250 MB each, for nothing that we use
    environment.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    environment["MLFLOW_AUTH_CONFIG_PATH"] = str(write_auth_config())
    command = ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000", "--app-name", "basic-auth"]  # noqa: S104
    os.execvp(command[0], [*command, *sys.argv[1:]])  # noqa: S606


if __name__ == "__main__":
    main()

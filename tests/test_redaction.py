"""Secrets in text, in all the forms that addresses, settings and values have."""

import json
from collections.abc import Iterator

import pytest

from dagnn_core.redaction import (
    forget,
    hide,
    is_secret_name,
    redact,
    redact_all,
    secrets_of_address,
    secrets_of_settings,
    without_credentials,
)


@pytest.fixture(autouse=True)
def _nothing_hidden() -> Iterator[None]:
    forget()
    yield
    forget()


ADDRESSES = [
    # user and password
    ("https://me:secret@host/path", "https://host/path"),
    ("https://token@host", "https://host"),
    ("git clone https://ghp_0123@host/x.git", "git clone https://host/x.git"),
    ("git+https://oauth2:glpat@host/x.git", "git+https://host/x.git"),
    ("http://me:pw@127.0.0.1:5000", "http://127.0.0.1:5000"),
    ("http://me:pw@[::1]:5000/x", "http://[::1]:5000/x"),
    ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
    ("postgresql+psycopg2://me:p@ss:word@host:5432/db", "postgresql+psycopg2://host:5432/db"),
    ("postgresql://me:1234/abc@host:5432/db", "postgresql://host:5432/db"),
    ("two: https://a:b@one and ssh://git@two/x", "two: https://one and ssh://two/x"),
    ("https://one/x,https://a:b@two/x", "https://one/x,https://two/x"),
    # a password that should have been quoted
    ("https://me:pa/ss@host/path", "https://host/path"),
    ("https://me:p@ss/w@rd@host/path", "https://host/path"),
    ("https://me:p?ss@host", "https://host"),
    ("https://me:p#ss@host:80/", "https://host:80/"),
    ("mysql://me:/slash@host/db", "mysql://host/db"),
    ("http://me:99999/x@host/", "http://host/"),
    ("s3://AKIA:se/cr+et@bucket/prefix", "s3://bucket/prefix"),
    ("s3://AKIA:secret@bucket", "s3://bucket"),
    # without a host
    ("databricks://me:password", "databricks://me:***"),
    ("databricks://me:pa/ss@word", "databricks://me:***"),
    ("s3://key:secret/prefix", "s3://key:***/prefix"),
    ("http://host:abc/path", "http://host:***/path"),
    # in the query
    ("https://host/x?password=a/b&mail=a@b", "https://host/x?password=***&mail=a@b"),
    ("https://host/?a=b&token=abc#top", "https://host/?a=b&token=***#top"),
    ("http://h:5000/?private_token=abc", "http://h:5000/?private_token=***"),
    ("http://h/?Access_Token=abc&api-key=b&apikey=c", "http://h/?Access_Token=***&api-key=***&apikey=***"),
    ("postgresql://host/db?user=me&password=abc", "postgresql://host/db?user=me&password=***"),
    (
        "https://b.s3/k?X-Amz-Credential=A%2Fb&X-Amz-Date=2&X-Amz-Signature=0f&X-Amz-Security-Token=t",
        "https://b.s3/k?X-Amz-Credential=***&X-Amz-Date=2&X-Amz-Signature=***&X-Amz-Security-Token=***",
    ),
    ("https://a.blob/x?sv=2&sig=a%3D&se=1", "https://a.blob/x?sv=2&sig=***&se=1"),
    ("https://h/x#access_token=abc", "https://h/x#access_token=***"),
    ("https://me:a@host/?token=b", "https://host/?token=***"),
    # without a scheme
    ("me:secret@host:path/x.git", "host:path/x.git"),
    ("me:secret@host/path", "host/path"),
    ("https:/me:sec/ret@host/x.zip", "https:/host/x.zip"),
    # settings and headers
    ("{'url': 's3://b', 'secret_access_key': 'ab c'}", "{'url': 's3://b', 'secret_access_key': '***'}"),
    ('{"password": "a\\"bc", "user": "me"}', '{"password": "***", "user": "me"}'),
    ('{"said": "{\\"password\\": \\"abc\\"}"}', '{"said": "{\\"password\\": \\"***\\"}"}'),
    (
        r'{"a": "{\"b\": \"{\\\"password\\\": \\\"abc\\\"}\"}"}',
        r'{"a": "{\"b\": \"{\\\"password\\\": \\\"***\\\"}\"}"}',
    ),
    ('{"said": "url \\"https://h/?token=abc\\""}', '{"said": "url \\"https://h/?token=***\\""}'),
    ("password = 'it is long', x = 1", "password = '***', x = 1"),
    ("MLFLOW_TRACKING_PASSWORD=abc dagnn", "MLFLOW_TRACKING_PASSWORD=*** dagnn"),
    ("access_token = abc", "access_token = ***"),
    ("{'Authorization': 'Bearer abc.def'}", "{'Authorization': 'Bearer ***'}"),
    ("Authorization: Basic bWU6cHc=", "Authorization: Basic ***"),
]

ORDINARY = [
    "https://host/path?mail=a@b",
    '{"url":"https://host","mail":"a@b"}',
    "git@host:path",  # the name of an account, and no password
    "data/raw@2",
    "http://127.0.0.1:5000/#/models/x@champion",
    "cannot reach http://127.0.0.1:5000: refused; https://host:80, (http://h:1), http://h:2. http://h:3",
    "models:/dagnn@champion, s3://bucket/key@2, file:///tmp/a@b, runs:/0a1b/model",
    "registry.example.org:5000/dagnn:0.1@sha256:0123456789abcdef",
    "dagnn:0.1@sha256:0123456789abcdef",
    "2026-11-28 20:15:01 by me@laptop: promoted",
    "features.text.max_tokens: 77; num_tokens=5, tokens = 3",
    "secret mlflow in namespace dagnn does not exist",
    "set MLFLOW_TRACKING_PASSWORD of an account that may do it",
    "a sentence: with = signs, tokens and no secrets @ all",
    "http://[::1]:5000/x and http://localhost:5000/x?limit=3",
]


@pytest.mark.parametrize(("text", "shown"), ADDRESSES)
def test_no_credentials_are_shown(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown
    assert redact(f"cannot open {text} now") == f"cannot open {shown} now"
    assert redact(repr(text)).strip("'\"") == shown or "'" in text or "\\" in text


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays(text: str) -> None:
    assert redact(text) == text


def test_values_of_json_are_redacted_and_keys_stay() -> None:
    assert redact_all({"a": ["https://me:pw@host", 1, None, ("x",)], "password": 2.5}) == {
        "a": ["https://host", 1, None, ["x"]],
        "password": 2.5,
    }


def test_known_values_are_hidden_in_every_form() -> None:
    hide(['aB3/+" ü$9xyzw', "hunter2", "first-line-of-a-key\nsecond-line-of-a-key"])
    text = 'aB3/+" ü$9xyzw'
    for form in (text, repr(text), json.dumps(text), "aB3%2F%2B%22%20%C3%BC%249xyzw", "aB3%2F%2B%22+%C3%BC%249xyzw"):
        assert "9xyzw" not in redact(f"x{form}y"), form
    assert redact("hunter2, 'hunter2' but hunter22") == "***, '***' but hunter22"
    assert redact("second-line-of-a-key") == "***"
    assert json.loads(redact(json.dumps({"key": text}))) == {"key": "***"}


def test_what_is_still_used_loses_no_known_values() -> None:
    hide(["mirflickr"])
    text = '{"source":"data/mirflickr","url":"https://me:pw@host/"}'
    assert without_credentials(text) == '{"source":"data/mirflickr","url":"https://host/"}'


def test_trivial_values_are_no_secrets() -> None:
    hide(["", "1", "true", "minio", "minioadmin", "password", "testing", "20267", "admin"])
    text = "minio at 1: true, minioadmin, the password, testing 20267 in admin"
    assert redact(text) == text


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "HF_TOKEN",
        "GITHUB_TOKEN",
        "PGPASSWORD",
        "DB_PASS",
        "client_secret",
        "OPENAI_API_KEY",
        "DAGNN_KFP_COOKIES",
        "DAGNN_WEBHOOK_URL",
        "AZURE_STORAGE_CONNECTION_STRING",
        "MLFLOW_FLASK_SERVER_SECRET_KEY",
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "PWD",
        "OLDPWD",
        "AWS_ACCESS_KEY_ID",
        "KF_PIPELINES_SA_TOKEN_PATH",
        "TOKENIZERS_PARALLELISM",
        "MLFLOW_TRACKING_URI",
        "GPG_KEY",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "SSH_ASKPASS",
        "GOOGLE_APPLICATION_CREDENTIALS",
    ],
)
def test_names_of_no_secrets(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("address", "secrets"),
    [
        ("postgresql://me:p%40ss@host/db", {"p%40ss", "p@ss"}),
        ("http://me:one@two/three@host", {"one@two/three", "one", "two", "three"}),
        ("https://ghp_0123456789@host", {"ghp_0123456789"}),
        ("ssh://git@host/x", set()),
        ("https://host/?password=a%2Fb&x=1", {"a%2Fb", "a/b"}),
        ("databricks://me:password9", {"password9"}),
        ("me:password9@host:x.git", {"password9"}),
        ("http://127.0.0.1:5000", set()),
    ],
)
def test_secrets_of_an_address(address: str, secrets: set[str]) -> None:
    assert set(secrets_of_address(address)) == secrets
    assert set(secrets_of_settings({"MLFLOW_TRACKING_URI": address, "N": 3})) == secrets


def test_the_time_is_linear() -> None:
    for piece in ("a", "://", "a:b@", "https://a:", "?token=", "password=", "-", "'", "a://b@c/"):
        redact(piece * (200_000 // len(piece)))

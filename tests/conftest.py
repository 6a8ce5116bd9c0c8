"""Fixtures that several folders of tests share."""

pytest_plugins = (
    "tests.fixtures.layouts",
    "tests.fixtures.mlflow_server",
    "tests.fixtures.pretrained",
    "tests.fixtures.s3",
    "tests.fixtures.webhook",
)

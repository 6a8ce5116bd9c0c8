"""Fixtures that several folders of tests share."""

import signal

pytest_plugins = (
    "tests.fixtures.layouts",
    "tests.fixtures.mlflow_server",
    "tests.fixtures.pretrained",
    "tests.fixtures.s3",
    "tests.fixtures.webhook",
)

# A shell starts what runs in its background with SIGINT ignored, and processes inherit that. Those that the tests start
# and interrupt shall not: a signal that has a handler here has its default there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

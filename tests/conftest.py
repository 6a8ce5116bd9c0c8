"""Fixtures that several folders of tests share."""

import inspect
import signal
from collections.abc import Iterator
from functools import partial

import pytest

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


@pytest.fixture(scope="session", autouse=True)
def stacks_without_source() -> Iterator[None]:
    """Spare seconds of each compilation: kfp asks for the whole stack, of which it reads a name, for each setting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect, "stack", partial(inspect.stack, context=0))
        yield

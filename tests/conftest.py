"""Fixtures that several folders of tests share."""

import gc
import inspect
import signal
import sys
from collections.abc import Generator, Iterator
from itertools import islice
from traceback import walk_stack

import pytest
from hypothesis import settings

pytest_plugins = (
    "tests.fixtures.certificates",
    "tests.fixtures.cpu",
    "tests.fixtures.layouts",
    "tests.fixtures.mlflow_server",
    "tests.fixtures.pretrained",
    "tests.fixtures.s3",
    "tests.fixtures.scenes",
    "tests.fixtures.webhook",
)

# A shell starts what runs in its background with SIGINT ignored, and processes inherit that. Those that the tests start
# and interrupt shall not: a signal that has a handler here has its default there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare seconds of each process: what is imported and collected stays, and garbage is not looked for in it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def short_stacks() -> Iterator[None]:
    """Spare seconds of each compilation: for each setting of a task kfp takes the whole stack, and reads one name."""

    def nearest(context: int = 1) -> list[inspect.FrameInfo]:
        frames = islice(walk_stack(sys._getframe(1)), 10)
        return [inspect.FrameInfo(frame, *inspect.getframeinfo(frame, context=0)) for frame, _ in frames]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect, "stack", nearest)
        yield

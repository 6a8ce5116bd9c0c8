"""The program of the nodes, with epochs that take long and checkpoints that come soon."""

import functools
import runpy
import time

from components.steps import train

_validate = train.train.__globals__["_validate"]


def _slowly(*arguments: object) -> object:
    time.sleep(0.5)
    return _validate(*arguments)


if __name__ == "__main__":
    train.train.__globals__["_validate"] = _slowly
    train.train.__kwdefaults__["checkpoint_seconds"] = 0.0
    train.mirrored = functools.partial(train.mirrored, seconds=0.05)  # type: ignore[attr-defined]
    runpy.run_module("pipeline.trainer.node", run_name="__main__")

"""The device that the configuration asks for."""

import pytest
import torch

from dagnn_core.devices import choose_device
from dagnn_core.errors import InputError


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert choose_device("auto", key="features.device").type == kind
        assert choose_device("cpu", key="features.device").type == "cpu"


def test_a_gpu_that_is_not_there_is_refused_with_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = r"features\.device is cuda, but this machine has no usable GPU; set features\.device to auto or cpu"
    with pytest.raises(InputError, match=message):
        choose_device("cuda", key="features.device")

"""The device that the configuration asks for."""

import logging
from pathlib import Path

import psutil
import pytest
import torch

from dagnn_core import devices
from dagnn_core.devices import choose_device, choose_precision, free_memory
from dagnn_core.errors import InputError

CPU = torch.device("cpu")


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


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("3000000\n", 3_000_000 - 1_200_000 + 200_000), ("max\n", None), ("1000000\n", 0), (None, None)],
)
def test_free_memory_is_within_the_limit_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None, expected: int | None
) -> None:
    monkeypatch.setattr(devices, "CONTROL_GROUP", tmp_path)
    if limit:
        (tmp_path / "memory.max").write_text(limit)
        (tmp_path / "memory.current").write_text("1200000\n")
        (tmp_path / "memory.stat").write_text("anon 900000\ninactive_file 200000\n")
    available = psutil.virtual_memory().available
    if expected is None:
        assert free_memory(CPU) == pytest.approx(available, rel=0.2)
    else:
        assert free_memory(CPU) == expected


@pytest.mark.parametrize(
    ("wanted", "half", "chosen", "warns"),
    [
        ("auto", 0.5, "bf16", False),
        ("auto", 0.9, "float32", False),
        ("auto", 3.1, "float32", False),
        ("bf16", 0.5, "bf16", False),
        ("bf16", 3.1, "bf16", True),
        ("float32", 0.1, "float32", False),
    ],
)
def test_precision_is_chosen_by_measurement(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    wanted: str,
    half: float,
    chosen: str,
    warns: bool,
) -> None:
    seconds = {torch.float32: 1.0, torch.bfloat16: half}
    monkeypatch.setattr(devices, "_seconds_of_product", lambda dtype, device: seconds[dtype])
    with caplog.at_level(logging.INFO):
        assert choose_precision(wanted, CPU, key="train.precision") == chosen
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    expected = (
        "train.precision is bf16, in which this device takes 3.1 times as long for a matrix product as in float32: set "
        "train.precision to auto or float32"
    )
    assert warnings == ([expected] if warns else [])


def test_products_are_measured_in_the_arithmetic_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "MEASURED_SIZE", 128)
    single, double = (devices._seconds_of_product(dtype, CPU) for dtype in (torch.float32, torch.int64))
    assert 0 < single < double, "integers have no fast product"

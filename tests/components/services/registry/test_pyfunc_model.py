"""An image as clients write it into a request."""

import base64
import textwrap
import warnings
from types import ModuleType
from urllib.parse import quote

import pytest

from dagnn_core.errors import InputError

ENCODED = bytes(range(256)) * 2 + b"\xff\xef"  # has all letters of the alphabet, and padding
PLAIN = base64.b64encode(ENCODED).decode()
SAFE = base64.urlsafe_b64encode(ENCODED).decode()

SPELLINGS = {
    "plain": PLAIN,
    "line breaks": base64.encodebytes(ENCODED).decode(),
    "line breaks of Windows": "\r\n".join(textwrap.wrap(PLAIN, 64)) + "\r\n",
    "url-safe": SAFE,
    "url-safe without padding": SAFE.rstrip("="),
    "without padding": PLAIN.rstrip("="),
    "data URL": f"data:image/png;base64,{PLAIN}",
    "data URL, url-safe": f"data:image/png;base64,{SAFE}",
    "data URL with parameters": f" DATA:image/png;charset=utf-8;BASE64,{base64.encodebytes(ENCODED).decode()}",
    "data URL without a type": f"data:;base64,{PLAIN}",
    "data URL, escaped": f"data:image/png;base64,{quote(PLAIN, safe='')}",
}


@pytest.fixture(scope="module")
def module() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's, of a type hint that is Any
        from components.services.registry import pyfunc_model
    return pyfunc_model


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS)
def test_base64_is_read_as_clients_write_it(module: ModuleType, text: str) -> None:
    assert set("+/=") <= set(PLAIN) and set("-_=") <= set(SAFE)
    assert module._image(module.Cell(1, text)) == ENCODED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sea.jpg", "row 7: image is not base64"),
        ("abcde", "row 7: image is not base64"),
        ("é" + PLAIN, "row 7: image is not base64"),
        ("ab==cd", "row 7: image is not base64"),
        ("file:///etc/passwd", "row 7: image is not base64"),
        ("http://127.0.0.1/a", "row 7: image is not base64"),
        ("data:", "row 7: image is a data: URL that is not base64, expected data:image"),
        ("data:image/png,%89PNG", "row 7: image is a data: URL that is not base64"),
        ("data:image/png;base64,%zz", "row 7: image is not base64"),
    ],
)
def test_what_is_no_base64_is_named_with_its_row(module: ModuleType, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        module._image(module.Cell(7, text))

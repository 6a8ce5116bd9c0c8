import gzip
import io
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagnn_core.data.formats import json_stream
from dagnn_core.data.formats.json_stream import read_members
from dagnn_core.errors import InputError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda nested: st.lists(nested, max_size=3) | st.dictionaries(st.text(), nested, max_size=3),
    max_leaves=8,
)


class Trickle(io.StringIO):
    """A stream that hands out pieces of the sizes asked for by the test, never more than one at a time."""

    def __init__(self, text, sizes):
        super().__init__(text)
        self._sizes = iter(sizes)

    def read(self, _=-1):
        return super().read(next(self._sizes, 1))


def members(value):
    """What is expected of a top-level object."""
    for key, entry in value.items():
        yield from ((key, element) for element in entry) if isinstance(entry, list) else [(key, entry)]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.text(), values, max_size=4),
    st.lists(st.integers(1, 30), max_size=40),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
def test_any_object_is_read_whatever_the_pieces_are(value, sizes, indent, ascii_only):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only) + " \n"
    assert list(json_stream._Reader(Trickle(text, sizes)).members()) == list(members(value))


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(), values, min_size=1, max_size=4), st.data())
def test_no_truncated_object_passes(value, data):
    text = json.dumps(value)
    end = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(ValueError, match="at character"):
        list(json_stream._Reader(io.StringIO(text[:end])).members())


def test_files_plain_and_packed(tmp_path):
    text = '\ufeff{"a": [{"x": "é"}, 12], "b": -1.5e3, "c": []}'
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with gzip.open(tmp_path / "a.json.gz", "wt", encoding="utf-8") as stream:
        stream.write(text)
    for name in ("a.json", "a.json.gz"):
        assert list(read_members(tmp_path / name)) == [("a", {"x": "é"}), ("a", 12), ("b", -1500.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected '{' at character 0"),
        ("[1]", "expected '{' at character 0"),
        ('{"a": [1 2]}', "expected ',' at character 9"),
        ('{"a": [1, }', "Expecting value at character 10"),
        ('{"a" 1}', "expected ':' at character 5"),
        ("{1: 1}", "expected a key at character 2"),
        ('{"a": 1} x', "expected the end of the file at character 9"),
        ('{"a": "' + "x" * 500, "a value of more than 100 characters at character 6"),
        ("[" * 100_000, "expected '{'"),
    ],
)
def test_damaged_files_are_one_line_with_the_place(tmp_path, monkeypatch, text, message):
    monkeypatch.setattr(json_stream, "MAX_VALUE_CHARACTERS", 100)
    monkeypatch.setattr(json_stream, "CHUNK_CHARACTERS", 50)
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"a\.json is damaged or no JSON object") as caught:
        list(read_members(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_nested_too_deep_is_damaged(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [' + "[" * 200_000)
    with pytest.raises(InputError, match=r"a\.json is damaged"):
        list(read_members(tmp_path / "a.json"))


def test_damaged_packed_and_missing_files(tmp_path):
    with pytest.raises(InputError, match=r"b\.json does not exist, expected a JSON file"):
        list(read_members(tmp_path / "b.json"))
    path = tmp_path / "a.json.gz"
    path.write_bytes(b"hello")
    with pytest.raises(InputError, match=r"a\.json\.gz is damaged .*(?i:not a gzipped file)"):
        list(read_members(path))
    packed = gzip.compress(json.dumps({"a": list(range(1000))}).encode())
    for content in (packed[:-20], packed[:40] + b"\0\0\0\0" + packed[44:]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.json\.gz is damaged"):
            list(read_members(path))
    (tmp_path / "c.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(InputError, match=r"c\.json is damaged .*utf-8"):
        list(read_members(tmp_path / "c.json"))


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "a.json"
    record = json.dumps({"id": 1, "segmentation": [0.125] * 500})
    path.write_text('{"annotations": [' + ",".join([record] * 1000) + "]}")
    tracemalloc.start()
    assert sum(value["id"] for _, value in read_members(path)) == 1000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 3 << 20
    assert peak < 1.5 * (1 << 20)

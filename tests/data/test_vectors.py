import numpy as np
import pytest

from dagnn_core.data.vectors import read_vectors
from dagnn_core.errors import InputError

GOOD = np.arange(6, dtype=np.float16).reshape(3, 2)


def save(tmp_path, **arrays):
    np.savez(tmp_path / "v.npz", **arrays)
    return tmp_path / "v.npz"


@pytest.mark.parametrize("ids", [np.array(["7", "8", "9"]), np.array([7, 8, 9])])
def test_vectors_are_found_by_id_in_any_order(tmp_path, ids):
    vectors = read_vectors(save(tmp_path, ids=ids, features=GOOD))
    found = vectors.of(["9", "7"])
    np.testing.assert_array_equal(found, GOOD[[2, 0]])
    assert found.dtype == np.float16
    assert vectors.not_finite == frozenset()


def test_no_id_gives_zeros(tmp_path):
    vectors = read_vectors(save(tmp_path, ids=["a", "b", "c"], features=GOOD + np.float16(1)))
    np.testing.assert_array_equal(vectors.of([None, "b", None]), [[0, 0], [3, 4], [0, 0]])
    assert vectors.of([None]).dtype == np.float16
    assert vectors.of([]).shape == (0, 2)


def test_float64_becomes_float32_and_what_is_not_finite_is_known(tmp_path):
    features = np.array([[1.0, 2.0], [np.nan, 0.0], [1e300, 0.0]])
    vectors = read_vectors(save(tmp_path, ids=["a", "b", "c"], features=features))
    assert vectors.features.dtype == np.float32
    assert vectors.not_finite == {"b", "c"}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": ["a"]}, r"holds the arrays ids; expected an \.npz file with `ids` \[N\] and `features`"),
        ({"ids": ["a", "b"], "features": GOOD}, r"`features` has the shape \[3, 2\], expected \[2, dim\]"),
        ({"ids": ["a", "b", "c"], "features": GOOD[:, 0]}, r"shape \[3\], expected \[3, dim\]"),
        ({"ids": ["a", "b", "c"], "features": GOOD[:, :0]}, r"shape \[3, 0\], expected \[3, dim\]"),
        ({"ids": ["a", "b", "c"], "features": GOOD.astype(int)}, "`features` is int64, expected floating-point"),
        ({"ids": [1.0, 2.0, 3.0], "features": GOOD}, r"`ids` is float64 \[3\], expected texts or whole numbers"),
        ({"ids": ["a", "b", "a"], "features": GOOD}, "the id 'a' is there twice"),
        ({"ids": np.array(["a", 1, None], object), "features": GOOD}, "cannot be read .*expected an .npz"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, arrays, message):
    with pytest.raises(InputError, match=rf"v\.npz.*{message}"):
        read_vectors(save(tmp_path, **arrays))


def test_files_of_another_kind_are_named(tmp_path):
    np.save(tmp_path / "v.npy", GOOD)
    with pytest.raises(InputError, match=r"v\.npy is not an \.npz file"):
        read_vectors(tmp_path / "v.npy")
    with pytest.raises(InputError, match=r"none\.npz does not exist, expected an \.npz file"):
        read_vectors(tmp_path / "none.npz")


def test_a_damaged_file_is_named(tmp_path):
    path = save(tmp_path, ids=["a", "b", "c"], features=GOOD)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"a\0\0\0")] = ord("x")
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"v\.npz cannot be read .*CRC"):
        read_vectors(path)

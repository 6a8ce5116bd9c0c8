import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dagnn_core.data.formats.matrix_file import read_matrix
from dagnn_core.errors import InputError


def write_hdf5(path, **matrices):
    """As MATLAB 7.3 does: columns first, behind a block of its own."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, matrix in matrices.items():
            file[name] = matrix.T
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


@pytest.mark.parametrize("suffix", ["mat", "v73.mat", "npy", "npz"])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    matrix=arrays.arrays(
        st.sampled_from([np.float64, np.float32, np.uint8, np.int32]),
        st.tuples(st.integers(2, 5), st.integers(1, 4)),
        elements=st.integers(0, 99),
    )
)
def test_a_matrix_comes_back(tmp_path, suffix, matrix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "mat":
        scipy.io.savemat(path, {"XAll": matrix, "n": 3.0, "who": "me"})
    elif suffix == "v73.mat":
        write_hdf5(path, XAll=matrix, n=np.ones((1, 1)))
    elif suffix == "npy":
        np.save(path, matrix)
    else:
        np.savez(path, XAll=matrix, ids=np.arange(len(matrix)))
    found = read_matrix(path)
    np.testing.assert_array_equal(found, matrix)
    assert found.dtype == matrix.dtype


def test_logical_and_sparse_matrices_of_matlab(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"a": scipy.sparse.csc_matrix(np.eye(3)), "b": np.eye(2, dtype=bool)})
    np.testing.assert_array_equal(read_matrix(path, "a"), np.eye(3))
    np.testing.assert_array_equal(read_matrix(path, "b"), np.eye(2))


@pytest.mark.parametrize("suffix", ["mat", "v73.mat", "npz"])
def test_one_of_several_is_named(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    write = {"mat": scipy.io.savemat, "v73.mat": lambda path, values: write_hdf5(path, **values)}
    write.get(suffix, lambda path, values: np.savez(path, **values))(path, {"a": np.eye(2), "b": np.eye(3)})
    assert len(read_matrix(path, "b")) == 3
    with pytest.raises(InputError, match=r"holds these matrices .*: a, b; expected one; name it as FILE#NAME"):
        read_matrix(path)
    with pytest.raises(InputError, match=r"a, b; expected one called 'c'"):
        read_matrix(path, "c")


def test_links_of_hdf5_to_other_files_are_left_alone(tmp_path):
    write_hdf5(tmp_path / "other.mat", secret=np.eye(3))
    path = tmp_path / "a.mat"
    write_hdf5(path)
    with h5py.File(path, "r+") as file:
        file["link"] = h5py.ExternalLink("other.mat", "/secret")
    with pytest.raises(InputError, match=r"a\.mat holds these matrices .*: none, but nothing"):
        read_matrix(path)


def test_what_is_no_matrix_of_numbers_is_refused(tmp_path):
    path = tmp_path / "cells.mat"
    scipy.io.savemat(path, {"c": np.array([["a", 1], ["b", 2]], dtype=object), "row": np.ones((1, 5))})
    with pytest.raises(InputError, match=r"none, but c \(cell \[2, 2\]\), row \(double \[1, 5\]\); expected one"):
        read_matrix(path)
    for name, array in {"vector": np.ones(3), "cube": np.ones((2, 2, 2)), "texts": np.array([["a"], ["b"]])}.items():
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(InputError, match=rf"{name}\.npy holds .* expected a matrix of numbers"):
            read_matrix(tmp_path / f"{name}.npy")
    np.save(tmp_path / "objects.npy", np.array([[{}], [{}]], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", a=np.array([[{}], [{}]], dtype=object))
    for name in ("objects.npy", "objects.npz"):
        with pytest.raises(InputError, match=r"objects\.np. cannot be read \(ValueError: .*(?i:object)"):
            read_matrix(tmp_path / name)
    with pytest.raises(InputError, match=r"a \.npy file holds one matrix without a name; remove #x"):
        read_matrix(tmp_path / "vector.npy", "x")


@pytest.mark.parametrize("suffix", ["mat", "v73.mat", "npy", "npz"])
def test_damaged_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    whole = tmp_path / f"whole.{suffix}"
    matrix = np.random.default_rng(0).normal(size=(50, 20))
    write = {
        "mat": lambda: scipy.io.savemat(whole, {"a": matrix}, do_compression=True),
        "v73.mat": lambda: write_hdf5(whole, a=matrix),
        "npy": lambda: np.save(whole, matrix),
        "npz": lambda: np.savez_compressed(whole, a=matrix),
    }
    write[suffix]()
    content = whole.read_bytes()
    for damaged in (b"", b"hello", content[:200], content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\..* cannot be read .*; copy it again"):
            read_matrix(path)


def test_missing_files_and_other_types_are_named(tmp_path):
    with pytest.raises(InputError, match=r"a\.mat does not exist, expected a matrix"):
        read_matrix(tmp_path / "a.mat")
    with pytest.raises(InputError, match=r"a\.csv is not a matrix that can be read, expected \.mat, \.npy, \.npz"):
        read_matrix(tmp_path / "a.csv")

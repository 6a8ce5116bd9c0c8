import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dagnn_core.data.formats import matrix_file as module
from dagnn_core.data.formats.matrix_file import read_matrix
from dagnn_core.errors import InputError
from tests.fixtures.layouts import write_matlab73


@pytest.fixture
def in_this_process(monkeypatch):
    """Read files of MATLAB 5 here: what is in them is the same, and another process takes its time."""
    monkeypatch.setattr(module, "_read_apart", module._read_matlab5)


@pytest.mark.parametrize("suffix", ["mat", "v73.mat", "npy", "npz"])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    matrix=arrays.arrays(
        st.sampled_from([np.float64, np.float32, np.uint8, np.int32]),
        st.tuples(st.integers(2, 5), st.integers(1, 4)),
        elements=st.integers(0, 99),
    )
)
def test_a_matrix_comes_back(in_this_process, tmp_path, suffix, matrix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "mat":
        scipy.io.savemat(path, {"XAll": matrix, "n": 3.0, "who": "me"})
    elif suffix == "v73.mat":
        write_matlab73(path, XAll=matrix, n=np.ones((1, 1)))
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
    found = read_matrix(path, "b")
    np.testing.assert_array_equal(found, np.eye(2))
    assert found.dtype == np.uint8, "as SciPy has it"


SPARSE = scipy.sparse.random_array((7, 4), density=0.3, rng=np.random.default_rng(0), format="csc")


def put_sparse(group, name, matrix, kind="double"):
    """As MATLAB 7.3 stores it: without values, where there are none."""
    node = group.create_group(name)
    node.attrs["MATLAB_class"] = np.bytes_(kind)
    node.attrs["MATLAB_sparse"] = np.uint64(matrix.shape[0])
    node["jc"] = matrix.indptr.astype(np.uint64)
    if matrix.nnz:
        node["data"] = matrix.data.astype(np.uint8) if kind == "logical" else matrix.data
        node["ir"] = matrix.indices.astype(np.uint64)
    return node


def put(group, name, matrix, kind="double"):
    group[name] = matrix.T
    group[name].attrs["MATLAB_class"] = np.bytes_(kind)


def put_cells(file, group, name, kind, *values):
    """An array of references, which MATLAB has for cells, and for each field of a struct array."""
    references = np.empty((1, len(values)), h5py.ref_dtype)
    for number, value in enumerate(values):
        file.require_group("#refs#")[f"{name}{number}"] = value.T
        references[0, number] = file[f"#refs#/{name}{number}"].ref
    group[name] = references.T
    if kind:
        group[name].attrs["MATLAB_class"] = np.bytes_(kind)


@pytest.fixture
def matlab73(tmp_path):
    path = tmp_path / "a.mat"
    write_matlab73(path)
    with h5py.File(path, "r+") as file:
        put_sparse(file, "T", SPARSE)
        put_sparse(file, "B", SPARSE != 0, "logical")
        put_sparse(file, "N", scipy.sparse.csc_array((3, 2)))
        put(file, "text", np.ones((4, 9), np.uint16), "char")
        file["void"] = np.array([0, 5], np.uint64)
        file["void"].attrs["MATLAB_empty"] = 1
        struct = file.create_group("S")
        struct.attrs["MATLAB_class"] = np.bytes_("struct")
        put(struct, "X", np.arange(6.0).reshape(3, 2))
        put_sparse(struct.create_group("deep"), "T", SPARSE)
        put_cells(file, file, "C", "cell", np.ones((2, 3)), np.zeros((3, 1)))
        many = file.create_group("M")
        put_cells(file, many, "X", "", np.ones((2, 1)), np.ones((5, 2)))
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("T", SPARSE.toarray()),
        ("B", SPARSE.toarray() != 0),
        ("N", np.zeros((3, 2))),
        ("S.X", np.arange(6.0).reshape(3, 2)),
        ("S.deep.T", SPARSE.toarray()),
        ("C{1}", np.ones((2, 3))),
        ("C{2}", np.zeros((3, 1))),
        ("M(2).X", np.ones((5, 2))),
    ],
)
def test_sparse_matrices_structs_and_cells_of_matlab_73(matlab73, name, expected):
    found = read_matrix(matlab73, name)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


def test_texts_and_empty_arrays_of_matlab_73_are_no_matrices(matlab73):
    listed = (
        r"holds these matrices .*: B, C\{1\}, C\{2\}, M\(1\)\.X, M\(2\)\.X, N, S\.X, S\.deep\.T, T; expected one; name"
    )
    with pytest.raises(InputError, match=listed):
        read_matrix(matlab73)


@pytest.mark.parametrize(
    ("part", "values"),
    [("ir", [9] * SPARSE.nnz), ("jc", [0, 2, 1, 3, SPARSE.nnz]), ("jc", [0, 0, 0, 0, 1]), ("data", [1.0])],
)
def test_a_damaged_sparse_matrix_is_refused(matlab73, part, values):
    with h5py.File(matlab73, "r+") as file:
        del file["T"][part]
        file["T"][part] = np.asarray(values, float if part == "data" else np.uint64)
    with pytest.raises(InputError, match=r"a\.mat: the sparse matrix /T is damaged; copy or save it again"):
        read_matrix(matlab73, "T")


def test_structs_and_cells_of_matlab_5(in_this_process, tmp_path):
    path = tmp_path / "a.mat"
    cells = np.empty((1, 3), object)
    cells[0, :] = [np.ones((2, 3)), "text", SPARSE]
    several = np.array([(np.ones((2, 1)),), (np.ones((5, 2)),)], dtype=[("X", object)])
    deep = {"X": np.arange(6.0).reshape(3, 2), "deep": {"T": SPARSE}, "name": "x"}
    scipy.io.savemat(path, {"S": deep, "C": cells, "M": several})
    expected = {
        "S.X": np.arange(6.0).reshape(3, 2),
        "S.deep.T": SPARSE.toarray(),
        "C{1}": np.ones((2, 3)),
        "C{3}": SPARSE.toarray(),
        "M(2).X": np.ones((5, 2)),
    }
    for name, matrix in expected.items():
        np.testing.assert_array_equal(read_matrix(path, name), matrix)
    with pytest.raises(InputError, match=r"S\.X, S\.deep\.T, C\{1\}, C\{3\}, M\(1\)\.X, M\(2\)\.X; expected one"):
        read_matrix(path)


def test_hdf5_that_is_not_of_matlab_has_its_rows_as_they_are(tmp_path):
    path = tmp_path / "a.mat"
    matrix = np.arange(6.0).reshape(3, 2)
    with h5py.File(path, "w") as file:
        file["X"] = matrix
        put(file, "Y", matrix)  # by a program that stores as MATLAB does
    np.testing.assert_array_equal(read_matrix(path, "X"), matrix)
    np.testing.assert_array_equal(read_matrix(path, "Y"), matrix)


def test_hdf5_that_takes_its_bytes_from_other_files_is_left_alone(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(64))
    path = tmp_path / "a.mat"
    with h5py.File(path, "w") as file:
        file.create_dataset("outside", (8, 8), np.uint8, external=[(str(tmp_path / "secret"), 0, 64)])
        file.create_virtual_dataset("virtual", h5py.VirtualLayout((8, 8), np.uint8))
    with pytest.raises(InputError, match=r"a\.mat holds these matrices .*: none, but nothing"):
        read_matrix(path)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia"])
def test_sparse_matrices_of_scipy(tmp_path, kind):
    path = tmp_path / "a.npz"
    scipy.sparse.save_npz(path, SPARSE.asformat(kind))
    np.testing.assert_array_equal(read_matrix(path), SPARSE.toarray())
    with pytest.raises(InputError, match=r"a\.npz#data: a sparse matrix of SciPy has no name; remove #data"):
        read_matrix(path, "data")


@pytest.mark.parametrize("suffix", ["mat", "v73.mat", "npz"])
def test_one_of_several_is_named(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    write = {"mat": scipy.io.savemat, "v73.mat": lambda path, values: write_matlab73(path, **values)}
    write.get(suffix, lambda path, values: np.savez(path, **values))(path, {"a": np.eye(2), "b": np.eye(3)})
    assert len(read_matrix(path, "b")) == 3
    with pytest.raises(InputError, match=r"holds these matrices .*: a, b; expected one; name it as FILE#NAME"):
        read_matrix(path)
    with pytest.raises(InputError, match=r"a, b; expected one called 'c'"):
        read_matrix(path, "c")


def test_links_of_hdf5_to_other_files_are_left_alone(tmp_path):
    write_matlab73(tmp_path / "other.mat", secret=np.eye(3))
    path = tmp_path / "a.mat"
    write_matlab73(path)
    with h5py.File(path, "r+") as file:
        file["link"] = h5py.ExternalLink("other.mat", "/secret")
    with pytest.raises(InputError, match=r"a\.mat holds these matrices .*: none, but nothing"):
        read_matrix(path)


def test_what_is_no_matrix_of_numbers_is_refused(in_this_process, tmp_path):
    path = tmp_path / "cells.mat"
    scipy.io.savemat(path, {"c": np.array([["a", 1], ["b", 2]], dtype=object), "row": np.ones((1, 5))})
    with pytest.raises(InputError, match=r"none, but c \(cell \[2, 2\]\), row \(double \[1, 5\]\); expected one"):
        read_matrix(path)
    for name, array in {"vector": np.ones(3), "cube": np.ones((2, 2, 2)), "texts": np.array([["a"], ["b"]])}.items():
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(InputError, match=rf"{name}\.npy holds .* expected a matrix of numbers"):
            read_matrix(tmp_path / f"{name}.npy")
    objects = np.array([[{}], [{}]], dtype=object)
    np.save(tmp_path / "objects.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "objects.npz", a=objects)
    np.savez(tmp_path / "beside.npz", a=objects, b=np.eye(2))
    np.testing.assert_array_equal(read_matrix(tmp_path / "beside.npz"), np.eye(2))
    for name, key in (("objects.npy", ""), ("objects.npz", ""), ("objects.npz", "a"), ("beside.npz", "a")):
        with pytest.raises(InputError, match=r"np. holds Python objects, which are never read, .*; save the numbers"):
            read_matrix(tmp_path / name, key)
    with pytest.raises(InputError, match=r"a \.npy file holds one matrix without a name; remove #x"):
        read_matrix(tmp_path / "vector.npy", "x")


@pytest.mark.parametrize("suffix", ["mat", "v73.mat", "npy", "npz"])
def test_damaged_files_are_refused(in_this_process, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    whole = tmp_path / f"whole.{suffix}"
    matrix = np.random.default_rng(0).normal(size=(50, 20))
    write = {
        "mat": lambda: scipy.io.savemat(whole, {"a": matrix}, do_compression=True),
        "v73.mat": lambda: write_matlab73(whole, a=matrix),
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


def test_matlab_5_that_crashes_scipy_is_refused(tmp_path):
    """SciPy takes an element of a type that does not exist, and ends the process."""
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"S": {"x": np.random.default_rng(0).random((6, 4)), "y": ["a", "bc"]}})
    content = bytearray(path.read_bytes())
    at = content.index((9).to_bytes(4, "little") + (192).to_bytes(4, "little"))  # 192 bytes of type 9, double
    content[at] = 11
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.mat is damaged.*copy it again"):
        read_matrix(path, "S.x")


@pytest.mark.parametrize("suffix", ["mat", "npz"])
def test_sparse_indices_outside_of_the_matrix_are_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    matrix = SPARSE.copy()
    matrix.indices[0] = 10**6
    if suffix == "mat":
        scipy.io.savemat(path, {"x": matrix})
    else:
        scipy.sparse.save_npz(path, matrix)
    with pytest.raises(InputError, match=r"a\.\w+ cannot be read .*copy it again"):
        read_matrix(path)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.retrieval.metrics import rank_gallery
from dagnn_core.search.nearest import VectorSearch, build_cells, choose_cells, recall_of


def clustered(num, dim, seed, *, num_centres=40, noise=0.3):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(num_centres, dim))
    return (centres[rng.integers(num_centres, size=num)] + noise * rng.normal(size=(num, dim))).astype(np.float32)


def expected(queries, vectors, k, allowed):
    """Rows by decreasing cosine, as the evaluation ranks, without the zero vectors and those that are not allowed."""
    findable = vectors.any(axis=1) & allowed
    ranked = [[row for row in ranking if findable[row]][:k] for ranking in rank_gallery(queries, vectors)]
    return np.array([rows + [-1] * (min(k, len(vectors)) - len(rows)) for rows in ranked])


@given(
    st.integers(0, 10_000),
    st.integers(1, 200),
    st.integers(1, 9),
    st.integers(1, 60),
    st.sampled_from([np.float32, np.float16]),
)
def test_exact_search_is_the_ranking_of_the_evaluation(seed, num, dim, k, dtype):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(num, dim)).astype(dtype)
    vectors[rng.random(num) < 0.2] = vectors[0]  # copies tie
    vectors[rng.random(num) < 0.1] = 0
    near = rng.random(num) < 0.3
    vectors[near] = vectors[0] * (1 + rng.normal(size=(near.sum(), dim)) * 1e-7)  # and some nearly
    queries = np.concatenate([rng.normal(size=(3, dim)), vectors[:2]]).astype(np.float32)
    queries = queries[queries.any(axis=1)]
    allowed = rng.random(num) < rng.random()
    for mask in (None, allowed):
        found = VectorSearch(vectors).search(queries, k, mask)
        np.testing.assert_array_equal(
            found.rows, expected(queries, vectors, k, np.ones(num, bool) if mask is None else mask)
        )
        assert (found.cosines[:, 1:] <= found.cosines[:, :-1]).all()


def test_more_ties_than_candidates_are_ranked_by_row():
    vectors = np.ones((5000, 8), np.float32)
    vectors[4000] *= -1
    found = VectorSearch(vectors).search(np.ones((1, 8), np.float32), 4200)
    np.testing.assert_array_equal(found.rows[0], [*range(4000), *range(4001, 4201)])


def test_zero_queries_find_nothing_and_others_are_not_disturbed():
    vectors = clustered(100, 5, 1)
    queries = np.stack([np.zeros(5), vectors[7], np.zeros(5)]).astype(np.float32)
    found = VectorSearch(vectors).search(queries, 3)
    assert (found.rows[[0, 2]] == -1).all()
    assert found.rows[1, 0] == 7 and found.cosines[1, 0] == pytest.approx(1, abs=1e-8)
    with pytest.raises(InputError, match="query embedding 0 of 1 is not finite"):
        VectorSearch(vectors).search(np.full((1, 5), np.nan, np.float32), 3)


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "vectors.faiss"
    vectors = clustered(6000, 12, 2)
    vectors[5] = 0
    build_cells(vectors, path, seed=0)
    return vectors, path


def test_cells_are_chosen_for_a_recall_and_their_cosines_are_exact(cells):
    vectors, path = cells
    queries = clustered(64, 12, 3)
    num_read, reached = choose_cells(vectors, path, queries, recall=0.95)
    exact, found = (
        VectorSearch(vectors).search(queries, 10),
        VectorSearch(vectors, (path, num_read)).search(queries, 10),
    )
    assert reached == recall_of(found, exact) >= 0.95
    assert num_read == 1 or recall_of(VectorSearch(vectors, (path, num_read // 2)).search(queries, 10), exact) < 0.95
    cosine_of = [dict(zip(*row, strict=True)) for row in zip(exact.rows, exact.cosines, strict=True)]
    for known, rows, cosines in zip(cosine_of, found.rows, found.cosines, strict=True):
        assert all(known[row] == cosine for row, cosine in zip(rows, cosines, strict=True) if row in known)


@pytest.mark.parametrize("share", [0.5, 0.01, 0.0005])
def test_a_filter_is_exact_however_few_it_leaves(cells, share):
    vectors, path = cells
    queries = clustered(8, 12, 4)
    allowed = np.random.default_rng(5).random(len(vectors)) < share
    found = VectorSearch(vectors, (path, 1)).search(queries, 10, allowed)
    np.testing.assert_array_equal(found.rows, expected(queries, vectors, 10, allowed))


def test_an_inverted_file_of_other_vectors_or_none_is_refused(cells, tmp_path):
    vectors, path = cells
    with pytest.raises(ArtifactError, match="has 6000 vectors of 12 numbers, expected"):
        VectorSearch(vectors[:10], (path, 1))
    (tmp_path / "no.faiss").write_bytes(b"no index")
    with pytest.raises(ArtifactError, match="cannot be read by faiss; build the index again"):
        VectorSearch(vectors, (tmp_path / "no.faiss", 1))

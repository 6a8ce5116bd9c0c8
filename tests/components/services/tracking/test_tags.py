"""Tags of lineage: what is written is read back."""

from hypothesis import given
from hypothesis import strategies as st

from components.services.tracking.tags import Lineage

TEXT = st.text(min_size=1, max_size=8)
KIND = st.sampled_from(["raw", "dataset", "features", "label_graph", "model", "report"])
FIELD = st.sampled_from(["md5", "repository", "revision", "commit", "path", "remote"])


@given(
    st.builds(
        Lineage,
        digests=st.dictionaries(KIND, TEXT),
        git=st.just({}) | st.fixed_dictionaries({"commit": TEXT, "dirty": st.booleans()}),
        execution=st.dictionaries(st.sampled_from(["image", "pipeline_run"]), TEXT),
        uris=st.dictionaries(KIND, TEXT),
        raw=st.dictionaries(FIELD, TEXT),
    )
)
def test_what_is_written_is_read_back(lineage: Lineage) -> None:
    others = {"params_digest": "p", "seed": "103", "registered_by": "me", "map_i2t": "0.5", "data_licence": "CC0"}
    assert Lineage.of_tags(lineage.tags() | others) == lineage


def test_names_of_tags_are_those_of_stored_versions() -> None:
    lineage = Lineage(
        digests={"raw": "b.dir", "model": "m"},
        git={"commit": "c0ffee", "dirty": False},
        execution={"image": "dagnn@sha256:1", "pipeline_run": "run-7", "machine": "not a tag"},
        uris={"model": "s3://runs/model"},
        raw={"md5": "b.dir", "revision": "", "size": "5"},
    )
    assert lineage.tags() == {
        "raw_digest": "b.dir",
        "model_digest": "m",
        "git_commit": "c0ffee",
        "git_dirty": "false",
        "image_digest": "dagnn@sha256:1",
        "pipeline_run": "run-7",
        "model_uri": "s3://runs/model",
        "raw_md5": "b.dir",
    }

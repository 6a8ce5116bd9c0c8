"""Tags of a run and of a model version that say where a model came from: one table, to write and to read them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dagnn_core.redaction import redact

PIPELINE_RUN = "pipeline_run"
KUBEFLOW_RUN, KUBEFLOW_PAGE = "kfp.pipeline_run_id", "kfp.pipeline_run_url"
"""Tags that Kubeflow's own MLflow integration gives to the run that it opens for a pipeline run."""
COMMIT = "git_commit"
_DIRTY = "git_dirty"
# what ran the training, as a manifest records it -> its tag
_EXECUTION = {"image": "image_digest", "pipeline_run": PIPELINE_RUN}
_DIGEST, _URI = "_digest", "_uri"  # what the tags of a kind of artifact end in
_NO_ARTIFACT = {*_EXECUTION.values(), "params_digest"}  # end so, too
_RAW_FIELDS = ("md5", "repository", "revision", "commit", "path", "remote")


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Where a model came from, as tags have it; what they do not have is empty."""

    digests: Mapping[str, str] = field(default_factory=dict)
    """Kind of artifact -> content digest; `raw`: md5 of the raw data."""
    git: Mapping[str, Any] = field(default_factory=dict)
    """`commit`, and whether the checkout was `dirty`."""
    execution: Mapping[str, str] = field(default_factory=dict)
    """`image` and `pipeline_run`."""
    uris: Mapping[str, str] = field(default_factory=dict)
    """Kind of artifact -> where a pipeline run stored it."""
    raw: Mapping[str, str] = field(default_factory=dict)
    """The version of the raw data: what is known of `md5`, `repository`, `revision`, `commit`, `path`, `remote`."""

    def tags(self) -> dict[str, str]:
        """The tags that say this."""
        tags = {f"{kind}{_DIGEST}": digest for kind, digest in self.digests.items()}
        if self.git:
            tags |= {COMMIT: str(self.git["commit"]), _DIRTY: str(self.git["dirty"]).lower()}
        tags |= {_EXECUTION[key]: str(value) for key, value in self.execution.items() if key in _EXECUTION}
        tags |= {f"{kind}{_URI}": uri for kind, uri in self.uris.items()}
        tags |= {f"raw_{key}": value for key, value in known_raw(self.raw).items()}
        return {tag: redact(value) for tag, value in tags.items()}

    @classmethod
    def of_tags(cls, tags: Mapping[str, str]) -> "Lineage":
        """What tags say; those of something else are left out."""
        return cls(
            digests={
                tag.removesuffix(_DIGEST): value
                for tag, value in tags.items()
                if tag.endswith(_DIGEST) and tag not in _NO_ARTIFACT
            },
            git={"commit": tags[COMMIT], "dirty": tags.get(_DIRTY) != "false"} if COMMIT in tags else {},
            execution={key: tags[tag] for key, tag in _EXECUTION.items() if tag in tags},
            uris={tag.removesuffix(_URI): value for tag, value in tags.items() if tag.endswith(_URI)},
            raw={key: tags[f"raw_{key}"] for key in _RAW_FIELDS if f"raw_{key}" in tags},
        )


def known_raw(raw: Mapping[str, Any] | None) -> dict[str, str]:
    """What is known of a version of raw data, of the fields that tags have."""
    return {key: str(raw[key]) for key in _RAW_FIELDS if raw.get(key)} if raw else {}

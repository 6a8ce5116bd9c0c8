"""The lineage of a version of a registered model: from its files back to the raw data, and what of it can be had."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from components.services.lineage.locate import ArtifactLocator, Lookup, State, lost_changes
from components.services.registry.stored_model import find_fault, read_manifest
from components.services.registry.versions import CHAMPION, read_versions
from components.services.tracking.mlflow import RECREATED_FROM, Tracking
from components.services.tracking.tags import KUBEFLOW_PAGE, Lineage
from dagnn_core.errors import BackendError, InputError
from dagnn_core.retrieval.directions import MAP_METRICS
from dagnn_core.text import one_line

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

ANCESTORS = ("features", "label_graph", "dataset")
SECTIONS = ("dataset", "features", "label_graph", "model", "train")
"""Sections of `params.yaml` that make a model."""
_FILES = {
    "features": ("image_model", "text_model", "image_vectors", "text_vectors"),
    "label_graph": ("embedding_file",),
}
"""Artifact -> keys of its section that name a file, a folder, or a model of a hub."""
_REFERENCE = re.compile(r"(?:models:/)?(?P<name>[^@/:]+)(?:@(?P<alias>[^@/:]+)|/(?P<version>\d+))?")


class Reference(NamedTuple):
    """A version as a user names it."""

    name: str
    alias: str = CHAMPION
    version: str = ""
    """Its number; empty: the one with the alias."""

    def __str__(self) -> str:
        return f"{self.name}/{self.version}" if self.version else f"{self.name}@{self.alias}"


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What is known of a version: from the registry, and from the manifest among its files."""

    name: str
    version: str
    aliases: tuple[str, ...]
    run_id: str
    tags: Mapping[str, str]
    files: Lookup
    """Whether its files are there and whole."""
    provenance: Mapping[str, Any]
    """Of its manifest; empty where that is lost."""

    @property
    def digests(self) -> dict[str, str]:
        """Content digest of every artifact, and md5 of the raw data, that the model was made from; its own too."""
        wanted = ("raw", *ANCESTORS, "model")
        return {kind: digest for kind, digest in {**self._tagged.digests, **self._ancestors}.items() if kind in wanted}

    @property
    def uris(self) -> dict[str, str]:
        """Where a pipeline run stored the raw data, every artifact, the model and its report, as far as it is known."""
        return {**self.provenance.get("uris", {}), **self._tagged.uris}

    @property
    def git(self) -> dict[str, Any]:
        """Commit of the code that trained, and which files differed from it."""
        if "git" in self.provenance:
            return dict(self.provenance["git"])
        return {"commit": "unknown", "dirty": True, **self._tagged.git}

    @property
    def execution(self) -> dict[str, Any]:
        """Image, run of the pipeline, and machine, as far as they are known."""
        return {**self._tagged.execution, **self.provenance.get("execution", {})}

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """Sections of `params.yaml` that made the model, as far as they are known."""
        records = [self.provenance, *self.provenance.get("origins", {}).values()]
        known = {name: values for record in records for name, values in record.get("params", {}).items()}
        return {section: known[section] for section in SECTIONS if section in known}

    @property
    def source(self) -> str:
        """Where the data set's step found the raw data; empty where that is unknown."""
        return str(self.sections.get("dataset", {}).get("source", ""))

    def origin(self, kind: str) -> dict[str, Any]:
        """The record of an artifact that the model was made from; code and pipeline are the model's where none is."""
        record = self.provenance.get("origins", {}).get(kind, {})
        return {"git": self.git, "execution": self.execution, **record}

    @property
    def _tagged(self) -> Lineage:
        return Lineage.of_tags(self.tags)

    @property
    def _ancestors(self) -> dict[str, str]:
        return dict(self.provenance.get("ancestors", {}))


@dataclass(frozen=True, kw_only=True)
class Node:
    """Something in the lineage, and what it was made from."""

    kind: str
    identity: str
    state: State
    reason: str
    """Where it is, or why it is not."""
    details: dict[str, str] = field(default_factory=dict)
    children: tuple["Node", ...] = ()


def machine_words(machine: Mapping[str, Any]) -> str:
    """A machine, for readers."""
    counts = {"thread": machine["threads"], "process": machine["processes"]}
    plural = {"thread": "threads", "process": "processes"}
    words = [f"{count} {what if count == 1 else plural[what]}" for what, count in counts.items()]
    if "precision" in machine:  # where the training chose it
        words.append(machine["precision"])
    return ", ".join([machine["processor"], machine["device"], *words])


def parse_reference(text: str) -> Reference:
    """`NAME` (its champion), `NAME@ALIAS` or `NAME/VERSION`, also as MLflow writes it: `models:/NAME@ALIAS`.

    Raises:
        InputError: it is something else.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise InputError(f"{text!r} names no version, expected NAME, NAME@ALIAS or NAME/VERSION", "correct it")
    return Reference(match["name"], match["alias"] or CHAMPION, match["version"] or "")


def read_recorded(tracking: Tracking, reference: Reference) -> Recorded:
    """Read what registry and manifest say of a version; of its files, only small ones are downloaded.

    Raises:
        InputError: no such model, version or alias.
        BackendError: the registry cannot be reached.
    """
    with tracking.answering():
        registered, versions = read_versions(tracking, reference.name)
    aliases = {alias: str(number) for alias, number in registered.aliases.items()}
    number = reference.version or aliases.get(reference.alias, "")
    if number not in versions:
        numbers = ", ".join(sorted(versions, key=int)) or "none"
        named = ", ".join(f"{alias}: {version}" for alias, version in sorted(aliases.items())) or "none"
        raise InputError(
            f"{reference} does not exist ({reference.name} has versions {numbers}, aliases {named})",
            "give one of these",
        )
    files, provenance = _read_files(tracking, versions[number])
    return Recorded(
        name=reference.name,
        version=number,
        aliases=tuple(sorted(alias for alias, version in aliases.items() if version == number)),
        run_id=versions[number].run_id or "",
        tags=dict(versions[number].tags),
        files=files,
        provenance=provenance,
    )


def trace(tracking: Tracking, recorded: Recorded, locator: ArtifactLocator) -> Node:
    """Make the tree of a version's lineage, looking for everything that it names."""
    aliases = f" ({', '.join(recorded.aliases)})" if recorded.aliases else ""
    return _node(
        "model version",
        f"{recorded.name} {recorded.version}{aliases}",
        recorded.files,
        _run_node(tracking, recorded, _pipeline_node(tracking, recorded, locator)),
        model=recorded.digests.get("model", ""),
        **{metric: recorded.tags.get(metric, "") for metric in MAP_METRICS},
    )


def find_raw(recorded: Recorded, locator: ArtifactLocator) -> Lookup:
    """Look for the raw data that a version was made from."""
    origin, md5 = recorded.origin("dataset"), recorded.digests.get("raw", "")
    commit = str(origin["git"]["commit"])
    if md5:
        return locator.raw(md5, commit, origin.get("raw", {}).get("remote", ""))
    if recorded.source:
        return locator.in_git(recorded.source, commit)
    return Lookup(State.MISSING, "neither its version nor its place is recorded")


def _read_files(tracking: Tracking, version: "ModelVersion") -> tuple[Lookup, dict[str, Any]]:
    try:
        with tracking.answering():
            fault = find_fault(tracking, version)
            manifest = read_manifest(tracking, version)
    except Exception as error:  # every kind of store fails in its own way
        return Lookup(State.UNKNOWN, f"its files cannot be looked for: {one_line(error)}"), {}
    provenance = manifest.provenance if manifest else {}
    if fault:
        return Lookup(State.MISSING, fault), provenance
    return Lookup(State.FOUND, "all files in the registry's store"), provenance


def _node(kind: str, identity: str, finding: Lookup, *children: Node, **details: str) -> Node:
    known = {name: value for name, value in details.items() if value}
    return Node(
        kind=kind,
        identity=identity or "none",
        state=finding.state,
        reason=finding.reason,
        details=known,
        children=children,
    )


def _run_node(tracking: Tracking, recorded: Recorded, *children: Node) -> Node:
    finding, details = Lookup(State.MISSING, "the server does not have it, or it was deleted"), {}
    try:
        with tracking.answering():
            if recorded.run_id and tracking.knows(recorded.run_id):
                run = tracking.client.get_run(recorded.run_id)
                finding = Lookup(State.FOUND, f"in {tracking.address}")
                details = {
                    "experiment": tracking.client.get_experiment(run.info.experiment_id).name,
                    "status": run.info.status,
                    "started": f"{datetime.fromtimestamp(run.info.start_time / 1000, tz=UTC):%Y-%m-%d %H:%M} UTC",
                    "recreated_from": run.data.tags.get(RECREATED_FROM, ""),
                }
    except BackendError as error:
        finding = Lookup(State.UNKNOWN, str(error))
    return _node("MLflow run", recorded.run_id, finding, *children, **details)


def _kubeflow_details(tracking: Tracking, recorded: Recorded, pipeline_run: str) -> dict[str, str]:
    """The MLflow run that Kubeflow has opened for a pipeline run, and the page that it names."""
    try:
        with tracking.answering():
            if not pipeline_run or not recorded.run_id or not tracking.knows(recorded.run_id):
                return {}
            experiment_id = tracking.client.get_run(recorded.run_id).info.experiment_id
            run_id = tracking.run_of_kubeflow(pipeline_run, experiment_id)
            if not run_id:
                return {}
            page = tracking.client.get_run(run_id).data.tags.get(KUBEFLOW_PAGE, "")
    except BackendError:
        return {}  # the node of the training's own run says why
    return {"mlflow_run": run_id, "page": page}


def _pipeline_node(tracking: Tracking, recorded: Recorded, locator: ArtifactLocator) -> Node:
    run, image, machine = (recorded.execution.get(key, "") for key in ("pipeline_run", "image", "machine"))
    children = [_commit_node(recorded.git, locator)]
    if image:
        children.append(_node("image", image, Lookup(State.RECORDED, "its registry was not asked for it")))
    if machine:
        children.append(_node("machine", machine_words(machine), Lookup(State.RECORDED, "")))
    children.append(_params_node(recorded))
    children += [_artifact_node(kind, recorded, locator) for kind in ANCESTORS]
    reason = "" if run else "stages of DVC, or single commands"
    stored = {f"stored_{kind}": recorded.uris.get(kind, "") for kind in ("model", "report")}
    kubeflow = _kubeflow_details(tracking, recorded, run)
    return _node("pipeline run", run, Lookup(State.RECORDED, reason), *children, **stored, **kubeflow)


def _commit_node(git: Mapping[str, Any], locator: ArtifactLocator) -> Node:
    commit, changed = str(git["commit"]), git.get("changed", [])
    if commit == "unknown":
        finding = Lookup(State.MISSING, "the code was in no git checkout")
    elif git["dirty"] and not changed:
        finding = Lookup(State.MISSING, "the code had uncommitted changes, which are not recorded")
    else:
        finding = locator.commit(commit, changed)
    return _node("git commit", commit, finding, uncommitted=", ".join(changed))


def _params_node(recorded: Recorded) -> Node:
    sections = recorded.sections
    missing = ", ".join(section for section in SECTIONS if section not in sections)
    finding = (
        Lookup(State.MISSING, f"not recorded: {missing}")
        if missing
        else Lookup(State.FOUND, "in the model's manifest.json")
    )
    seeds = {f"{name}.seed": str(values["seed"]) for name, values in sections.items() if "seed" in values}
    return _node("parameters", ", ".join(sections), finding, **seeds)


def _artifact_node(kind: str, recorded: Recorded, locator: ArtifactLocator) -> Node:
    digest, origin = recorded.digests.get(kind, ""), recorded.origin(kind)
    commit = str(origin["git"]["commit"])
    finding = locator.artifact(kind, digest, commit) if digest else Lookup(State.MISSING, "it is not recorded")
    uri = recorded.uris.get(kind, "")
    if digest and uri:
        finding = _or_stored(finding, lambda: locator.stored_artifact(uri, digest))
    elif finding.state is State.MISSING and origin["execution"].get("pipeline_run"):
        finding = Lookup(State.UNKNOWN, "not here, nor in DVC; where its pipeline run stored it is not recorded")
    children = [] if _same_code(origin["git"], recorded.git) else [_commit_node(origin["git"], locator)]
    section = recorded.sections.get(kind, {})
    for key in _FILES.get(kind, ()):
        if path := section.get(key):
            revision = key.endswith("_model") and section.get(f"{key.removesuffix('_model')}_revision")
            of_hub = Lookup(State.RECORDED, f"revision {revision} of a hub, which was not asked for it")
            children.append(_node(key, path, of_hub if revision else locator.input_file(path, commit)))
    if kind == "dataset":
        children += _raw_nodes(recorded, finding, locator)
    return _node(kind.replace("dataset", "data set").replace("_", " "), digest, finding, *children)


def _or_stored(finding: Lookup, look: Callable[[], Lookup]) -> Lookup:
    """What was found here or in DVC, else in the store of the pipeline run."""
    if finding.state is State.FOUND:
        return finding
    stored = look()
    if stored.state is State.FOUND:
        return stored
    state = State.UNKNOWN if State.UNKNOWN in (finding.state, stored.state) else State.MISSING
    return Lookup(state, f"{finding.reason}; {stored.reason}")


def _same_code(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one["commit"] == other["commit"] and lost_changes(one.get("changed", [])) == lost_changes(
        other.get("changed", [])
    )


def _raw_nodes(recorded: Recorded, dataset: Lookup, locator: ArtifactLocator) -> list[Node]:
    """The revision of DVC's files, and the raw data itself."""
    origin = recorded.origin("dataset")
    fetched, md5 = origin.get("raw", {}), recorded.digests.get("raw", "")
    places = {key: fetched.get(key, "") for key in ("remote", "repository", "path")}
    source = recorded.source if md5 else ""
    finding = find_raw(recorded, locator)
    if uri := recorded.uris.get("raw"):
        finding = _or_stored(finding, lambda: locator.stored_raw(uri, md5))
    raw = _node("raw data", md5 or recorded.source, finding, source=source, **places)
    if fetched.get("commit"):
        revision = locator.commit(fetched["commit"], [])
        if revision.state is not State.FOUND:
            revision = Lookup(State.RECORDED, "its repository was not asked for it")
        return [_node("DVC revision", fetched["commit"], revision), raw]
    if dataset.commit:
        return [
            _node("DVC revision", dataset.commit, Lookup(State.FOUND, "its dvc.lock has the data set")),
            raw,
        ]
    if origin["execution"].get("pipeline_run"):
        return [raw]  # a run of the pipeline leaves no dvc.lock
    return [
        _node("DVC revision", "", Lookup(State.MISSING, "no commit has the data set in its dvc.lock")),
        raw,
    ]

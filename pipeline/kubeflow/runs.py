"""What a run's tasks are doing, folded from the workflow nodes that the server lists.

The server lists nodes of an Argo workflow instead of tasks: drivers, executors, groups and iterations. The id of a node
ends with the hash of its full name, which is its parent's full name and its own. A listed node has a display name and
the ids of its children, but not its own id. So full names are found from the root down: one whose hash is an id exists.

This module needs the standard library alone, so that a task can use it inside its pod.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

POD_LOST = "the pod was lost"
DRIVER_FAILED = "its driver failed"

_FAILED = ("FAILED", "ERROR")
# groups of tasks; an exit handler is `exit-handler-1.onExit`
_GROUP = re.compile(r"root|exit-handler-\d+|onExit|for-loop-\d+|condition(-branches)?-\d+|iteration.*")
_ATTEMPT = re.compile(r"(?P<name>.*)\((?P<number>\d+)\)")
_ITERATION = re.compile(r"iteration-iterations\((?P<index>\d+):[^)]*\)")
_TEMPLATES = ("retry-system-container-impl", "system-container-impl")  # of tasks with retries, and of those without
_DRIVER_TEMPLATES = ("system-container-driver", "system-dag-driver")
_SAME_MOMENT = 2.0  # seconds within which a node and its first pod are listed


class Attempt(NamedTuple):
    """A pod that worked on a task."""

    pods: tuple[str, ...]
    """Names that the pod may have, the likeliest first; by one of them the server serves its log."""


class Task(NamedTuple):
    """A task of a run."""

    name: str
    """Of the step, as `build_label_graph`."""
    seed: str
    """The item of the loop that the task is in; empty outside of loops."""
    state: str
    """PENDING, RUNNING, SUCCEEDED, CACHED, SKIPPED (it never ran), FAILED or CANCELED."""
    attempts: tuple[Attempt, ...]
    """In order; none for a task that has no pod: from the cache, skipped, or not begun. After a failure of the driver,
    the driver's own pod."""
    started: datetime | None
    """Of the first attempt."""
    finished: datetime | None
    reason: str
    """Why there was another attempt, or why the task failed without one; empty where the nodes do not say it."""

    @property
    def label(self) -> str:
        """Name and seed, as `train (seed 7)`."""
        return f"{self.name} (seed {self.seed})" if self.seed else self.name

    @property
    def note(self) -> str:
        """The attempt, where it is not the first one, and the reason, as `attempt 2 after the pod was lost`."""
        return f"attempt {len(self.attempts)} after {self.reason}" if len(self.attempts) > 1 else self.reason

    @property
    def failed_label(self) -> str:
        """Label and note of a task that failed, as `train (attempt 2 after the pod was lost)`."""
        return f"{self.label} ({self.note})" if self.note else self.label


def state_of(run: Mapping[str, Any]) -> str:
    """A run's state: the server says FAILED of a run that was terminated, its history tells."""
    state = str(run.get("state") or "PENDING")
    return "CANCELED" if state == "FAILED" and _canceled_at(run) else state


def whole_spec(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The compiled pipeline of a version or a run, as the server answers it; its platforms' parts are `platforms`."""
    spec: dict[str, Any] = entry.get("pipeline_spec") or {}
    if "pipeline_spec" not in spec:  # it needs nothing of a platform
        return spec
    return {**spec["pipeline_spec"], **(spec.get("platform_spec") or {})}


def fold(run: Mapping[str, Any], spec: Mapping[str, Any] = {}) -> list[Task]:
    """The tasks of a run, in order of their start; those that never ran where they would have.

    Args:
        run: the server's answer to a request for the run, as JSON.
        spec: the compiled pipeline, as far as it is known; without it, an item of a loop is named by its number, as
            `#0`, and the logs of pods with labels of their own are not found.
    """
    items, templates = loop_items(spec), _pod_templates(spec)
    nodes = [node for node in _details(run) if node.get("display_name")]  # the others are ML Metadata's
    tree = _Tree(nodes)
    canceled_at = _canceled_at(run)
    ranks = _ranks(tree, nodes)
    tasks = []
    for name in tree.tasks():
        task, moment = _task(tree, name, canceled_at, items, templates)
        tasks.append((moment, ranks.get(_base(name), 0), task.name, task.seed, task))
    return [task for *_, task in sorted(tasks, key=lambda entry: entry[:-1])]


def loop_items(spec: Mapping[str, Any]) -> list[str]:
    """Items of the loop of a compiled pipeline; empty where it has none, or they are made while it runs."""
    for _, task in _spec_tasks(spec):
        raw = ((task.get("parameterIterator") or {}).get("items") or {}).get("raw")
        if raw:
            return [item if isinstance(item, str) else json.dumps(item) for item in json.loads(raw)]
    return []


def task_names(spec: Mapping[str, Any]) -> list[str]:
    """Names of all tasks of a compiled pipeline, those too that the server does not list yet."""
    components = spec.get("components") or {}
    return sorted(
        name.replace("-", "_")
        for name, task in _spec_tasks(spec)
        if "executorLabel" in components.get(task["componentRef"]["name"], {})
    )


def _pod_templates(spec: Mapping[str, Any]) -> list[str]:
    """Names of the templates of a pipeline's pods: they count the annotations and labels that pods have of the user."""
    kubernetes = (spec.get("platforms") or {}).get("kubernetes") or {}
    executors = (kubernetes.get("deploymentSpec") or {}).get("executors") or {}
    prefixes = set()
    for executor in executors.values():
        metadata = executor.get("podMetadata")
        counts = [len((metadata or {}).get(kind) or {}) for kind in ("annotations", "labels")]
        prefixes.add(f"metadata-{counts[0]}-{counts[1]}-" if metadata else "")
    return [f"{prefix}{template}" for prefix in sorted(prefixes or {""}) for template in _TEMPLATES]


class _Tree:
    """The nodes by their full names."""

    def __init__(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        ids = {child for node in nodes for child in _children(node)}
        self.workflow = next(iter(ids), "").rpartition("-")[0]
        displays = {str(node["display_name"]) for node in nodes}
        hashes = {int(number) for number in (entry.rpartition("-")[2] for entry in ids) if number.isdigit()}
        self.children: dict[str, list[str]] = defaultdict(list)
        self.parents: dict[str, str] = {}
        self._displays = {self.workflow: self.workflow}
        self._hashes = {self.workflow: _fnv1a(self.workflow)}
        unseen = [self.workflow]
        while unseen:
            parent = unseen.pop()
            for display, end in _candidates(self._displays[parent], displays):
                name, value = parent + end, _fnv1a(end, self._hashes[parent])
                if value in hashes and name not in self._displays:
                    self._displays[name], self._hashes[name] = display, value
                    self.parents[name] = parent
                    self.children[parent].append(name)
                    unseen.append(name)
        self.names = {f"{self.workflow}-{self._hashes[name]}": name for name in self.parents}
        """By the ids."""
        self.open_pods = [node for node in nodes if not _children(node) and read_time(node, "end_time") is None]
        self._nodes = self._match(nodes)

    def _match(self, nodes: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """Which node has which full name: its children tell, else there is one of this display name left."""
        found: dict[str, Mapping[str, Any]] = {}
        others: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for node in nodes:
            parents = {self.parents[self.names[child]] for child in _children(node) if child in self.names}
            own = [name for name in parents if self._displays[name] == node["display_name"]]
            if len(own) == 1:
                found[own[0]] = node
            else:
                others[node["display_name"]].append(node)
        left = defaultdict(list)
        for name, display in self._displays.items():
            if name not in found:
                left[display].append(name)
        for display, same in others.items():
            same.sort(key=lambda node: (str(node.get("start_time")), str(node.get("end_time")), str(node.get("state"))))
            found.update(zip(sorted(left[display]), same, strict=False))
        return found

    def tasks(self) -> list[str]:
        """Full names of the tasks; a driver whose task is not listed yet counts as its task."""
        names = set()
        for name, parent in self.parents.items():
            base = _base(name)
            if _ATTEMPT.fullmatch(name) or base == "executor" or _base(parent) == "executor":
                continue
            task = base.removesuffix("-driver")
            if not _GROUP.fullmatch(task) or (task != base and self.state(name) in _FAILED):
                names.add(name.removesuffix("-driver"))
        return sorted(names)

    def state(self, name: str) -> str:
        """Of a node; empty where it never ran or is not listed."""
        return str(self._nodes.get(name, {}).get("state") or "")

    def time(self, name: str, key: str) -> datetime | None:
        """A node's `start_time` or `end_time`."""
        return read_time(self._nodes.get(name, {}), key)

    def attempt(self, name: str, templates: Sequence[str]) -> Attempt:
        """The pod of a node, which is of one of these templates."""
        return Attempt(tuple(f"{self.workflow}-{template}-{self._hashes[name]}" for template in templates))

    def executors(self, task: str) -> list[str]:
        """Of all attempts at a task: the server may repeat the task or its executor."""
        return [
            executor
            for attempt in sorted(self.children[task], key=_number)
            for executor in self.children[attempt]
            if _base(executor) == "executor"
        ]


def _task(
    tree: _Tree, name: str, canceled_at: datetime | None, items: Sequence[str], templates: Sequence[str]
) -> tuple[Task, datetime]:
    """A task, and when it began or was left out."""
    driver = f"{name}-driver"
    executors = tree.executors(name)
    pods = [(executor, pod) for executor in executors for pod in sorted(tree.children[executor], key=_number)]
    attempts = tuple(tree.attempt(pod, templates) for _, pod in pods)
    reason = POD_LOST if len(attempts) > 1 else ""  # nothing else is repeated
    state, owner = tree.state(name), name
    if not state and tree.state(driver) in _FAILED:
        state, owner, reason = tree.state(driver), driver, DRIVER_FAILED
        drivers = sorted(tree.children[driver], key=_number)
        attempts = tuple(tree.attempt(pod, _DRIVER_TEMPLATES) for pod in drivers)
    elif not state and name not in tree.parents:
        state, owner = ("PENDING" if tree.state(driver) else "SKIPPED"), driver
    started, finished = tree.time(owner, "start_time"), tree.time(owner, "end_time")
    if state in _FAILED:
        state = "CANCELED" if canceled_at and finished and finished >= canceled_at else "FAILED"
    elif state == "SUCCEEDED" and executors and not attempts:
        state = "CACHED"
    elif state == "RUNNING" and (not pods or _is_pending(tree, *pods[-1])):
        state = "PENDING"
    moment = started or datetime.max.replace(tzinfo=UTC)
    if state in ("", "SKIPPED"):
        state, started, finished = "SKIPPED", None, None
    return Task(_base(name).replace("-", "_"), _item(name, items), state, attempts, started, finished, reason), moment


def _is_pending(tree: _Tree, executor: str, pod: str) -> bool:
    """Whether a pod waits for its node; where pods cannot be told apart, only if all of them wait."""
    began = tree.time(executor, "start_time")
    display = f"executor({_number(pod)})"
    states = []
    for node in tree.open_pods:
        start = read_time(node, "start_time")
        if node["display_name"] != display or not start or not began or start < began:
            continue
        if _number(pod) or (start - began).total_seconds() < _SAME_MOMENT:
            states.append(node.get("state"))
    return bool(states) and set(states) == {"PENDING"}


def _candidates(display: str, displays: set[str]) -> Iterator[tuple[str, str]]:
    """Display names that a node's children may have, and what their full names add to its own."""
    for child in displays:
        if child.startswith(f"{display}("):  # an attempt, or an iteration
            yield child, child.removeprefix(display)
        elif not _ATTEMPT.fullmatch(child):
            yield child, f".{child}"


def _ranks(tree: _Tree, nodes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Order of the tasks by how many follow them, for those that begin in the same second."""
    following: dict[str, set[str]] = defaultdict(set)
    for node in nodes:
        for child in _children(node):
            following[_base(str(node["display_name"]))].add(_base(tree.names.get(child, "")).removesuffix("-driver"))

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        unseen = [start]
        while unseen:
            for name in following[unseen.pop()] - seen:
                seen.add(name)
                unseen.append(name)
        return seen

    return {name: -len(reached(name)) for name in list(following)}


def _base(name: str) -> str:
    """The last part of a full name, without the number of its attempt."""
    match = _ATTEMPT.fullmatch(name)
    return (match["name"] if match else name).rpartition(".")[2]


def _number(name: str) -> int:
    match = _ATTEMPT.fullmatch(name)
    return int(match["number"]) if match else 0


def _item(name: str, items: Sequence[str]) -> str:
    iterations = _ITERATION.findall(name)
    if not iterations:
        return ""
    index = int(iterations[-1])
    return items[index] if index < len(items) else f"#{index}"


def _canceled_at(run: Mapping[str, Any]) -> datetime | None:
    """When the user asked for the run's end; None too where the run was retried since."""
    moment = None
    for entry in run.get("state_history") or []:
        if entry.get("state") in ("PENDING", "RUNNING"):
            moment = None
        elif entry.get("state") in ("CANCELING", "CANCELED"):
            moment = moment or read_time(entry, "update_time")
    return moment


def _details(run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list((run.get("run_details") or {}).get("task_details") or [])


def _spec_tasks(spec: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for level in (spec.get("root") or {}, *(spec.get("components") or {}).values()):
        yield from (level.get("dag") or {}).get("tasks", {}).items()


def _children(node: Mapping[str, Any]) -> list[str]:
    return [child["pod_name"] for child in node.get("child_tasks") or [] if child.get("pod_name")]


def read_time(entry: Mapping[str, Any], key: str) -> datetime | None:
    """A moment in the server's JSON; None where there is none: its zero is an early date."""
    text = entry.get(key)
    if not text:
        return None
    moment = datetime.fromisoformat(str(text))
    return moment if moment.year > 1970 else None


def _fnv1a(text: str, value: int = 2166136261) -> int:
    """Argo's hash of a node's name: FNV-1a with 32 bits.

    Args:
        text: the name, or its end.
        value: hash of what is before it.
    """
    for byte in text.encode():
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    return value

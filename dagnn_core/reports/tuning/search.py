"""What a search found, whatever program ran it: its trials, the best one, and which values mattered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dagnn_core.config.space import Value
from dagnn_core.text import cell, clip

NUM_SHOWN = 10
"""Trials in the table of a terminal."""
MAX_CELL = 60  # characters


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One combination of values."""

    number: int
    state: Literal["finished", "pruned", "failed", "running"]
    values: Mapping[str, Value]
    """Dotted key -> value; some lack where it failed early."""
    val_map: float | None
    """Mean validation MAP over the seeds; of a trial that was pruned that of its last epoch; None: it has none."""
    num_epochs: int
    """Epochs that it trained, of all seeds together; those before a retry of a lost trial are left out."""
    seconds: float
    """From its start to its end; 0 while it runs."""
    is_start: bool = False
    """Whether its values are those of the configuration."""
    reason: str = ""
    """Why it failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """A search, as far as it is done."""

    name: str
    seeds: tuple[int, ...]
    trials: Sequence[Trial]
    """In the order of their numbers."""
    fixed: Mapping[str, Value]
    """Dotted key -> value that all trials had."""
    importance: Mapping[str, float]
    """Dotted key -> share of the validation MAP's variance that it explains, the largest first; empty: too few
    trials."""

    @property
    def finished(self) -> list[Trial]:
        """The trials that trained to their end, the best first; of equal ones the first."""
        done = [trial for trial in self.trials if trial.state == "finished"]
        return sorted(done, key=lambda trial: (-(trial.val_map or 0.0), trial.number))

    @property
    def best(self) -> Trial | None:
        """The trial with the highest validation MAP; None: none has finished."""
        return next(iter(self.finished), None)

    @property
    def start(self) -> Trial | None:
        """The trial with the values of the configuration; None: they are not in the space, or it has not finished."""
        return next((trial for trial in self.finished if trial.is_start), None)

    def count(self, state: str) -> int:
        """Number of trials in a state."""
        return sum(trial.state == state for trial in self.trials)

    @property
    def found(self) -> dict[str, Value]:
        """The values to write into the configuration: those of the best trial, and the fixed ones."""
        return {**self.fixed, **(self.best.values if self.best else {})}

    def summary(self) -> str:
        """The outcome in a line."""
        counts = [f"{count} {state}" for state in _STATES if (count := self.count(state))]
        best = f"; best val MAP {self.best.val_map:.4f} in trial {self.best.number}" if self.best else ""
        return f"{', '.join(counts) or 'no trial'}{best}"

    def record(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {
            "name": self.name,
            "seeds": list(self.seeds),
            "best": self.best.number if self.best else None,
            "found": self.found,
            "importance": dict(self.importance),
            "trials": [
                {
                    "number": trial.number,
                    "state": trial.state,
                    "val_map": trial.val_map,
                    "values": dict(trial.values),
                    "epochs": trial.num_epochs,
                    "seconds": round(trial.seconds, 3),
                    "reason": trial.reason,
                }
                for trial in self.trials
            ],
        }


_STATES = ("finished", "pruned", "failed", "running")


def nested(values: Mapping[str, Value]) -> dict[str, dict[str, Value]]:
    """Values by section and key, as `params.yaml` has them."""
    sections: dict[str, dict[str, Value]] = {}
    for key, value in values.items():
        name, _, field = key.partition(".")
        sections.setdefault(name, {})[field] = value
    return sections


def shown(value: object) -> str:
    """A value as a configuration has it: `true`, `0.00073`."""
    if isinstance(value, bool):
        return str(value).lower()
    return clip(cell(f"{value:g}" if isinstance(value, float) else value), MAX_CELL)


def table(search: Search) -> str:
    """The best trials, a column each, and the importance of the values, as text for a terminal."""
    keys = list(search.importance) or sorted({key for trial in search.trials for key in trial.values})
    rows = [["trial", "val MAP", "epochs", "seconds", *keys]]  # they stand upright: keys are long, and there are many
    rows += [
        [
            str(trial.number),
            f"{trial.val_map:.4f}",
            str(trial.num_epochs),
            f"{trial.seconds:.1f}",
            *(shown(trial.values.get(key, "")) for key in keys),
        ]
        for trial in search.finished[:NUM_SHOWN]
    ]
    if search.importance:
        rows.append(["importance", "", "", "", *(f"{search.importance[key]:.0%}" for key in keys)])
    widths = [max(map(len, row)) for row in rows]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True))
        for line in zip(*rows, strict=True)
    ]
    return "\n".join(line.rstrip() for line in lines)


def best_so_far(trials: Sequence[Trial]) -> tuple[list[int], list[float]]:
    """Number of each finished trial, and the highest validation MAP up to it."""
    done = [trial for trial in trials if trial.state == "finished"]
    values = [trial.val_map or 0.0 for trial in done]
    return [trial.number for trial in done], [max(values[: count + 1]) for count in range(len(values))]

"""Labels, taints and variables as a target writes them: one text each, in the notation that kubectl takes."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from dagnn_core.config.section import require
from dagnn_core.redaction import redact

_OBJECT = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_KEY = rf"(?P<key>({_OBJECT}/)?{_NAME})"
_VARIABLE = r"(?P<key>[A-Za-z_][A-Za-z0-9_]*)"
_LABEL = re.compile(rf"{_KEY}=(?P<value>({_NAME})?)")
_ANNOTATION = re.compile(rf"{_KEY}=(?P<value>.*)", re.DOTALL)
_TAINT = re.compile(rf"{_KEY}(=(?P<value>({_NAME})?))?(:(?P<effect>NoSchedule|PreferNoSchedule|NoExecute))?")
_SETTING = re.compile(rf"{_VARIABLE}=(?P<value>.*)", re.DOTALL)
_REFERENCE = re.compile(rf"{_VARIABLE}=(?P<value>{_OBJECT}/[A-Za-z0-9._-]+)")

_OWN_KEYS = ("pipeline/", "pipelines.kubeflow.org/", "workflows.argoproj.io/")  # which Kubeflow and Argo find pods by


class Toleration(NamedTuple):
    """A taint that does not keep a pod from a node."""

    key: str
    value: str | None
    """None: any."""
    effect: str
    """Empty: every effect."""

    def tolerates(self, key: str, value: str, effect: str) -> bool:
        """Whether a pod with this toleration goes to a node in spite of a taint."""
        return self.key == key and self.value in (None, value) and self.effect in ("", effect)

    def __str__(self) -> str:
        value = "" if self.value is None else f"={self.value}"
        return f"{self.key}{value}{f':{self.effect}' if self.effect else ''}"


class SecretKey(NamedTuple):
    """An entry of a secret."""

    secret: str
    key: str


def read_names(texts: Sequence[str], key: str) -> tuple[str, ...]:
    """Names of objects of Kubernetes; `key` of the target names them in messages, here and below.

    Raises:
        InputError: one is none.
    """
    for text in texts:
        require(re.fullmatch(_OBJECT, text) is not None, key, "names of Kubernetes objects, as 'registry'", text)
    return tuple(texts)


def read_labels(texts: Sequence[str], key: str) -> dict[str, str]:
    """Labels, as `zone=eu-1`.

    Raises:
        InputError: one is no label, is there twice, or has a secret in it.
    """
    return _read_pairs(texts, key, _LABEL, "a label as zone=eu-1")


def read_pod_labels(texts: Sequence[str], key: str) -> dict[str, str]:
    """Labels that pods get; those that Kubeflow finds its pods by are refused.

    Raises:
        InputError: as for `read_labels`.
    """
    return _without_own_keys(read_labels(texts, key), key)


def read_annotations(texts: Sequence[str], key: str) -> dict[str, str]:
    """Annotations that pods get, whose values may be any text.

    Raises:
        InputError: as for `read_pod_labels`.
    """
    return _without_own_keys(_read_pairs(texts, key, _ANNOTATION, "an annotation as team=images"), key)


def read_tolerations(texts: Sequence[str], key: str) -> tuple[Toleration, ...]:
    """Tolerations, as `dedicated=ml:NoSchedule`, `dedicated:NoSchedule` or `dedicated`.

    Raises:
        InputError: one is none.
    """
    return tuple(_read_toleration(text, key) for text in texts)


def _read_toleration(text: str, key: str) -> Toleration:
    match = _TAINT.fullmatch(text)
    require(match is not None, key, "a taint as dedicated=ml:NoSchedule or dedicated:NoSchedule", text)
    assert match is not None
    return Toleration(match["key"], match["value"], match["effect"] or "")


def read_variables(texts: Sequence[str], key: str) -> dict[str, str]:
    """Environment variables, as `NO_PROXY=.svc`.

    Raises:
        InputError: one is none, is there twice, or has a secret in it.
    """
    return _read_pairs(texts, key, _SETTING, "a variable as NO_PROXY=.svc")


def read_secret_variables(texts: Sequence[str], key: str) -> dict[str, SecretKey]:
    """Environment variables and the entries of secrets that they take, as `HF_TOKEN=hugging-face/token`.

    Raises:
        InputError: one is none, or is there twice.
    """
    found = _pairs(texts, key, _REFERENCE, "a variable and its entry of a secret as HF_TOKEN=hugging-face/token")
    return {name: SecretKey(*entry.split("/", 1)) for name, entry in found.items()}


def _read_pairs(texts: Sequence[str], key: str, pattern: re.Pattern[str], expected: str) -> dict[str, str]:
    for text in texts:
        require(redact(text) == text, key, "without secrets, which secret_env names", "one with a secret")
    return _pairs(texts, key, pattern, expected)


def _pairs(texts: Sequence[str], key: str, pattern: re.Pattern[str], expected: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        match = pattern.fullmatch(text)
        require(match is not None, key, expected, text)
        assert match is not None
        require(match["key"] not in pairs, key, "a list with each name once", f"{match['key']} twice")
        pairs[match["key"]] = match["value"]
    return pairs


def _without_own_keys(pairs: dict[str, str], key: str) -> dict[str, str]:
    for name in pairs:
        require(not name.startswith(_OWN_KEYS), key, "without the names that Kubeflow and Argo use themselves", name)
    return pairs

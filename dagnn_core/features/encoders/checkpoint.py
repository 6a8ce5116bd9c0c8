"""The files of a pretrained model: in a local folder, or at a commit of the Hugging Face hub."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from dagnn_core.artifacts import canonical_json, sha256_of
from dagnn_core.data.dataset import Modality
from dagnn_core.disk import writing
from dagnn_core.errors import BackendError, InputError
from dagnn_core.tensors import save_tensors
from dagnn_core.text import first_line

CONFIG = "config.json"
STORED_WEIGHTS = "model.safetensors"
WEIGHTS = (STORED_WEIGHTS, "model.safetensors.index.json", "model-*-of-*.safetensors")
SENTENCE_POOLING = "1_Pooling/config.json"  # how a model of sentence-transformers pools
# what turns images and texts into a network's input: one of the first, and what else there is
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
VOCABULARIES = (
    *("tokenizer.json", "vocab.txt", "vocab.json", "bpe.codes"),
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
)
PREPARATION = {
    "image": PROCESSORS,
    "text": (
        *VOCABULARIES,
        *("merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", SENTENCE_POOLING),
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A pretrained model on this machine's disk."""

    modality: Modality
    model: str
    """Hub id or folder, as configured."""
    revision: str
    """Commit of the hub id; empty for a folder."""
    folder: Path
    """Where its files are."""
    digest: str
    """sha256 over names and contents of the files that this modality needs."""

    @classmethod
    def find(cls, modality: Modality, model: str, revision: str) -> "Checkpoint":
        """Find a model in a local folder or, where a revision is given, on the hub (or in its cache).

        Raises:
            InputError: there is no such folder or hub model, or it lacks configuration or weights.
            BackendError: the hub cannot be reached.
        """
        folder = _download(modality, model, revision) if revision else Path(model)
        if not folder.is_dir():
            raise InputError(
                f"features.{modality}_model is {model!r}, but there is no such folder",
                f"correct the path, or for a "
                f"model of the Hugging Face hub give its commit in features.{modality}_revision",
            )
        _require_one(folder, (CONFIG,), "not a model as transformers saves them")
        _require_one(folder, WEIGHTS, "weights are read as safetensors alone, never pickled (.bin); convert them")
        files = {name: sha256_of(folder / name) for name in _files(folder, modality)}
        digest = hashlib.sha256(canonical_json(files).encode()).hexdigest()
        return cls(modality=modality, model=model, revision=revision, folder=folder, digest=digest)

    def require_preparation(self) -> None:
        """Check that there is what prepares the network's input.

        Raises:
            InputError: the image processor or the tokenizer's vocabulary is missing.
        """
        if self.modality == "image":
            _require_one(self.folder, PROCESSORS, "it says how images become pixels; save the image processor there")
        else:
            _require_one(self.folder, VOCABULARIES, "texts need its words; save the tokenizer there")

    def copy(self, directory: Path, prefixes: Sequence[str]) -> None:
        """Copy the files; of the weights only those whose names begin with one of the prefixes, where there are any."""
        tensors: dict[str, Tensor] = {}
        for name in _files(self.folder, self.modality):
            if prefixes and name.startswith("model"):
                if name.endswith(".safetensors"):
                    with safe_open(self.folder / name, framework="pt") as file:
                        wanted = [key for key in file.keys() if key.startswith(tuple(prefixes))]  # noqa: SIM118
                        tensors |= {key: file.get_tensor(key) for key in wanted}
            else:
                self._copy(directory, name)
        if prefixes:
            save_tensors(directory / STORED_WEIGHTS, tensors, metadata={"format": "pt"})

    def copy_preparation(self, directory: Path) -> None:
        """Copy the files but for the weights."""
        for name in _files(self.folder, self.modality):
            if not name.startswith("model"):
                self._copy(directory, name)

    def _copy(self, directory: Path, name: str) -> None:
        (directory / name).parent.mkdir(exist_ok=True)
        with writing(directory / name, need=(self.folder / name).stat().st_size):
            shutil.copyfile(self.folder / name, directory / name)


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}), expected a JSON object", "get the file again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged, expected a JSON object", "get the file again")
    return value


def _files(folder: Path, modality: Modality) -> list[str]:
    return sorted(
        str(path.relative_to(folder))
        for pattern in (CONFIG, *WEIGHTS, *PREPARATION[modality])
        for path in folder.glob(pattern)
    )


def _require_one(folder: Path, patterns: Sequence[str], reason: str) -> None:
    if not any(True for pattern in patterns for _ in folder.glob(pattern)):
        raise InputError(f"{folder} has no {' or '.join(patterns)}: {reason}")


def _download(modality: Modality, model: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    keys = f"features.{modality}_model and {modality}_revision"
    try:
        folder = snapshot_download(model, revision=revision, allow_patterns=[CONFIG, *WEIGHTS, *PREPARATION[modality]])
    except HFValidationError as error:
        raise InputError(
            f"{keys}: {model!r} is not the id of a hub model, expected owner/name", "a folder needs no revision"
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(f"{keys}: the hub's model {model} has no commit {revision}", "correct it") from error
    except RepositoryNotFoundError as error:  # or a gated one
        raise InputError(
            f"{keys}: the hub has no model {model!r}, or does not give it to you",
            "correct the id, or log in with `hf auth login`",
        ) from error
    except Exception as error:  # of several HTTP libraries
        raise BackendError(
            f"{keys}: {model} cannot be fetched from the Hugging Face hub ({first_line(error)})",
            "check the network, or give a local folder",
        ) from error
    return Path(folder)

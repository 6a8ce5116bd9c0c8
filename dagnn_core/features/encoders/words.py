"""The text encoders `bow` and `tfidf`: words of a vocabulary learned on the training texts."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeGuard, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from dagnn_core.config.features import FeaturesConfig
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.encoders.state import STATE, read_state, write_state
from dagnn_core.features.tokens import Rule, is_unspaced, tokenize

Weighting = Literal["bow", "tfidf"]
T = TypeVar("T")


class LabelledTexts(NamedTuple):
    """Texts with their labels."""

    texts: Sequence[str]
    labels: NDArray[np.uint8]
    """[N, C]; a text without any label is unlabelled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WordEncoder:
    """Texts as vectors over a vocabulary; words outside it are passed over.

    `bow` is binary: 1 where the text has the word. `tfidf` is the word's count in the text times its idf, divided by
    the vector's Euclidean length. A text without any word of the vocabulary is the zero vector.
    """

    kind: Weighting
    vocabulary: tuple[str, ...]
    """The words, in alphabetical order, one for each dimension."""
    idf: tuple[float, ...]
    """Inverse document frequency of each word; empty for `bow`."""
    rule: Rule = "unicode"
    """How texts become words; encoders stored without it have `letters`."""

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return len(self.vocabulary)

    @classmethod
    def fit_texts(cls, train: LabelledTexts, val: LabelledTexts, config: FeaturesConfig) -> "WordEncoder":
        """Learn the vocabulary, with the weighting that `features.text` names.

        Raises:
            InputError: as `fit`.
        """
        kind: Weighting = "tfidf" if config.text == "tfidf" else "bow"
        return cls.fit(train.texts, kind=kind, min_word_count=config.min_word_count, max_words=config.max_words)

    @classmethod
    def fit(cls, texts: Sequence[str], *, kind: Weighting, min_word_count: int, max_words: int) -> "WordEncoder":
        """Learn the vocabulary, and for `tfidf` the smoothed idf(w) = ln((1 + N) / (1 + n_w)) + 1 (n_w texts have w).

        Args:
            texts: the N training texts.
            kind: how words are weighted.
            min_word_count: words in fewer texts than this are left out.
            max_words: so many of the most frequent words are kept at most; of equally frequent ones the first in the
                alphabet.

        Raises:
            InputError: no word is in enough texts.
        """
        num_texts = Counter(word for text in texts for word in set(tokenize(text)))
        frequent = sorted(
            (word for word, count in num_texts.items() if count >= min_word_count),
            key=lambda word: (-num_texts[word], word),
        )
        vocabulary = tuple(sorted(frequent[:max_words]))
        if not vocabulary:
            raise InputError(
                f"no word is in at least {min_word_count} of the {len(texts)} training texts, so the vocabulary is "
                "empty",
                unspaced_remedy(texts) or "lower features.min_word_count in params.yaml",
            )
        idf = tuple(math.log((1 + len(texts)) / (1 + num_texts[word])) + 1 for word in vocabulary)
        return cls(kind=kind, vocabulary=vocabulary, idf=idf if kind == "tfidf" else ())

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts.

        Shape:
            B texts -> [B, dim].
        """
        column = {word: index for index, word in enumerate(self.vocabulary)}
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            counts = Counter(column[word] for word in tokenize(text, self.rule) if word in column)
            if counts:
                vectors[row, list(counts)] = self._weights(counts)
        return vectors

    def _weights(self, counts: Mapping[int, int]) -> NDArray[np.float64]:
        if self.kind == "bow":
            return np.ones(len(counts))
        weights = np.array([count * self.idf[column] for column, count in counts.items()])
        normalised: NDArray[np.float64] = weights / np.linalg.norm(weights)
        return normalised

    @classmethod
    def load(cls, directory: Path) -> "WordEncoder":
        """Read what `save` wrote.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        state = read_state(directory)
        vocabulary: Any = state.get("vocabulary")
        idf: Any = state.get("idf")
        if not _is_list_of(str, vocabulary) or not vocabulary or vocabulary != sorted(set(vocabulary)):
            raise ArtifactError(f"{directory / STATE}: `vocabulary` is damaged, expected sorted words", "rebuild it")
        expected = len(vocabulary) if state["kind"] == "tfidf" else 0
        if not _is_list_of(float, idf) or len(idf) != expected:
            raise ArtifactError(f"{directory / STATE}: `idf` is damaged, expected {expected} numbers", "rebuild it")
        rule: Any = state.get("rule", "letters")
        if rule not in get_args(Rule):
            raise ArtifactError(
                f"{directory / STATE}: `rule` is {rule!r}, expected one of {', '.join(get_args(Rule))}",
                "rebuild it, or use the program that made it",
            )
        return cls(kind=state["kind"], vocabulary=tuple(vocabulary), idf=tuple(idf), rule=rule)

    def save(self, directory: Path) -> None:
        """Write the state into a directory."""
        state = {"kind": self.kind, "vocabulary": self.vocabulary, "idf": self.idf, "rule": self.rule}
        write_state(directory, state)


def unspaced_remedy(texts: Sequence[str]) -> str:
    """What to do about texts without words, where most of them put no spaces between words; else empty."""
    if 2 * sum(map(is_unspaced, texts)) <= len(texts):
        return ""
    return (
        "most of them are written without spaces between words (Chinese, Japanese, Thai ...), which a bag of words "
        "cannot cut: set features.text: huggingface in params.yaml, with a model of the language, or put spaces "
        "between the words"
    )


def _is_list_of(kind: type[T], value: object) -> TypeGuard[list[T]]:
    return isinstance(value, list) and all(isinstance(entry, kind) for entry in value)

"""The splits that files name, as the library `datasets` knows them.

`datasets` looks for a keyword between separators, in the names of folders first and then in those of files; case
matters to it and not to us. Its own splits of other names (`unsupervised`) have no place here: they are refused.
"""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from dagnn_core.data.splits import KNOWN_SPLITS, SPLIT_OF
from dagnn_core.errors import InputError

log = logging.getLogger(__name__)

_SEPARATORS = r"\-._ 0-9"
_KEYWORD = re.compile(rf"(?<![^{_SEPARATORS}])(?:{'|'.join(SPLIT_OF)})(?![^{_SEPARATORS}])", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# what tells the parts of one split from each other: numbers, digests, and what Spark and Hive add
_PART = re.compile(r"[0-9]*|of|[0-9a-f]{7,}|c[0-9]+|snappy|zstd|gz", re.IGNORECASE)


def splits_by_name(source: Path, files: Sequence[Path], *, may_differ: bool = False) -> dict[Path, str]:
    """The split of each file of a data set, by the names of the file and of its folders.

    Args:
        source: the folder of the data set.
        files: at least one.
        may_differ: whether files that name no split may have names of all kinds, as shards of several crawls have.

    Returns:
        File -> train, val or test; empty everywhere where splits are to be drawn, which is said.

    Raises:
        InputError: a file names no split or an unknown one though others name another, or there is no train or test.
    """
    # what all have in common tells no split from another
    common = Path(os.path.commonpath([path.parent for path in files]))
    splits = {path: _split_of(path, path.relative_to(common)) for path in files}
    names = set(splits.values())
    if len(names) == 1:
        unknown = {_unknown_name(path.relative_to(common)): path for path in reversed(files)} if names == {""} else {}
        if len(unknown) > 1 and not may_differ:
            listed = ", ".join(str(path.relative_to(source)) for path in sorted(unknown.values())[:3])
            raise InputError(
                f"{source}: the files {listed} have different names, but none names a split that is known",
                f"rename them or their folders to {KNOWN_SPLITS}; for one split give them one name with numbers",
            )
        what = f"all files are of one split ({names.pop()})" if "" not in names else "no file names a split"
        log.info("%s: %s, so train, val and test are drawn by val_fraction and test_fraction", source, what)
        return dict.fromkeys(files, "")
    if "" in names:
        unnamed = next(path for path, split in splits.items() if not split)
        raise InputError(
            f"{unnamed} names no split that is known, though other files do",
            f"rename it or its folder to {KNOWN_SPLITS}, or move it out of the data set",
        )
    lacking = next((split for split in ("train", "test") if split not in names), "")
    if lacking:
        raise InputError(
            f"{source} has {' and '.join(sorted(names))} but no {lacking}, expected files of train and test, and "
            "perhaps of validation",
            f"rename the files that shall be {lacking}; validation is drawn from train where it is missing",
        )
    return splits


def _split_of(path: Path, relative: PurePath) -> str:
    """train, val or test; empty where no name says it."""
    named = {split: name for name in relative.parts for split in _splits_in(name)}
    if len(named) > 1:
        (one, of_one), (other, of_other) = sorted(named.items())[:2]
        raise InputError(
            f"{path} names several splits: {one} ({of_one}) and {other} ({of_other})", "rename the file or its folder"
        )
    return next(iter(named), "")


def _splits_in(name: str) -> set[str]:
    return {SPLIT_OF[keyword.lower()] for keyword in _KEYWORD.findall(name)}


def _unknown_name(relative: PurePath) -> str:
    """A name without what tells the parts of one split from each other."""
    words = re.split(r"[-._ =]+", _UUID.sub("", str(relative.with_suffix("")).replace("/", " ")))
    names = (word.rstrip("0123456789") for word in words if not _PART.fullmatch(word))
    return " ".join(name for name in names if not _PART.fullmatch(name))

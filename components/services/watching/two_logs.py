"""Two logs side by side: of a champion and its challenger, which were asked the same, or shared the traffic."""

from collections.abc import Iterable
from dataclasses import dataclass

from scipy.stats import binomtest, fisher_exact

from components.services.watching.lines import LoggedQuery
from components.services.watching.summary import Counts
from dagnn_core.data_check.statistics import ALPHA

MAX_PAIRS = 1_000_000
"""Requests of the first log that are held in memory, to be found in the other."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a pair needs of the first log's query."""

    ids: tuple[str, ...]
    relevant: bool | None


@dataclass(kw_only=True, slots=True)
class Pairs:
    """The queries that both logs have, by the name of the request."""

    number: int = 0
    same_first: int = 0
    """Pairs with the same first result."""
    overlap: float = 0.0
    """Sum over the pairs of the share of results that both have."""
    lost: int = 0
    """Pairs where the first found something relevant, and the other did not."""
    gained: int = 0
    """The other way round."""

    def add(self, one: _Kept, other: LoggedQuery) -> None:
        """Count a pair."""
        ids = tuple(hit.id for hit in other.hits)
        self.number += 1
        self.same_first += one.ids[:1] == ids[:1]
        longest = max(len(one.ids), len(ids))
        self.overlap += len(set(one.ids) & set(ids)) / longest if longest else 1.0
        self.lost += one.relevant is True and other.relevant is False
        self.gained += one.relevant is False and other.relevant is True


@dataclass(kw_only=True, slots=True)
class TwoLogs:
    """What two logs say, the first as the measure of the other."""

    one: Counts
    other: Counts
    pairs: Pairs

    @property
    def p_value(self) -> float:
        """Probability of a difference in relevance like this one, or a larger one, where there is none.

        Of pairs by McNemar's exact test; of different queries by Fisher's exact test.
        """
        if self.pairs.number:
            changed = self.pairs.lost + self.pairs.gained
            return float(binomtest(self.pairs.lost, changed).pvalue) if changed else 1.0
        table = [[side.irrelevant, side.queries - side.irrelevant] for side in (self.one, self.other)]
        return float(fisher_exact(table).pvalue)

    @property
    def is_worse(self) -> bool:
        """Whether the other finds nothing relevant for more queries, and not by chance."""
        if self.pairs.number:
            more = self.pairs.lost > self.pairs.gained
        else:
            shares = [side.irrelevant_share or 0.0 for side in (self.one, self.other)]
            more = shares[1] > shares[0]
        return more and self.p_value < ALPHA


def compare_logs(one: Iterable[LoggedQuery], other: Iterable[LoggedQuery]) -> TwoLogs:
    """Read two logs, and pair the queries of the same request.

    Args:
        one: the champion's, say.
        other: the challenger's.
    """
    result = TwoLogs(one=Counts(), other=Counts(), pairs=Pairs())
    kept: dict[str, _Kept] = {}
    for query in one:
        result.one.add(query)
        if query.request and len(kept) < MAX_PAIRS:
            kept[query.request] = _Kept(tuple(hit.id for hit in query.hits), query.relevant)
    for query in other:
        result.other.add(query)
        if (partner := kept.pop(query.request, None)) is not None:
            result.pairs.add(partner, query)
    return result

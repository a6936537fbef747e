"""A fresh run against a stored one: what of protoseg_fast became slower than noise explains.

Times are compared as multiples of the limit measured in the same run (a plain read, or the forward
pass), so that another day on the same kind of machine compares; another kind of machine does not.
"""

from __future__ import annotations

from dataclasses import dataclass

from contenders import OURS, OURS_GUIDED, READ
from measure import Result, Row
from network import FORWARD, NETWORK_NAME

#: A change below this is noise on any machine.
LEAST = 0.15

#: How many spreads (quartile range over median) of everything involved count as noise.
SPREADS = 2.0


@dataclass(frozen=True)
class Change:
    """One row in both runs.

    Attributes:
        now, before: times the limit.
        noise: what the relative change must exceed to mean anything.
    """

    workload: str
    contender: str
    now: float
    before: float
    noise: float

    @property
    def ratio(self) -> float:
        """Above 1: slower now."""
        return self.now / self.before

    @property
    def slower(self) -> bool:
        """Slower by more than noise."""
        return self.ratio > 1 + self.noise

    @property
    def faster(self) -> bool:
        """Faster by more than noise."""
        return 1 / self.ratio > 1 + self.noise


def compare(now: Result, before: Result) -> list[Change]:
    """The rows of protoseg_fast that both runs have."""
    changes = []
    for row in now.rows:
        old = before.find(*row.key)
        if row.contender not in (OURS, OURS_GUIDED) or old is None:
            continue
        changes.append(
            Change(
                row.workload,
                row.contender,
                row.times_limit,
                old.times_limit,
                noise([row, old, _limit(now, row), _limit(before, old)]),
            )
        )
    return changes


def noise(rows: list[Row | None]) -> float:
    """Relative change that these rows' spreads could explain; they add up as squares."""
    squares = sum(row.spread**2 for row in rows if row is not None)
    return max(LEAST, SPREADS * squares**0.5)


def _limit(result: Result, row: Row) -> Row | None:
    return result.find(row.workload, FORWARD if row.workload == NETWORK_NAME else READ)

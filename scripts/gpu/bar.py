"""Whether rows reach the bar: at least half of the rate of matrix products in bfloat16 on the same card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

BAR = 0.5


class Verdict(NamedTuple):
    """The best row of a model in one kind of work.

    Attributes:
        what: "MODEL: KIND", such as "celebamask-hq: training step".
        row: name of the row with the largest share; None if none was measured.
        share: of the matrix rate in bfloat16.
    """

    what: str
    row: str | None
    share: float

    @property
    def reached(self) -> bool:
        """Whether the share reaches the bar."""
        return self.share >= BAR

    def __str__(self) -> str:
        if self.row is None:
            return f"{self.what}: no row measured"
        reached = "reached" if self.reached else "not reached"
        return f"{self.what}: {reached}, {100 * self.share:.0f} % by {self.row!r}"


def verdicts(rows: Mapping[str, Mapping[str, Any]]) -> list[Verdict]:
    """Return a verdict for each model and kind of work among the rows in bfloat16."""
    best: dict[str, Verdict] = {}
    for name, row in rows.items():
        what = name.partition(",")[0]
        if "bfloat16" not in name or ":" not in what:
            continue
        share = row.get("share")
        before = best.setdefault(what, Verdict(what, None, 0.0))
        if share is not None and share >= before.share:
            best[what] = Verdict(what, name, share)
    return list(best.values())

"""How far the index has drifted from the embedder, told for free by the candidates of each step."""

from typing import Any

NUM_FIRST = 5
"""Steps after a refresh that tell what agreement a fresh index has: dropout takes some of it."""
NEWEST_WEIGHT = 0.2
"""Weight of the newest step in the running mean."""


class Drift:
    """The fall of the rank correlation between scores in the index and fresh ones.

    It falls from what it was just after a refresh; in a rolling one, where the index gets better
    only as patches come in, from the best that it has been since.
    """

    def __init__(self, *, is_rolling: bool = False) -> None:
        self._is_rolling = is_rolling
        self._first: list[float] = []
        self._now = self._best = 1.0

    @property
    def fall(self) -> float:
        """How far the agreement has fallen since the last refresh."""
        if len(self._first) < NUM_FIRST:
            return 0.0
        return max(0.0, self._best - self._now)

    def observe(self, rank_correlation: float) -> None:
        """Take one step's mean rank correlation in."""
        if len(self._first) < NUM_FIRST:
            self._first.append(rank_correlation)
            self._now = self._best = sum(self._first) / len(self._first)
            return
        self._now += NEWEST_WEIGHT * (rank_correlation - self._now)
        if self._is_rolling:
            self._best = max(self._best, self._now)

    def restart(self) -> None:
        """Begin anew after a refresh."""
        self._first, self._now, self._best = [], 1.0, 1.0

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes."""
        return {"first": list(self._first), "now": self._now, "best": self._best}

    def restore(self, values: dict[str, Any]) -> None:
        """Go on as before a kill."""
        self._first, self._now = list(values["first"]), float(values["now"])
        mean = sum(self._first) / max(1, len(self._first))
        self._best = float(values.get("best", mean))  # releases before 0.9.0 wrote none

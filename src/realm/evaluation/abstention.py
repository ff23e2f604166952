"""How well probabilities say when an answer is right: calibration, and what silence costs.

Risk is the share of wrong answers among those given, coverage the share of questions answered.
Questions are answered in falling order of probability; those with the same probability stand in
no order, so that the risk within such a group is that of the whole group's mix.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from math import floor
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

BINS = 15
COVERAGES = tuple(part / 10 for part in range(1, 11))
"""Where the report shows the risk-coverage curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abstention:
    """What probabilities are worth on a set of questions; every share is between 0 and 1."""

    is_calibrated: bool
    """Whether they are calibrated; else they are the reader's own."""
    num_questions: int
    aurc: float
    """Area under the risk-coverage curve: the mean risk over all coverages; lower is better."""
    ece: float
    """Expected calibration error, 15 bins of as equal numbers of questions as can be."""
    ece_equal_width: float
    """The same with 15 bins of equal width."""
    ece_by_chance: float
    """What `ece` would be on average, were each probability exactly right: the noise of so few
    questions."""
    risk_at_coverage: tuple[tuple[float, float], ...]
    """(coverage, risk) at 10 %, 20 %, ... 100 %."""
    min_probability: float
    """The threshold that decided; 0: everything was answered."""
    share_refused: float
    """Questions that got "no answer"."""
    share_of_right_refused: float
    """The same among those whose best guess is right; 0 where there are none."""
    accuracy_of_answered: float
    """Share of right answers among those given; 0 where none was."""

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def lines(self, width: int) -> list[str]:
        """Return the numbers as lines of plain text, shares in percent.

        Args:
            width: of the column of names.
        """
        kind = "calibrated" if self.is_calibrated else "not calibrated: the reader's own"
        risks = "  ".join(
            f"{100 * coverage:.0f}: {100 * risk:.1f}" for coverage, risk in self.risk_at_coverage
        )
        rows = [
            ("probabilities", kind),
            ("calibration error", f"{self.ece:.3f} (by chance {self.ece_by_chance:.3f})"),
            ("AURC", f"{self.aurc:.3f}"),
            ("risk at coverage", risks),
        ]
        if self.min_probability > 0:
            rows += [
                ("no answer", f"{100 * self.share_refused:.1f} (below {self.min_probability:.4g})"),
                ("... of the right", f"{100 * self.share_of_right_refused:.1f}"),
                ("right if answered", f"{100 * self.accuracy_of_answered:.1f}"),
            ]
        return [f"{name:<{width}}  {value}" for name, value in rows]


def measure_abstention(
    probabilities: Sequence[float],
    is_right: Sequence[bool],
    *,
    min_probability: float = 0.0,
    is_calibrated: bool = False,
) -> Abstention:
    """Return all numbers for one set of questions.

    Args:
        probabilities: of each question's best answer, 0 where there is none.
        is_right: whether that answer is right.
        min_probability: below it the answer was not given.
        is_calibrated: for the record.
    """
    risks = risk_curve(probabilities, is_right)
    answered = [
        right
        for probability, right in zip(probabilities, is_right, strict=True)
        if probability > 0 and probability >= min_probability
    ]
    num_right = sum(is_right)
    return Abstention(
        is_calibrated=is_calibrated,
        num_questions=len(risks),
        aurc=float(risks.mean()),
        ece=expected_calibration_error(probabilities, is_right),
        ece_equal_width=expected_calibration_error(probabilities, is_right, equal_mass=False),
        ece_by_chance=ece_by_chance(probabilities),
        risk_at_coverage=tuple((c, risk_at(risks, c)) for c in COVERAGES),
        min_probability=min_probability,
        share_refused=1 - len(answered) / len(risks),
        share_of_right_refused=1 - sum(answered) / num_right if num_right else 0.0,
        accuracy_of_answered=sum(answered) / len(answered) if answered else 0.0,
    )


def risk_curve(
    probabilities: Sequence[float], is_right: Sequence[bool]
) -> Float[np.ndarray, " questions"]:
    """Return the risk when the 1, 2, ... n most probable answers are given.

    Raises:
        ValueError: no question.
    """
    if not probabilities:
        raise ValueError("found no question, expected at least one")
    pairs = sorted(zip(probabilities, is_right, strict=True), key=lambda pair: -pair[0])
    wrong: list[float] = []
    for _, group in groupby(pairs, key=lambda pair: pair[0]):
        rights = [right for _, right in group]
        wrong += [1 - sum(rights) / len(rights)] * len(rights)
    return np.cumsum(wrong) / np.arange(1, len(wrong) + 1)


def risk_at(risks: NDArray[np.float64], coverage: float) -> float:
    """Return the risk at a coverage above 0, of the fewest answers that reach it."""
    return float(risks[max(0, int(np.ceil(coverage * len(risks) - 1e-9)) - 1)])


def expected_calibration_error(
    probabilities: Sequence[float],
    is_right: Sequence[bool],
    *,
    bins: int = BINS,
    equal_mass: bool = True,
) -> float:
    """Return the mean gap between probability and share of right answers, bins by their size.

    Args:
        probabilities: of each question's best answer, at least one.
        is_right: whether it is right.
        bins: at most the questions count.
        equal_mass: bins of as equal numbers of questions as can be, in order of probability (ties
            in the order given); else bins of equal width, of which empty ones do not count.
    """
    told = np.asarray(probabilities, dtype=np.float64)
    right = np.asarray(is_right, dtype=np.float64)
    order = np.argsort(told, kind="stable")
    if equal_mass:
        parts = np.array_split(order, min(bins, len(order)))
    else:
        numbers = np.minimum((told * bins).astype(np.int64), bins - 1)
        parts = [np.flatnonzero(numbers == number) for number in range(bins)]
    gaps = [abs(float((told[part] - right[part]).sum())) for part in parts if len(part)]
    return sum(gaps) / len(told)


def ece_by_chance(probabilities: Sequence[float], *, draws: int = 100, seed: int = 0) -> float:
    """Return the mean calibration error of answers that are right exactly as often as told.

    Args:
        probabilities: of each question's best answer, at least one.
        draws: how often right and wrong are drawn.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    drawn = random.random((draws, len(probabilities))) < np.asarray(probabilities)
    errors = [expected_calibration_error(probabilities, row.tolist()) for row in drawn]
    return float(np.mean(errors))


def choose_threshold(unanswerable: Sequence[float], refuse: float) -> float:
    """Return the least threshold below which at least a share of the unanswerable ones lie.

    The least one is what costs the fewest right answers. It has four decimals.

    Args:
        unanswerable: probabilities of answers to questions that the passages do not answer.
        refuse: share that must get "no answer", 0 to 1.
    """
    count = int(np.ceil(refuse * len(unanswerable) - 1e-9))
    if count < 1:
        return 0.0
    refused = sorted(unanswerable)[count - 1]
    return min(1.0, (floor(refused * 10_000 + 1e-9) + 1) / 10_000)  # 0.0003 x 10,000 is below 3


def share_below(probabilities: Sequence[float], threshold: float) -> float:
    """Return the share of answers that a threshold refuses; 0 where there is none."""
    return sum(p < threshold for p in probabilities) / max(1, len(probabilities))

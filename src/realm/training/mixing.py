"""Several question sets in one run, each with a weight."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from realm.errors import ConfigError
from realm.records import Question
from realm.training.sampling import is_held_out, slots_at


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionSet:
    """Questions and how often they are asked."""

    questions: Sequence[Question]
    weight: float = 1.0
    """Times that each question is asked while those of weight 1 are asked once."""

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1_000:
            raise ConfigError(f"found a set of weight {self.weight:g}, expected 0 < weight <= 1000")


def apart(sets: Sequence[QuestionSet], held_out: float) -> tuple[list[QuestionSet], list[Question]]:
    """Return (what is trained on, what is held out); where all would be held out, none is."""
    kept: list[QuestionSet] = []
    held: list[Question] = []
    for one in sets:
        is_held = [is_held_out(question.question, held_out) for question in one.questions]
        pairs = list(zip(one.questions, is_held, strict=True))
        held += [question for question, is_out in pairs if is_out]
        stay = [question for question, is_out in pairs if not is_out]
        kept.append(QuestionSet(questions=stay, weight=one.weight))
    if not any(one.questions for one in kept):
        return list(sets), []
    return kept, held


class Mixture:
    """What each step asks, as a pure function of (seed, step): a resume needs no state.

    One pass asks about `weight * len(questions)` of each set, all of them shuffled together. A set
    of weight 0.5 gives one half in one pass and the other half in the next.
    """

    def __init__(self, sets: Sequence[QuestionSet], *, seed: int) -> None:
        self.questions = [question for one in sets for question in one.questions]
        self.seed = seed
        sizes = [len(one.questions) for one in sets]
        self._slots = [
            max(1, round(one.weight * size)) if size else 0
            for one, size in zip(sets, sizes, strict=True)
        ]
        """Places that each set has in a pass."""
        self._ends = np.cumsum(self._slots)
        firsts = np.cumsum([0, *sizes[:-1]])
        self._orders = [
            first + np.random.default_rng([seed, size]).permutation(size)
            for first, size in zip(firsts.tolist(), sizes, strict=True)
        ]
        """In which order a set's questions take its places, where it has more or fewer."""

    def at(self, step: int, batch_size: int) -> list[int]:
        """Return the numbers (in `questions`) of one step, none twice."""
        slots = slots_at(step, num_items=int(self._ends[-1]), batch_size=batch_size, seed=self.seed)
        return list(dict.fromkeys(self._question(*slot) for slot in slots))

    def _question(self, epoch: int, slot: int) -> int:
        part = int(np.searchsorted(self._ends, slot, side="right"))
        slots, order = self._slots[part], self._orders[part]
        place = slot - int(self._ends[part]) + slots
        return int(order[(epoch * slots + place) % len(order)])

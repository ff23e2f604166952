"""Numbers of several batches, or of several ranks' parts of one, taken together."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from realm.ranks import Ranks

T = TypeVar("T")


def mean(parts: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Return the means of several (count, measures); `tokens` are no mean, and left out.

    What some measures lack, for want of anything that it could be measured on, is 0 in them: a loss
    is a mean over all questions, and those that teach nothing add nothing to it.
    """
    total = sum(count for count, _ in parts)
    names = dict.fromkeys(name for _, part in parts for name in part if name != "tokens")
    return {
        name: sum(count * part.get(name, 0.0) for count, part in parts) / total for name in names
    }


def over_ranks(ranks: Ranks, count: int, measured: Mapping[str, float]) -> Mapping[str, float]:
    """Return the measures of what all ranks hold together, `tokens` added up.

    Args:
        ranks: all call this together.
        count: how many items this rank has; 0: it has measured nothing.
        measured: means over its items, and `tokens`.
    """
    if not ranks.are_several:
        return measured
    parts = ranks.gather_values((count, measured))
    having = [(count, part) for count, part in parts if count]
    return {**mean(having), "tokens": sum(part["tokens"] for _, part in having)}


def over_batches(
    items: Sequence[T], size: int, measure: Callable[[Sequence[T]], Mapping[str, float]]
) -> dict[str, float]:
    """Return the means over all items, measured a batch at a time; {} where there are none."""
    batches = [items[first : first + size] for first in range(0, len(items), size)]
    measured = [(len(batch), measure(batch)) for batch in batches]
    return {f"eval/{name}": value for name, value in mean(measured).items()} if measured else {}

"""Examples of a batch -> groups that go through one backward pass each."""

from collections.abc import Sequence


def pack(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Return consecutive indices in groups whose sizes sum to at most `limit`.

    One that is larger than the limit stands alone.
    """
    groups: list[list[int]] = []
    held = 0
    for number, size in enumerate(sizes):
        if not groups or held + size > limit:
            groups.append([])
            held = 0
        groups[-1].append(number)
        held += size
    return groups


def pack_largest_first(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Return indices, largest first, in groups whose sizes sum to at most `limit`."""
    order = sorted(range(len(sizes)), key=lambda number: -sizes[number])
    groups = pack([sizes[number] for number in order], limit)
    return [[order[place] for place in group] for group in groups]

"""Questions of a batch -> groups that go through one backward pass each."""

from collections.abc import Sequence

from realm.model.inputs import in_packs


def pack_largest_first(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Return indices, largest first, in groups whose sizes sum to at most `limit`."""
    order = sorted(range(len(sizes)), key=lambda number: -sizes[number])
    groups = in_packs([sizes[number] for number in order], limit)
    return [[order[place] for place in group] for group in groups]

"""Groups under a limit, the largest first."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from realm.training.packing import pack_largest_first


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 50))
def test_groups_are_full_and_the_largest_come_first(sizes: list[int], limit: int) -> None:
    groups = pack_largest_first(sizes, limit)
    order = [number for group in groups for number in group]
    assert sorted(order) == list(range(len(sizes)))
    assert [sizes[number] for number in order] == sorted(sizes, reverse=True)
    for group in groups:
        assert len(group) == 1 or sum(sizes[number] for number in group) <= limit
    for group, after in itertools.pairwise(groups):
        assert sum(sizes[number] for number in group) + sizes[after[0]] > limit

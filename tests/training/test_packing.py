"""Groups under a limit, in order."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from realm.training.packing import pack


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 50))
def test_groups_are_consecutive_and_under_the_limit_where_they_can_be(
    sizes: list[int], limit: int
) -> None:
    groups = pack(sizes, limit)
    assert [number for group in groups for number in group] == list(range(len(sizes)))
    for group in groups:
        assert len(group) == 1 or sum(sizes[number] for number in group) <= limit
    for group, after in itertools.pairwise(groups):
        assert sum(sizes[number] for number in group) + sizes[after[0]] > limit

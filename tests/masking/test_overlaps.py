"""Spans of several sources made sorted and disjoint."""

import time
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from realm.masking.overlaps import merge, tidy
from realm.records import SalientSpan

TEXT = "ab  cd ef\ngh " * 3
SPANS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 8)).map(
        lambda edges: SalientSpan(start=edges[0], end=edges[0] + edges[1], label="X")
    ),
    max_size=12,
)


def is_clean(spans: list[SalientSpan]) -> bool:
    return all(left.end <= right.start for left, right in pairwise(spans))


def test_the_longest_of_overlapping_spans_is_kept_and_white_space_trimmed() -> None:
    spans = [
        SalientSpan(start=0, end=3, label="A"),
        SalientSpan(start=1, end=6, label="B"),
        SalientSpan(start=6, end=10, label="C"),
        SalientSpan(start=2, end=4, label="blank"),
    ]
    assert [(s.start, s.end, s.label) for s in tidy(spans, TEXT)] == [(1, 6, "B"), (7, 9, "C")]


@settings(deadline=None)
@given(SPANS)
def test_tidy_spans_are_sorted_disjoint_and_not_blank(spans: list[SalientSpan]) -> None:
    tidied = tidy(spans, TEXT)
    assert is_clean(tidied)
    assert all(TEXT[s.start : s.end] == TEXT[s.start : s.end].strip() != "" for s in tidied)


@settings(deadline=None)
@given(SPANS, SPANS)
def test_the_first_source_wins_where_two_overlap(
    first: list[SalientSpan], second: list[SalientSpan]
) -> None:
    first, second = tidy(first, TEXT), tidy(second, TEXT)
    merged = merge(first, second)
    assert is_clean(merged)
    assert all(span in merged for span in first)
    for span in second:
        free = all(span.end <= other.start or span.start >= other.end for other in first)
        assert (span in merged) == (free or span in first)


def test_many_spans_take_time_in_proportion() -> None:
    """A line of a megabyte holds a hundred thousand: looked up, not compared one with another."""
    spans = [SalientSpan(start=n, end=n + 1, label="A") for n in range(100_000)]
    began = time.process_time()
    assert len(tidy(spans, "x" * 100_000)) == 100_000
    assert time.process_time() - began < 20

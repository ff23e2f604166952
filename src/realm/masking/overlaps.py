"""Spans of several sources made sorted and disjoint."""

from bisect import bisect_right

from realm.records import SalientSpan


def tidy(spans: list[SalientSpan], text: str) -> list[SalientSpan]:
    """Return the spans sorted, white space trimmed, and of overlapping ones the longest."""
    kept: list[SalientSpan] = []  # in order, disjoint
    for span in sorted(spans, key=lambda s: (s.start - s.end, s.start)):
        start, end = span.start, span.end
        while start < end and text[start].isspace():
            start += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        at = bisect_right(kept, start, key=lambda s: s.start)
        clear_left = at == 0 or kept[at - 1].end <= start
        clear_right = at == len(kept) or kept[at].start >= end
        if start < end and clear_left and clear_right:
            kept.insert(at, SalientSpan(start=start, end=end, label=span.label))
    return kept


def merge(first: list[SalientSpan], second: list[SalientSpan]) -> list[SalientSpan]:
    """Return all spans of `first` and those of `second` that overlap none of them, in order.

    Args:
        first: Sorted and disjoint.
        second: Sorted and disjoint.
    """
    starts = [span.start for span in first]
    free: list[SalientSpan] = []
    for span in second:
        after = bisect_right(starts, span.start)
        clear_left = after == 0 or first[after - 1].end <= span.start
        clear_right = after == len(first) or first[after].start >= span.end
        if clear_left and clear_right:
            free.append(span)
    return sorted([*first, *free], key=lambda span: span.start)

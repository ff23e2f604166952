"""Numbers as people read them, and texts of others that do nothing but be read."""

import re

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]|\r(?!\n)")
"""What moves a cursor, colours, renames a window, or turns the order of letters round; not the tab
and the end of a line."""
DAY = 86_400.0
_ROUND = 0.9995
"""From here on three digits make it 1: of 999.7 GB 1 TB, where Python says 1e+03 GB."""


def size(num_bytes: float) -> str:
    """Return bytes as people read them: 3.42 GB (1e9 bytes)."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= _ROUND * scale:
            return f"{digits(num_bytes / scale)} {unit}"
    return f"{num_bytes:.0f} bytes"


def duration(seconds: float) -> str:
    """Return seconds as people read them: 2.3 days, 4.1 h, 12 min, 8.2 s, 31 ms."""
    for unit, scale in (("years", 365 * DAY), ("days", DAY), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * scale:
            return f"{digits(seconds / scale)} {unit}"
    return f"{digits(seconds)} s" if seconds >= _ROUND else f"{digits(seconds * 1e3)} ms"


def counted(number: int, noun: str) -> str:
    """Return a number with what it counts: 1 passage, 2,340 passages.

    Args:
        number: how many.
        noun: of one; of several it has an s behind it.
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def digits(value: float, sign: str = "") -> str:
    """Return a number with three digits that count, or all before the point: 0.0123, 999, 1,234.

    Args:
        value: the number.
        sign: "+" to have it before what is not negative.
    """
    return f"{value:{sign},.0f}" if abs(value) >= _ROUND * 1_000 else f"{value:{sign}.3g}"


def as_probability(value: float) -> str:
    """Return a probability as people read it: 0.129, 1.1e-14."""
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def as_cell(text: str) -> str:
    """Return a text as it stands in a cell of a Markdown table: on one line, | written out."""
    return text.replace("|", "\\|").replace("\n", " ")


def visible(text: str) -> str:
    """Return a text of somebody else whose control characters are written out, as JSON does.

    A terminal would obey them: a document could clear the screen or forge what stands on it.

    Args:
        text: anything.

    Returns:
        The same with an escape for each control character but tabs and ends of lines.
    """
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)

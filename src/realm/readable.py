"""Numbers as people read them."""

DAY = 86_400.0


def size(num_bytes: float) -> str:
    """Return bytes as people read them: 3.42 GB (1e9 bytes)."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.3g} {unit}"
    return f"{num_bytes:.0f} bytes"


def duration(seconds: float) -> str:
    """Return seconds as people read them: 2.3 days, 4.1 h, 12 min, 8.2 s, 31 ms."""
    for unit, scale in (("years", 365 * DAY), ("days", DAY), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * scale:
            return f"{seconds / scale:,.3g} {unit}"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def as_probability(value: float) -> str:
    """Return a probability as people read it: 0.129, 1.1e-14."""
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"

"""Numbers as people read them."""

from realm.readable import duration
from realm.reporting.panels import Unit

MINUS = "\N{MINUS SIGN}"
TINY_SHARE = 0.001
"""Below it a share gets as many digits as it needs."""


def number(value: float, unit: Unit = "number") -> str:
    """Return a value with its unit: 54.8 %, 1.54, 31, 2.5 s."""
    match unit:
        case "share":
            is_tiny = 0 < value < TINY_SHARE
            told = f"{100 * value:.1g} %" if is_tiny else f"{100 * value:.1f} %"
        case "nats":
            told = f"{value:.2f}"
        case "steps":
            told = f"{value:,.0f}"
        case "seconds":
            told = duration(value)
        case _:
            told = f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
    return told.replace("-", MINUS)


def change(value: float, unit: Unit = "number") -> str:
    """Return a difference with its sign; of shares in percentage points."""
    told = f"{100 * value:+.1f}" if unit == "share" else f"{value:+.3g}"
    if unit == "nats":
        told = f"{value:+.2f}"
    return told.replace("-", MINUS)

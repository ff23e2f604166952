"""Numbers as people read them."""

from realm.readable import digits, duration
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
            told = digits(value)
    return told.replace("-", MINUS)


def change(value: float, unit: Unit = "number") -> str:
    """Return a difference with its sign; of shares in percentage points."""
    match unit:
        case "share":
            told = f"{100 * value:+.1f}"
        case "nats":
            told = f"{value:+.2f}"
        case _:
            told = digits(value, "+")
    return told.replace("-", MINUS)

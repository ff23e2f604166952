"""A target: one function that takes bytes, and may refuse them only with our own errors."""

import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from realm.errors import RealmError

MAX_CPU_SECONDS = 10.0
"""Of one input of at most `Target.max_bytes`; on a quick machine none takes a second."""
MAX_GROWTH_BYTES = 512 << 20
"""How much more memory one input may need than all before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One way in."""

    name: str
    take: Callable[[bytes], None]
    """Reads an input whole and checks what it gave; raises a RealmError to refuse it."""
    seeds: Callable[[], list[bytes]]
    """Inputs that are right, or nearly: where a search begins."""
    max_bytes: int = 1 << 16


class FindingError(Exception):
    """An input that broke something: another error than ours, too long, or too much memory."""

    def __init__(self, target: str, data: bytes, what: str) -> None:
        self.target, self.data, self.what = target, data, what
        super().__init__(f"{target}: {what}; input of {len(data):,} bytes: {data[:120]!r}")


def attack(target: Target, data: bytes) -> bool:
    """Give a target one input; return whether it took it, False: it was refused as it should.

    Raises:
        FindingError: it did neither.
    """
    began, peak = time.process_time(), _peak_bytes()
    try:
        target.take(data)
        is_taken = True
    except RealmError as error:
        is_taken = False
        _check_message(target, data, error)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__} at {where.name}:{where.lineno}: {str(error)[:200]!a}"
        raise FindingError(target.name, data, what) from error
    seconds, grown = time.process_time() - began, _peak_bytes() - peak
    if seconds > MAX_CPU_SECONDS:
        raise FindingError(target.name, data, f"took {seconds:.1f} s")
    if grown > MAX_GROWTH_BYTES:
        raise FindingError(target.name, data, f"took {grown >> 20:,} MiB more memory")
    return is_taken


def _check_message(target: Target, data: bytes, error: RealmError) -> None:
    """Refuse a message that no terminal can show, or that repeats a whole file."""
    message = str(error)
    try:
        message.encode()
    except UnicodeEncodeError:
        raise FindingError(target.name, data, f"a message of no Unicode: {message!a}") from error
    if not message.strip() or len(message) > 20_000:
        raise FindingError(target.name, data, f"a message of {len(message):,} characters")


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

"""Bodies of requests: how long, how slow, and how much of all of them is in memory at once."""

import asyncio
import time

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from realm.serving.refusals import BodyRefusedError, RefusedError, client_left
from realm.serving.settings import Limits

MAX_DIGITS = 20
"""Of a body's length; Python refuses to read a number of thousands."""
FREE_BYTES = 1 << 16
"""Of each body, which stand beside what all of them may take: questions are let in always."""


class Bodies:
    """Counts what all requests that are being served have brought."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.most_held = limits.uploads_at_once * limits.upload_bytes
        self.held = 0
        """Bytes."""


class Body:
    """The body of one request, read within limits; a context that gives back what it holds."""

    def __init__(self, receive: Receive, bodies: Bodies, *, most: int) -> None:
        """Prepare.

        Args:
            receive: gives the body's pieces.
            bodies: all of them.
            most: bytes.
        """
        self._receive, self._bodies, self._most = receive, bodies, most
        self._seen = 0
        self._waited = 0.0
        """Seconds, for all pieces so far."""
        self._held = 0
        self._is_whole = False

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *_: object) -> None:
        self._bodies.held -= self._held
        self._held = 0

    async def take(self) -> Message:
        """Return what comes next.

        Raises:
            BodyRefusedError: it is too long or too slow, there is no room for it now, or the client
                has left in the midst of it.
        """
        if self._is_whole:  # nothing comes any more but the end of the connection
            return await self._receive()
        message = await self._in_time()
        if message["type"] == "http.disconnect":
            raise BodyRefusedError(client_left())
        self._seen += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        if self._seen > self._most:
            raise BodyRefusedError(_too_long(self._seen, self._most))
        self._hold(max(0, self._seen - FREE_BYTES))
        return message

    async def _in_time(self) -> Message:
        """Wait for a piece, at most so long that the body keeps the slowest pace."""
        limits = self._bodies.limits
        in_all = limits.body_seconds + self._seen / limits.bytes_per_second
        began = time.monotonic()
        try:
            async with asyncio.timeout(min(limits.body_seconds, in_all - self._waited)):
                return await self._receive()
        except TimeoutError:
            seconds = self._waited + time.monotonic() - began
            raise BodyRefusedError(_too_slow(self._seen, seconds)) from None
        finally:
            self._waited += time.monotonic() - began

    def _hold(self, size: int) -> None:
        bodies = self._bodies
        if bodies.held + size - self._held > bodies.most_held:
            raise BodyRefusedError(_no_room(bodies.most_held))
        bodies.held += size - self._held
        self._held = size


def check_length(headers: Headers, most: int) -> None:
    """Refuse a body that says itself that it is too long.

    Raises:
        RefusedError: it does.
    """
    told = headers.get("content-length", "0")
    length = int(told[:MAX_DIGITS]) if told.isascii() and told.isdecimal() else 0
    if length > most:
        raise _too_long(length, most)


def _too_long(length: int, most: int) -> RefusedError:
    return RefusedError(
        413,
        "body_too_large",
        f"found a body of at least {length:,} bytes, expected at most {most:,}; send less at once",
        headers={"Connection": "close"},
    )


def _too_slow(size: int, seconds: float) -> RefusedError:
    return RefusedError(
        408,
        "body_too_slow",
        f"found {size:,} bytes of the body in {seconds:.1f} s; send it at once",
        headers={"Connection": "close"},
    )


def _no_room(most: int) -> RefusedError:
    return RefusedError(
        503,
        "server_full",
        f"found uploads of {most >> 20:,} MiB in all that are being read already; send this one "
        "again in a few seconds",
        headers={"Retry-After": "5", "Connection": "close"},
    )

"""Connections that nobody holds for nothing: deadlines, and a bounded number.

uvicorn closes a connection that has been idle after a response. It waits without end for the first
request, for the rest of a head that comes byte by byte, for the rest of a body that was refused,
and for a client that does not read. Here each of them ends, and where the server is full the client
with the most connections loses the one that has brought nothing for the longest time.
"""

import asyncio
import json
import logging
import resource
import time
from collections.abc import Callable
from typing import Any

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from realm.serving.gate import Buckets
from realm.serving.settings import Limits

OTHER_FILES = 256
"""Open files left to everything that is no connection: indexes, libraries, the log."""
_HEADERS = b"Content-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\n" + _HEADERS + b'{"error": {"code": "server_full", '
    b'"message": "every connection that the server has is being answered; ask again in a second"}}'
)
TOO_MANY = (
    b"HTTP/1.1 429 Too Many Requests\r\n" + _HEADERS + b'{"error": {"code": "too_many_requests", '
    b'"message": "found too many new connections a second from one client; keep one, or wait"}}'
)
"""Told before anything is read: that is what makes it cheap."""


class Connections:
    """All connections of a server, by client."""

    def __init__(
        self,
        limits: Limits,
        *,
        backlog: int = 0,
        is_behind_proxy: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with none.

        Args:
            limits: how many, and how long each may bring or take nothing.
            backlog: connections that may be accepted at once, before any is let go.
            is_behind_proxy: all connections come from one place, for many clients.
            clock: seconds.
        """
        self.limits, self.clock = limits, clock
        self._arrivals: Buckets | None = None
        """New connections of each client, which come no faster than its requests may."""
        if not is_behind_proxy:
            self._arrivals = Buckets(
                rate=limits.requests_per_second, burst=limits.burst, clock=clock
            )
        self.most = _affordable(limits.max_connections, backlog)
        self._of: dict[str, dict[Connection, None]] = {}
        """Of each client, the one first that has waited longest."""

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def enter(self, connection: "Connection") -> bytes:
        """Take a new connection in, in place of another one where all are taken.

        Args:
            connection: just made.

        Returns:
            What it is told before it is closed; nothing: it is taken in.
        """
        if self._arrivals is not None and self._arrivals.wait_seconds(connection.address):
            return TOO_MANY
        if len(self) >= self.most and not self._make_room():
            return FULL
        self._of.setdefault(connection.address, {})[connection] = None
        return b""

    def leave(self, connection: "Connection") -> None:
        """Forget a connection; nothing happens where it is forgotten already."""
        of_client = self._of.get(connection.address, {})
        of_client.pop(connection, None)
        if not of_client:
            self._of.pop(connection.address, None)

    def wait(self, connection: "Connection") -> None:
        """Note that from now on a connection is waited for."""
        of_client = self._of.get(connection.address, {})
        if connection in of_client:
            del of_client[connection]
            of_client[connection] = None

    def sweep(self) -> None:
        """Let go of those whose time is over."""
        now = self.clock()
        for of_client in list(self._of.values()):
            for connection in list(of_client):
                if connection.is_overdue(now):
                    connection.drop()

    def drop_waited_for(self) -> None:
        """Let go of all whose client is to do something; what is being answered goes on."""
        for of_client in list(self._of.values()):
            for connection in list(of_client):
                if connection.is_waited_for():
                    connection.drop()

    def _make_room(self) -> bool:
        for of_client in sorted(self._of.values(), key=len, reverse=True):
            for connection in of_client:
                if connection.is_waited_for():
                    connection.drop()
                    return True
        return False


class Connection(H11Protocol):
    """One connection, which has to bring a request, and to take its response."""

    def __init__(
        self,
        config: Config,
        server_state: Any,  # noqa: ANN401 - uvicorn's
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        connections: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = _log
        self.all = connections
        self.address = ""
        self._since = connections.clock()
        """When the last response was out, or the connection was made."""
        self._unsent: tuple[float, int] | None = None
        """(when, bytes that the client had not taken then)."""

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - asyncio's
        """Begin, or end at once where there is no room for it."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        if told := self.all.enter(self):
            transport.write(told)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self.all.leave(self)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._since = self.all.clock()
        self.all.wait(self)
        super().on_response_complete()

    def is_waited_for(self) -> bool:
        """Return whether the client is to do something: bring a request, or take a response."""
        is_served = self._cycle is not None and not self._cycle.response_complete
        return not is_served or self.cycle.more_body or self._num_unsent() > 0

    def is_overdue(self, now: float) -> bool:
        """Return whether the client has had its time.

        Args:
            now: of the clock of all connections.

        Returns:
            Whether no whole head, with all that was left of a refused body before it, came in
            `head_seconds`, or less was taken of a response than `bytes_per_second`.
        """
        limits = self.all.limits
        is_served = self._cycle is not None and not self._cycle.response_complete
        if not is_served and not self._num_unsent() and now - self._since > limits.head_seconds:
            return True
        return self._is_stuck(now)

    def drop(self) -> None:
        """End now; what the client has not taken is lost."""
        self.all.leave(self)
        self.transport.abort()

    def shutdown(self) -> None:
        """Close once nothing is in flight: the server stops."""
        try:
            super().shutdown()
        except h11.LocalProtocolError:  # in the midst of an error: there is nothing to finish
            self.drop()

    def send_400_response(self, msg: str) -> None:
        """Tell that a request is none, in the shape of all errors.

        Args:
            msg: uvicorn's.
        """
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            self.drop()  # half a response is out
            return
        told = {
            "error": {"code": "bad_request", "message": f"{msg} Expected HTTP/1.1, in whole lines"}
        }
        headers = [("content-type", "application/json"), ("connection", "close")]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=json.dumps(told).encode()),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        if self._cycle is not None:  # its body was broken off
            self._cycle.disconnected = True
            self._cycle.message_event.set()
        self.transport.close()

    @property
    def _cycle(self) -> RequestResponseCycle | None:
        """The newest request; None: there was none yet."""
        return self.cycle

    def _is_stuck(self, now: float) -> bool:
        """Return whether the client took too little since the last look but one."""
        size, before = self._num_unsent(), self._unsent
        if not size:
            self._unsent = None
            return False
        if before is None or size > before[1]:
            self._unsent = now, size
            return False
        seconds = now - before[0]
        if seconds < self.all.limits.take_seconds:
            return False
        self._unsent = now, size
        return before[1] - size < seconds * self.all.limits.bytes_per_second

    def _num_unsent(self) -> int:
        return int(self.transport.get_write_buffer_size())


class _Thinned(logging.Filter):
    """Lets a warning pass once a second: whoever sends rubbish does not fill the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is written."""
        if record.levelno > logging.WARNING:
            return True
        message, now = str(record.msg), time.monotonic()
        is_written = now - self._last.get(message, -1.0) >= 1.0
        if is_written:
            self._last[message] = now
        return is_written


_log = logging.getLogger("uvicorn.error.connections")
_log.addFilter(_Thinned())


def _affordable(most: int, backlog: int) -> int:
    """Return how many connections leave enough open files for the rest."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return most
    return max(8, min(most, allowed - OTHER_FILES - backlog))

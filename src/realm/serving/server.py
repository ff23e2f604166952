"""Running the application: a free port, and a graceful stop."""

import asyncio
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI

from realm.errors import ConfigError
from realm.serving.connections import Connection, Connections
from realm.serving.service import Service

BACKLOG = 256
"""Connections that the system keeps until they are accepted, and that are accepted at once."""
SEND_BUFFER_BYTES = 1 << 18
"""Of a response, in the system's memory: what a client does not take is seen soon."""
TICKS_A_SECOND = 10
"""Of uvicorn's main loop."""
LONGEST_STOP_SECONDS = 5
"""For the rest of requests that have not come whole, and then for connections that stay open."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound, not yet listening: before a model is loaded in vain.

    Args:
        host: a name or address of this machine.
        port: 0: any free one.

    Raises:
        ConfigError: the port is taken, or not to be had.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, number)
    except OSError as error:
        raise ConfigError(
            f"found no address for the host {host!r} ({error.strerror or error}), expected a name "
            "or address of this machine: --host 127.0.0.1"
        ) from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ConfigError(
            f"port {port} of {host} cannot be had ({error.strerror or error}); expected a free "
            f"one: stop what listens there, or --port {port + 1 if port < 65535 else 0} (0: any)"
        ) from None
    return bound


def address_of(bound: socket.socket) -> str:
    """Return a bound socket's address as a browser takes it."""
    host, port = bound.getsockname()[:2]
    host = str(host)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - any: this one too
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(server: uvicorn.Server, bound: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; what is in flight then is finished, what comes is refused.

    Args:
        server: from `make_server`.
        bound: from `bind`.
    """
    asyncio.run(server.serve(sockets=[bound]))


def make_server(
    app: FastAPI,
    service: Service,
    *,
    trusted_proxies: str | None = None,
    access_log: bool = False,
    on_ready: Callable[[], None] = lambda: None,
) -> uvicorn.Server:
    """Return what runs an application.

    Args:
        app: from `build_app`.
        service: what it is built around.
        trusted_proxies: addresses, with commas, whose X-Forwarded-For names the client; None:
            nobody's.
        access_log: write a line for each request.
        on_ready: called once the server listens.
    """
    connections = Connections(
        service.limits, backlog=BACKLOG, is_behind_proxy=trusted_proxies is not None
    )
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(Connection, connections=connections)),
        log_level="info" if access_log else "warning",
        access_log=access_log,
        server_header=False,
        proxy_headers=trusted_proxies is not None,
        forwarded_allow_ips=trusted_proxies,
        timeout_graceful_shutdown=LONGEST_STOP_SECONDS,
        backlog=BACKLOG,
        ws="none",
    )
    return _Server(config, service, on_ready, connections)


class _Server(uvicorn.Server):
    """Stops in two steps: first it refuses, and finishes what is in flight; then it closes."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        on_ready: Callable[[], None],
        connections: Connections,
    ) -> None:
        super().__init__(config)
        self.connections = connections
        self._service, self._on_ready = service, on_ready
        self._stopping: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        if not self.should_exit:
            self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        """Look after the connections each second; return whether it is time to end."""
        if counter % TICKS_A_SECOND == 0:
            self.connections.sweep()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second Ctrl-C waits for nothing."""
        del frame
        if self._service.is_stopping or self._loop is None:
            self._service.give_up()
            self.should_exit = True
            self.force_exit = sig == signal.SIGINT
            return
        self._service.is_stopping = True
        self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        self._stopping = asyncio.ensure_future(self._exit_when_done())

    async def _exit_when_done(self) -> None:
        """Close once nothing is in flight, or after the longest wait.

        A request that has not come whole soon is not waited for: it can be sent again.
        """
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._service.limits.graceful_seconds):
                while self.server_state.tasks:
                    if time.monotonic() - began > LONGEST_STOP_SECONDS:
                        self.connections.drop_waited_for()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            self._service.give_up()
        self.should_exit = True

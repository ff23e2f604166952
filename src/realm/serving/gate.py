"""What every request passes: counting, headers, errors, and who may come in with how much.

Plain ASGI, so that a body is never held in memory to be looked at, and a response is passed on as
it comes.
"""

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from realm.serving.bodies import Bodies, Body, check_length
from realm.serving.cors import is_preflight
from realm.serving.metrics import Metrics
from realm.serving.refusals import RefusedError, unexpected
from realm.serving.settings import Access, Limits

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
ALWAYS_OPEN = ("/healthz",)
"""Without a token."""
OPEN_TIMES = 10
"""As many requests as usual for what is open: a load balancer's, preflights, the page's files."""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
MAX_CLIENTS = 10_000
"""Whose buckets are remembered; the longest unseen are forgotten first."""


class Recorder:
    """The outermost: counts, and adds headers."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        self.metrics.in_flight.inc()
        try:
            await self.app(scope, receive, tell)
        finally:
            self.metrics.in_flight.dec()
            seconds = time.perf_counter() - began
            self.metrics.record(scope["method"], _endpoint(scope), status, seconds)


def _endpoint(scope: Scope) -> str:
    """Return the route that served a request, never its own path: those are without number."""
    return str(getattr(scope.get("route"), "path", "other"))


class Refuser:
    """Around the gate and the routes: turns what went wrong into JSON."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def tell(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, tell)
        except RefusedError as error:
            await error.response()(scope, receive, send)
        except Exception as error:
            if has_begun:  # half a response is out: the connection breaks off
                raise
            await unexpected(error, scope["path"]).response()(scope, receive, send)


class Gate:
    """Refuses what may not come in: by name, page, token, rate, and length of the body."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        access: Access,
        limits: Limits,
        is_stopping: Callable[[], bool],
        open_paths: tuple[str, ...] = (),
    ) -> None:
        self.app, self.access, self.limits = app, access, limits
        self.hosts = {_host_name(host) for host in access.hosts} - {""}
        self.is_stopping = is_stopping
        self.open_paths = (*ALWAYS_OPEN, *open_paths)
        self.bodies = Bodies(limits)
        self.buckets = Buckets(rate=limits.requests_per_second, burst=limits.burst)
        self.open_buckets = Buckets(
            rate=OPEN_TIMES * limits.requests_per_second, burst=OPEN_TIMES * limits.burst
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request.

        Raises:
            RefusedError: it may not come in.
        """
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if self.is_stopping():
            raise RefusedError(
                503,
                "stopping",
                "the server is stopping, and finishes only what is in flight; ask again later",
                headers={"Retry-After": "5", "Connection": "close"},
            )
        self._check_host(headers)
        self._check_origin(scope, headers)
        if self._is_open(scope):
            _check_rate(scope, self.open_buckets)
        else:
            _check_rate(scope, self.buckets)
            self._check_token(headers)
        most = self._most_bytes(scope)
        check_length(headers, most)
        with Body(receive, self.bodies, most=most) as body:
            await self.app(scope, body.take, send)

    def _is_open(self, scope: Scope) -> bool:
        """Return whether a request is cheap, and needs no token."""
        if self.access.origins and is_preflight(scope):  # a browser sends no token with it
            return True
        return scope["path"] in self.open_paths  # the page's own files are many, and in memory

    def _check_host(self, headers: Headers) -> None:
        name = _host_name(headers.get("host", ""))
        if "*" not in self.hosts and name not in self.hosts:
            raise RefusedError(
                400,
                "host_refused",
                f"found the host {name[:80]!a}, expected one of "
                f"{', '.join(self.access.hosts)}; start the server with --allow-host to add one",
            )

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        """Refuse that another web page changes or asks something in a visitor's name."""
        origin = headers.get("origin")
        if origin is None or scope["method"] in SAFE_METHODS:
            return
        if _place_of(origin) != headers.get("host") and not {"*", origin} & set(
            self.access.origins
        ):
            raise RefusedError(
                403,
                "origin_refused",
                f"found a request from the page {origin[:80]!a}, expected this server's own; "
                "start the server with --cors ORIGIN to let another one ask",
            )

    def _check_token(self, headers: Headers) -> None:
        if self.access.token is None:
            return
        kind, _, told = headers.get("authorization", "").partition(" ")
        is_right = hmac.compare_digest(told.strip().encode(), self.access.token.encode())
        if kind.lower() != "bearer" or not is_right:
            found = "another token" if told else "no token"
            raise RefusedError(
                401,
                "token_refused",
                f"found {found}, expected the server's: Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _most_bytes(self, scope: Scope) -> int:
        brings_documents = scope["path"] == "/documents" and scope["method"] == "POST"
        return self.limits.upload_bytes if brings_documents else self.limits.body_bytes


class Buckets:
    """A token bucket for each client: `burst` requests at once, `rate` a second for long."""

    def __init__(
        self, *, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """(requests left, when that was) of each client, the longest unseen first."""

    def wait_seconds(self, client: str) -> float:
        """Take one request from a client's bucket; return 0, or how long until there is one."""
        now = self.clock()
        left, before = self._buckets.pop(client, (float(self.burst), now))
        left = min(float(self.burst), left + (now - before) * self.rate)
        is_empty = left < 1.0
        self._buckets[client] = (left if is_empty else left - 1.0, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return (1.0 - left) / self.rate if is_empty else 0.0


def client_of(scope: Scope) -> str:
    """Return the address of whoever sent a request; behind a proxy, as that says it."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _check_rate(scope: Scope, buckets: Buckets) -> None:
    """Refuse a request too many; the connection ends, with all that was sent ahead on it."""
    seconds = buckets.wait_seconds(client_of(scope))
    if seconds:
        raise RefusedError(
            429,
            "too_many_requests",
            f"found more than {buckets.rate:g} requests a second from one client; "
            f"wait {seconds:.1f} s",
            headers={"Retry-After": str(max(1, round(seconds + 0.5))), "Connection": "close"},
        )


def _host_name(host: str) -> str:
    """Return the name in a Host header, or in a setting, as the two are compared.

    Args:
        host: a name or an address, with a port or without.

    Returns:
        It in small letters, without port, brackets and a dot at its end; "": it cannot be read.
    """
    if host.count(":") > 1 and "[" not in host:
        host = f"[{host}]"  # IPv6, as settings have it
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _place_of(origin: str) -> str | None:
    """Return the name and port in an Origin header; None: it cannot be read."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None

"""CORS around the gate: pages that were named may read its refusals, and pass it as all others."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send


def is_preflight(scope: Scope) -> bool:
    """Return whether a browser asks if another page may send a request."""
    headers = Headers(scope=scope)
    is_asked = "origin" in headers and "access-control-request-method" in headers
    return scope["method"] == "OPTIONS" and is_asked


class _Cors(CORSMiddleware):
    def __init__(self, app: ASGIApp, *, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("Authorization", "Content-Type"),
        )


class SharedResponses(_Cors):
    """Outside the gate: lets a page that was named read every response, a refusal too."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http" or is_preflight(scope):
            await self.app(scope, receive, send)
            return
        await self.simple_response(scope, receive, send, request_headers=Headers(scope=scope))


class Preflights(_Cors):
    """Inside the gate, so that its limits hold for preflights: answers them, and nothing else."""

    async def simple_response(
        self, scope: Scope, receive: Receive, send: Send, request_headers: Headers
    ) -> None:
        """Pass on what is no preflight."""
        del request_headers
        await self.app(scope, receive, send)

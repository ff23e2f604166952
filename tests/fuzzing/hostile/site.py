"""The real application, asked without a network: bytes of a request in, what it answered out."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import unquote


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the application answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as a browser would read it: NaN is no JSON."""
        return json.loads(self.body.decode(), parse_constant=_refuse)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


class Site:
    """An application that has started, and its event loop."""

    def __init__(self, model: Any, *, when_closed: Callable[[], None] = lambda: None) -> None:
        from realm.serving.app import build_app
        from realm.serving.service import Service
        from realm.serving.settings import Batching, Limits

        limits = Limits(requests_per_second=1e9, burst=1_000_000_000)
        batching = Batching(max_questions=1, wait_seconds=0.0, num_lanes=1)
        self._loop = asyncio.new_event_loop()
        self._app = build_app(Service(model, limits=limits, batching=batching))
        self._when_closed = when_closed
        self._lifespan = self._app.router.lifespan_context(self._app)
        self._loop.run_until_complete(self._lifespan.__aenter__())

    def close(self) -> None:
        """Stop it."""
        self._loop.run_until_complete(self._lifespan.__aexit__(None, None, None))
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._when_closed()

    def ask(
        self,
        method: str,
        address: bytes,
        body: bytes = b"",
        headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),),
    ) -> Reply:
        """Send a request as uvicorn hands it on, and return the whole answer."""
        raw_path, _, query = address.partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(raw_path.decode("ascii", "replace")),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": [(b"host", b"localhost"), *headers],
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        return self._loop.run_until_complete(self._serve(scope, body))

    async def _serve(self, scope: dict[str, Any], body: bytes) -> Reply:
        half = len(body) // 2
        waiting = [(body[:half], True), (body[half:], False)]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if not waiting:
                return {"type": "http.disconnect"}
            piece, is_more = waiting.pop(0)
            return {"type": "http.request", "body": piece, "more_body": is_more}

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        start, *rest = sent
        return Reply(
            status=start["status"],
            headers={k.decode("latin-1"): v.decode("latin-1") for k, v in start["headers"]},
            body=b"".join(message.get("body", b"") for message in rest),
        )

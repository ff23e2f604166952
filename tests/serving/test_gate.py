"""Who comes in, with how much and how often."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from realm.errors import ConfigError
from realm.serving.app import build_app
from realm.serving.gate import MAX_CLIENTS, Buckets
from realm.serving.service import Line, Service
from realm.serving.settings import Access, Batching, Limits

Serve = Callable[..., httpx.Client]
ASK = {"question": "library"}
TOKEN = "0123456789abcdef"  # noqa: S105 - made up


def code_of(response: httpx.Response) -> str:
    return response.json()["error"]["code"]


def test_a_body_that_is_too_long_is_refused_before_it_is_read(serve: Serve, model: Any) -> None:
    client = serve(model, limits=Limits(body_bytes=1_000, upload_bytes=2_000))
    for path, size in (("/answer", 1_001), ("/documents", 2_001)):
        response = client.post(path, content=b"x" * size)
        assert response.status_code == 413
        assert code_of(response) == "body_too_large"
    text = "a " * 800  # an upload may be longer than a question
    assert client.post("/documents", json={"id": "long.txt", "text": text}).status_code == 200


def test_a_body_without_a_length_is_counted_as_it_comes(serve: Serve, model: Any) -> None:
    client = serve(model, limits=Limits(body_bytes=1_000, upload_bytes=2_000))

    def pieces() -> Iterator[bytes]:
        for _ in range(30):
            yield b"x" * 100

    for path in ("/answer", "/documents"):
        headers = {"content-type": "application/json"}
        response = client.post(path, content=pieces(), headers=headers)
        assert response.status_code == 413
        assert code_of(response) == "body_too_large"


def test_a_body_that_does_not_come_is_not_waited_for(serve: Serve, model: Any) -> None:
    client = serve(model, limits=Limits(body_seconds=0.2))
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as half:
        half.sendall(
            b"POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n"
            b"Content-Type: application/json\r\n\r\n{"
        )
        half.settimeout(10)
        assert half.recv(4_096).startswith(b"HTTP/1.1 408 ")


def test_with_a_token_nothing_but_health_and_page_is_open(serve: Serve, model: Any) -> None:
    client = serve(model, access=Access(token=TOKEN))
    assert client.get("/healthz").status_code == 200
    for headers, found in (
        ({}, "no token"),
        ({"authorization": "Bearer wrong"}, "another token"),
        ({"authorization": f"Basic {TOKEN}"}, "another token"),
        ({"authorization": f"Bearer {TOKEN}x"}, "another token"),
        ({"authorization": "Bearer \xe9".encode("latin-1")}, "another token"),
    ):
        for path in ("/status", "/metrics", "/documents", "/openapi.json", "/nowhere"):
            response = client.get(path, headers=headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert found in response.json()["error"]["message"]
            assert TOKEN not in response.text
    right = {"authorization": f"bearer {TOKEN}"}
    assert client.post("/answer", json=ASK, headers=right).status_code == 200


def test_a_client_that_asks_too_often_waits(serve: Serve, model: Any) -> None:
    client = serve(model, limits=Limits(requests_per_second=0.5, burst=3))
    statuses = [client.post("/answer", json=ASK).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    response = client.get("/status")
    assert code_of(response) == "too_many_requests"
    assert 1 <= int(response.headers["retry-after"]) <= 4
    assert client.get("/healthz").status_code == 200


def test_a_bucket_fills_again_and_each_client_has_its_own() -> None:
    now = 0.0
    buckets = Buckets(rate=2.0, burst=2, clock=lambda: now)
    assert [buckets.wait_seconds("a") for _ in range(3)] == [0.0, 0.0, 0.5]
    assert buckets.wait_seconds("b") == 0.0
    now = 0.5
    assert buckets.wait_seconds("a") == 0.0
    assert buckets.wait_seconds("a") == 0.5
    for number in range(MAX_CLIENTS):  # memory does not grow with clients
        buckets.wait_seconds(str(number))
    assert buckets.wait_seconds("a") == 0.0


def test_one_client_cannot_take_all_places_of_a_line() -> None:
    """Searches, explanations, listings and changes wait in lines; questions take turns."""
    line = Line("test", max_waiting=4, num_threads=1)
    is_free = threading.Event()

    async def ask_all() -> list[object]:
        asked = [line.run(is_free.wait, client=client) for client in (*"aaaa", *"bbbb", "c")]
        tasks = [asyncio.create_task(one) for one in asked]
        await asyncio.sleep(0)
        is_free.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    told = asyncio.run(ask_all())
    asyncio.run(line.stop())
    served = [one is True for one in told]
    assert served == [True, True, False, False, True, True, False, False, False]
    assert str(told[2]).startswith("found 2 requests of yours waiting")
    assert str(told[8]).startswith("found 4 requests waiting")


def test_questions_that_wait_are_bounded(serve: Serve, model: Any) -> None:
    client = serve(model, limits=Limits(max_waiting=1), batching=Batching(max_questions=1))
    model.is_free.clear()
    got: list[int] = []

    def ask() -> None:
        got.append(httpx.post(f"{client.base_url}/answer", json=ASK, timeout=30).status_code)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for number, thread in enumerate(threads):
        thread.start()
        waited_for = f"realm_questions_waiting {float(number)}"
        deadline = time.monotonic() + 10
        while len(model.batches) < 1 or waited_for not in client.get("/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    response = client.post("/answer", json=ASK)
    assert response.status_code == 429
    assert code_of(response) == "queue_full"
    assert response.headers["retry-after"] == "1"
    model.is_free.set()
    for thread in threads:
        thread.join(10)
    assert got == [200, 200]


def test_another_name_for_this_server_is_refused(serve: Serve, model: Any) -> None:
    client = serve(model)
    for host in ("evil.example", "127.0.0.1.evil.example:80", ""):
        response = client.get("/status", headers={"host": host})
        assert response.status_code == 400
    assert client.get("/status", headers={"host": "localhost:1234"}).status_code == 200
    assert client.get("/status", headers={"host": "[::1]:1234"}).status_code == 200
    anyone = serve(model, access=Access(hosts=("*",)))
    assert anyone.get("/status", headers={"host": "evil.example"}).status_code == 200


@pytest.mark.parametrize(
    ("allowed", "asked"),
    [
        ("Answers.Example", "answers.example"),
        ("answers.example", "Answers.Example:80"),
        ("answers.example.", "answers.example"),
        ("answers.example", "answers.example.:80"),
        ("2001:DB8::1", "[2001:db8::1]:80"),
        ("[2001:db8::1]", "[2001:DB8::1]"),
    ],
)
def test_a_name_is_allowed_however_it_is_written(
    serve: Serve, model: Any, allowed: str, asked: str
) -> None:
    client = serve(model, access=Access(hosts=(allowed,)))
    assert client.get("/healthz", headers={"host": asked}).status_code == 200
    assert client.get("/healthz", headers={"host": "localhost"}).status_code == 400


def test_a_name_that_cannot_be_read_allows_none(serve: Serve, model: Any) -> None:
    client = serve(model, access=Access(hosts=("", "[::1")))
    for host in ("", "[::1", "evil.example"):
        assert client.get("/healthz", headers={"host": host}).status_code == 400


def test_another_page_may_not_change_anything(serve: Serve, model: Any) -> None:
    client = serve(model)
    foreign = {"origin": "https://evil.example"}
    files = {"files": ("x.txt", b"text")}  # a form that a browser sends without asking first
    for response in (
        client.post("/documents", files=files, headers=foreign),
        client.post("/answer", json=ASK, headers=foreign),
        client.delete("/documents/a.txt", headers={"origin": "null"}),
    ):
        assert response.status_code == 403
        assert code_of(response) == "origin_refused"
    own = {"origin": str(client.base_url).rstrip("/")}
    assert client.post("/answer", json=ASK, headers=own).status_code == 200


def test_other_pages_call_only_where_they_are_named(serve: Serve, model: Any) -> None:
    page = "https://page.example"
    asking = {"origin": page, "access-control-request-method": "POST"}
    closed = serve(model).options("/answer", headers=asking)
    assert "access-control-allow-origin" not in closed.headers
    client = serve(model, access=Access(origins=(page,), token=TOKEN))
    told = client.options(
        "/answer", headers={**asking, "access-control-request-headers": "authorization"}
    )
    assert told.status_code == 200
    assert told.headers["access-control-allow-origin"] == page
    right = {"origin": page, "authorization": f"Bearer {TOKEN}"}
    response = client.post("/answer", json=ASK, headers=right)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == page
    other = {**right, "origin": "https://other.example"}
    assert client.post("/answer", json=ASK, headers=other).status_code == 403


def test_a_page_that_is_named_can_read_why_it_was_refused(serve: Serve, model: Any) -> None:
    page = "https://page.example"
    limits = Limits(requests_per_second=0.01, burst=4, body_bytes=100)
    client = serve(model, access=Access(origins=(page,), token=TOKEN), limits=limits)
    right = {"authorization": f"Bearer {TOKEN}"}
    told: dict[int, httpx.Response] = {}
    for headers, body in (
        ({}, ASK),
        (right, {"question": "a " * 100}),
        (right, {"question": "crash"}),
        (right, {}),
        (right, ASK),
    ):
        response = client.post("/answer", json=body, headers={"origin": page, **headers})
        told[response.status_code] = response
    assert sorted(told) == [401, 413, 422, 429, 500]
    for response in told.values():
        assert response.headers["access-control-allow-origin"] == page
        assert "origin" in response.headers["vary"].lower()
    other = client.get("/healthz", headers={"origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers


def test_a_page_that_is_named_can_read_that_the_server_stops(model: Any) -> None:
    page = "https://page.example"
    service = Service(model)
    service.is_stopping = True
    client = TestClient(
        build_app(service, access=Access(origins=(page,))), base_url="http://localhost"
    )
    response = client.get("/status", headers={"origin": page})
    assert response.status_code == 503
    assert response.headers["access-control-allow-origin"] == page


def test_limits_hold_for_what_a_browser_asks_first(serve: Serve, model: Any) -> None:
    page = "https://page.example"
    asking = {"origin": page, "access-control-request-method": "POST"}
    access = Access(origins=(page,), token=TOKEN)
    client = serve(model, access=access, limits=Limits(requests_per_second=0.01, burst=1))
    assert client.options("/answer", headers={**asking, "host": "evil"}).status_code == 400
    assert client.options("/status").status_code == 401
    statuses = [client.options("/answer", headers=asking).status_code for _ in range(11)]
    assert statuses == 10 * [200] + [429]


def test_limits_that_let_nothing_through_are_refused() -> None:
    for wrong in ({"body_bytes": 0}, {"burst": 0}, {"requests_per_second": 0.0}):
        with pytest.raises(ConfigError, match="expected more than 0"):
            Limits(**wrong)
    with pytest.raises(ConfigError, match="max_questions=0"):
        Batching(max_questions=0)

"""Clients that mean ill, over real sockets: they are let go of, and others are answered."""

import importlib.util
import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

import realm
from realm.errors import AnsweringError
from realm.serving.connections import Connection, Connections
from realm.serving.server import LONGEST_STOP_SECONDS
from realm.serving.settings import Batching, Limits

Serve = Callable[..., httpx.Client]
Open = Callable[..., socket.socket]
ROOT = Path(__file__).parents[2]
GREEDY = "127.0.0.66"
"""Another address of this machine (Linux): another client."""
ASK = {"question": "library"}
HEAD = b"POST /%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
QUESTION = HEAD % b"answer" + b'Content-Length: 23\r\n\r\n{"question": "library"}'


def load_attack() -> ModuleType:
    """Return benchmarks/serving_attack.py, whose attackers are used here, too."""
    path = ROOT / "benchmarks" / "serving_attack.py"
    spec = importlib.util.spec_from_file_location("serving_attack", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["serving_attack"] = module
    spec.loader.exec_module(module)
    return module


ATTACK = load_attack()


@pytest.fixture
def connect() -> Iterator[Open]:
    """Open a connection to a client's server; closed at the end."""
    opened: list[socket.socket] = []

    def run(client: httpx.Client, source: str = "127.0.0.1", *, first: bytes = b"") -> Any:
        address = (client.base_url.host, client.base_url.port or 0)
        made = socket.create_connection(address, 20, source_address=(source, 0))
        opened.append(made)
        made.sendall(first)
        return made

    yield run
    for made in opened:
        made.close()


def seconds_until_closed(made: socket.socket, *, drip: bytes = b"") -> float:
    """Return when the other side closed, sending a byte now and then until it does."""
    began = time.monotonic()
    made.settimeout(0.05)
    while time.monotonic() - began < 20:
        try:
            if drip:
                made.sendall(drip)
            if not made.recv(1 << 16):
                return time.monotonic() - began
        except TimeoutError:
            continue
        except OSError:
            return time.monotonic() - began
    raise AssertionError("the connection is still open")


def is_open(made: socket.socket) -> bool:
    made.settimeout(0.2)
    try:
        return bool(made.recv(1))
    except TimeoutError:
        return True
    except OSError:
        return False


@pytest.mark.parametrize(
    ("first", "drip"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nX: ", b"a"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"GET / HTTP/1.1\r\nX: ", b"a"),
        (HEAD % b"nowhere" + b"Content-Length: 90000\r\n\r\n{", b"a"),
    ],
    ids=["silent", "head", "second head", "rest of a refused body"],
)
def test_a_request_that_does_not_come_is_not_waited_for(
    serve: Serve, model: Any, connect: Open, first: bytes, drip: bytes
) -> None:
    client = serve(model, limits=Limits(head_seconds=0.4))
    took = seconds_until_closed(connect(client, first=first), drip=drip)
    assert 0.3 <= took < 5
    assert client.post("/answer", json=ASK).status_code == 200


def test_a_body_that_comes_byte_by_byte_is_too_slow(
    serve: Serve, model: Any, connect: Open
) -> None:
    client = serve(model, limits=Limits(body_seconds=0.5))
    begun = HEAD % b"answer" + b"Content-Length: 90000\r\n\r\n{"
    made = connect(client, first=begun)
    began = time.monotonic()
    made.settimeout(0.05)  # a byte well within the longest wait for a piece
    told = b""
    while not told and time.monotonic() - began < 20:
        with suppress(TimeoutError):
            made.sendall(b" ")
            told = made.recv(1 << 12)
    assert told.startswith(b"HTTP/1.1 408 ")
    assert 0.4 <= time.monotonic() - began < 5


def test_a_response_that_nobody_reads_is_given_up(serve: Serve, model: Any, connect: Open) -> None:
    client = serve(model, limits=Limits(take_seconds=0.5, head_seconds=0.5))
    client.post("/documents", json={"id": "long.txt", "text": "word " * 3_000_000})
    asked = b"GET /documents/long.txt HTTP/1.1\r\nHost: localhost\r\n\r\n"
    made = connect(client, first=asked)
    assert made.recv(8) == b"HTTP/1.1"
    time.sleep(4)
    received = 8
    with suppress(ConnectionResetError):
        while piece := made.recv(1 << 20):
            received += len(piece)
    assert received < 15_000_000  # it was not kept until somebody would read it
    assert len(client.get("/documents/long.txt").content) > 15_000_000  # who reads, gets it all


def test_where_it_is_full_whoever_has_most_loses_what_has_waited_longest(
    serve: Serve, model: Any, connect: Open
) -> None:
    client = serve(model, limits=Limits(max_connections=8))
    mine = connect(client)
    time.sleep(0.1)
    theirs = [connect(client, GREEDY) for _ in range(7)]
    time.sleep(0.3)
    assert all(map(is_open, (mine, *theirs)))
    assert client.post("/answer", json=ASK).status_code == 200
    assert is_open(mine)
    assert [is_open(one) for one in theirs] == [False] + 6 * [True]


def test_where_all_are_being_answered_one_more_is_told(
    serve: Serve, model: Any, connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[Connection] = []
    enter = Connections.enter

    def note(connections: Connections, connection: Connection) -> bytes:
        entered.append(connection)
        return enter(connections, connection)

    monkeypatch.setattr(Connections, "enter", note)
    client = serve(model, limits=Limits(max_connections=8), batching=Batching(max_questions=1))
    model.is_free.clear()
    asking = [connect(client, first=QUESTION) for _ in range(8)]
    deadline = time.monotonic() + 20
    while sum(not connection.is_waited_for() for connection in entered) < 8:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises((httpx.HTTPError, AssertionError)):  # it may be told before it has asked
        response = httpx.post(f"{client.base_url}/answer", json=ASK, timeout=20)
        assert (response.status_code, response.json()["error"]["code"]) != (503, "server_full")
    model.is_free.set()
    for made in asking:
        made.settimeout(20)
        assert made.recv(1 << 12).startswith(b"HTTP/1.1 200 ")


def test_uploads_have_a_bound_in_memory_together(serve: Serve, model: Any, connect: Open) -> None:
    client = serve(model, limits=Limits(upload_bytes=1 << 20, uploads_at_once=1))
    begun = HEAD % b"documents" + b"Content-Length: 1000000\r\n\r\n" + b" " * 900_000
    made = connect(client, GREEDY, first=begun)
    time.sleep(0.5)
    other = {"id": "b.txt", "text": "b " * 400_000}
    refused = client.post("/documents", json=other)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_full")
    assert refused.headers["retry-after"]
    assert client.post("/answer", json=ASK).status_code == 200
    made.close()
    deadline = time.monotonic() + 10
    while client.post("/documents", json=other).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("content", ATTACK.BAD_REQUESTS, ids=range(len(ATTACK.BAD_REQUESTS)))
def test_what_is_no_request_is_refused_in_the_shape_of_all_errors(
    serve: Serve, model: Any, connect: Open, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve(model)
    made = connect(client)
    with suppress(OSError):  # refused while it was sent
        made.sendall(content)
    told = b""
    with suppress(OSError):
        while piece := made.recv(1 << 16):
            told += piece
            if b"}}" in told or (b"\r\n\r\n" in told and not told.startswith(b"HTTP/1.1 400 ")):
                break
    status = int(told[9:12] or 400)  # nothing: it was cut off while it was sent
    assert 200 <= status < 500
    if told.startswith(b"HTTP/1.1 400 "):
        assert b"\r\ncontent-type: application/json\r\n" in told.lower()
        assert b'"code"' in told
    assert client.post("/answer", json=ASK).status_code == 200
    assert not [record for record in caplog.records if record.exc_info]


def test_what_no_route_can_use_is_refused(
    serve: Serve, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve(model)
    for kind, body in ATTACK.BAD_BODIES:
        for path in ("/answer", "/documents", "/search", "/explain"):
            response = client.post(path, content=body, headers={"Content-Type": kind})
            assert response.status_code in {400, 413, 415, 422}, (path, kind, body[:20])
            assert set(response.json()["error"]) == {"code", "message"}
            assert len(response.content) < 2_000
    assert client.post("/answer", json=ASK).status_code == 200
    assert not [record for record in caplog.records if record.exc_info]


def test_a_body_whose_client_leaves_is_no_error_of_ours(
    serve: Serve, model: Any, connect: Open, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve(model)
    for path in (b"answer", b"documents"):
        begun = HEAD % path + b"Content-Length: 90000\r\n\r\n{"
        connect(client, first=begun).close()
    time.sleep(0.3)
    assert client.post("/answer", json=ASK).status_code == 200
    assert not [record for record in caplog.records if record.exc_info]


def test_a_question_whose_client_leaves_is_not_computed(
    serve: Serve, model: Any, connect: Open
) -> None:
    client = serve(model, batching=Batching(max_questions=1))
    model.is_free.clear()
    first = connect(client, first=QUESTION)
    while not model.batches:
        time.sleep(0.01)
    gone = QUESTION.replace(b"library", b"abandon")
    connect(client, first=gone).close()
    time.sleep(0.5)
    model.is_free.set()
    assert first.recv(1 << 12).startswith(b"HTTP/1.1 200 ")
    assert client.post("/answer", json={"question": "closes"}).status_code == 200
    assert model.batches == [["library"], ["closes"]]


@pytest.mark.parametrize("path", ["search", "explain"])
def test_a_search_whose_client_leaves_is_not_computed(
    serve: Serve, model: Any, connect: Open, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    asked: list[str] = []
    is_free = threading.Event()

    def act(text: str, **_: object) -> None:
        asked.append(text)
        assert is_free.wait(20)
        raise AnsweringError("computed")

    monkeypatch.setattr(model, path, act)
    key = {"search": "query", "explain": "sentence"}[path]

    def request(text: str) -> bytes:
        body = json.dumps({key: text}).encode()
        return HEAD % path.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body

    client = serve(model)
    first = connect(client, first=request("first"))
    while not asked:
        time.sleep(0.01)
    connect(client, first=request("abandoned")).close()
    time.sleep(0.3)
    is_free.set()
    assert first.recv(1 << 12).startswith(b"HTTP/1.1 422 ")
    assert client.post(f"/{path}", json={key: "last"}).status_code == 422
    assert asked == ["first", "last"]


def test_a_long_listing_holds_nobody_up(
    serve: Serve, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_free, has_begun = threading.Event(), threading.Event()
    listed = model.documents()

    def documents() -> list[Any]:
        has_begun.set()
        assert is_free.wait(20)
        return listed

    monkeypatch.setattr(model, "documents", documents)
    client = serve(model)
    got: list[httpx.Response] = []
    listing = threading.Thread(
        target=lambda: got.append(httpx.get(f"{client.base_url}/documents", timeout=30))
    )
    listing.start()
    assert has_begun.wait(10)
    assert client.post("/answer", json=ASK, timeout=5).status_code == 200
    is_free.set()
    listing.join(10)
    assert got[0].json()["documents"][0]["id"] == "a.txt"


def test_one_request_too_many_ends_what_was_sent_ahead(
    serve: Serve, model: Any, connect: Open
) -> None:
    client = serve(model, limits=Limits(requests_per_second=0.1, burst=2))
    asked = b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"
    made = connect(client, first=asked * 50)
    told = b""
    with suppress(OSError):
        while piece := made.recv(1 << 16):
            told += piece
    assert told.count(b"HTTP/1.1 200 ") == 2
    assert told.count(b"HTTP/1.1 429 ") == 1


def test_connections_come_no_faster_than_requests_may(
    serve: Serve, model: Any, connect: Open
) -> None:
    client = serve(model, limits=Limits(requests_per_second=0.1, burst=5))
    asked = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    told: list[bytes] = []
    for _ in range(8):
        made = connect(client, GREEDY)
        with suppress(OSError):
            made.sendall(asked)
            told.append(made.recv(1 << 12)[9:12])
    assert told[:5] == 5 * [b"200"]
    assert set(told[5:]) <= {b"429"}
    assert client.get("/healthz").status_code == 200  # another client


def test_also_what_is_open_to_all_has_a_rate(serve: Serve, model: Any) -> None:
    client = serve(model, limits=Limits(requests_per_second=0.1, burst=1))
    statuses = [client.get("/healthz").status_code for _ in range(11)]
    assert statuses == 10 * [200] + [429]


def test_rubbish_does_not_fill_the_log(serve: Serve, model: Any, connect: Open) -> None:
    client = serve(model)
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("uvicorn.error.connections")
    log.addHandler(handler)
    began = time.monotonic()
    try:
        for _ in range(60):
            made = connect(client, first=b"rubbish\r\n\r\n")
            assert made.recv(1 << 12).startswith(b"HTTP/1.1 400 ")
    finally:
        log.removeHandler(handler)
    assert 1 <= len(seen) <= time.monotonic() - began + 1
    log.addHandler(handler)
    log.error("an error is always written")
    log.error("an error is always written")
    log.removeHandler(handler)
    assert seen.count("an error is always written") == 2


def test_files_are_left_for_what_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def allowed(most: int) -> int:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (most, most))
        return Connections(Limits(max_connections=1_000), backlog=256).most

    assert allowed(20_000) == 1_000
    assert allowed(1_024) == 1_024 - 256 - 256
    assert allowed(resource.RLIM_INFINITY) == 1_000


STOPPING = """
import sys
sys.path.insert(0, {tests!r})
from conftest import WordModel
from realm.records import Document
from realm.serving.app import build_app
from realm.serving.server import address_of, bind, make_server, serve
from realm.serving.service import Service

model = WordModel(kept={{"a": Document(id="a", text="library " * 1_000_000)}})
service, bound = Service(model), bind("127.0.0.1", 0)
ready = lambda: print("listening at", address_of(bound), flush=True)
serve(make_server(build_app(service), service, on_ready=ready), bound)
"""


def test_it_stops_in_time_amid_an_attack(connect: Open) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPPING.format(tests=str(Path(__file__).parent))],
        env={**os.environ, "PYTHONPATH": str(Path(realm.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        client = httpx.Client(base_url=process.stdout.readline().split()[2], timeout=20)
        held = [connect(client, GREEDY) for _ in range(20)]
        for first in (
            b"GET / HTTP/1.1\r\nX: ",
            HEAD % b"answer" + b"Content-Length: 90000\r\n\r\n{",
            HEAD % b"documents" + b"Content-Length: 90000\r\n\r\n{",
            b"GET /documents/a HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20,
        ):
            held += [connect(client, GREEDY, first=first) for _ in range(10)]
        is_over = threading.Event()

        def drip() -> None:
            while not is_over.wait(0.2):
                for made in held[20:50]:
                    with suppress(OSError):
                        made.sendall(b" ")

        dripping = threading.Thread(target=drip)
        dripping.start()
        assert client.post("/answer", json=ASK).status_code == 200
        client.close()
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            is_over.set()
            dripping.join()
            process.kill()
        assert process.returncode == 0
        assert time.monotonic() - began < 2 * LONGEST_STOP_SECONDS + 5
        assert "Traceback" not in errors


def test_the_figures_that_are_kept_say_themselves_what_was_missed() -> None:
    content = json.loads((ROOT / "benchmarks/results/serving-attack.json").read_text("utf-8"))
    assert content["missed"] == list(ATTACK.misses(content))
    bad = {**content, "failures": 3, "exit_code": 1, "tracebacks": 1}
    assert len(list(ATTACK.misses(bad))) == len(content["missed"]) + 2

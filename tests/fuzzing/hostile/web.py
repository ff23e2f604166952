"""Targets behind HTTP, through the real application: no answer of 500, and every slice true."""

import json
from functools import cache
from typing import Any
from urllib.parse import quote

from hostile.scratch import chosen, scratch
from hostile.site import Reply, Site
from hostile.target import Target
from hostile.world import open_realm
from realm.errors import RealmError

DOCUMENTS = (
    ("a.txt", "The library closes at eight. It was born in 1907, in Basel."),
    (
        "notes/\u65e5\u672c.md",
        "# \u65e5\u672c\n\ncafe\u0301 \U0001f469\u200d\U0001f467 was here.\n",
    ),
)
ROUTES = ("/answer", "/search", "/explain")
FORM = (
    b'--X\r\nContent-Disposition: form-data; name="files"; filename="b.md"\r\n'
    b"Content-Type: text/markdown\r\n\r\n# B\n\nIt was born.\r\n--X--\r\n"
)
FORM_TYPE = b"multipart/form-data; boundary=X"


@cache
def site() -> Site:
    """Return the application over a tiny model with two documents."""
    from realm.records import Document

    model = open_realm("site")
    model.add_documents([Document(id=name, text=text) for name, text in DOCUMENTS])
    return Site(model, when_closed=model.close)


def close_site() -> None:
    """Stop the application, if it has started."""
    if site.cache_info().currsize:
        site().close()
        site.cache_clear()


class RefusedError(RealmError):
    """The application has refused a request, with a reason."""


def check(reply: Reply) -> Any:
    """Return what a reply says, as JSON; None: something else.

    Raises:
        RefusedError: it is a refusal, with a reason, as JSON.
    """
    assert str(scratch()).encode() not in reply.body, "it tells where its files lie"
    assert reply.status < 500, f"status {reply.status}: {reply.body[:300]!r}"
    if reply.status >= 400:
        error = reply.json()["error"]
        assert error["code"], "an error without a code"
        raise RefusedError(error["message"])
    if reply.headers.get("content-type", "").startswith("application/json"):
        return reply.json()
    return None


def check_answers(told: Any) -> None:
    """Check that each answer is a slice of its passage, and each number a probability."""
    for answer in told["answers"]:
        passage = answer["passage"]
        start, end = answer["start"] - passage["start"], answer["end"] - passage["start"]
        assert 0 <= start < end <= len(passage["text"]), "an answer outside its passage"
        assert passage["text"][start:end] == answer["text"], "an answer that is no slice"
        assert 0.0 <= answer["probability"] <= 1.0, "an answer without a probability"


def _ask(data: bytes) -> None:
    """Send a body to one of the routes that ask."""
    number, body = chosen(data, len(ROUTES))
    told = check(site().ask("POST", ROUTES[number].encode(), body))
    if ROUTES[number] == "/answer":
        check_answers(told)


def _question(data: bytes) -> None:
    """Ask a text everywhere, whatever it is."""
    text = data.decode(errors="surrogateescape")
    refused: RefusedError | None = None
    for route, key in (("/answer", "question"), ("/search", "query"), ("/explain", "sentence")):
        try:
            told = check(site().ask("POST", route.encode(), json.dumps({key: text}).encode()))
        except RefusedError as error:
            refused = error
        else:
            if route == "/answer":
                check_answers(told)
    if refused:
        raise refused


def _upload(data: bytes) -> None:
    """Add a document as JSON or as a form; what was added is there as it was sent, and goes."""
    number, body = chosen(data, 3)
    kind = (b"application/json", FORM_TYPE, b"")[number]
    if number == 2:  # a type of its own, up to the first line break
        kind, _, body = body.partition(b"\n")
    told = check(site().ask("POST", b"/documents", body, ((b"content-type", kind),)))
    for added in told["added"]:
        address = f"/documents/{quote(added)}".encode()
        kept = check(site().ask("GET", address))
        assert kept["id"] == added, "another document than was added"
        check_answers(check(site().ask("POST", b"/answer", b'{"question": "when was it born"}')))
        assert check(site().ask("DELETE", address))["removed"] == [added], "it cannot be removed"


def _request(data: bytes) -> None:
    """Send any request: a first line, headers, and a body behind an empty line."""
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, address = first.partition(b" ")
    headers = tuple(
        (name.strip().lower(), value.strip())
        for name, _, value in (line.partition(b":") for line in lines)
    )
    check(site().ask(method.decode("latin-1"), address or b"/", body, headers))


def _body(**told: Any) -> bytes:
    return json.dumps(told).encode()


WEB_TARGETS = (
    Target(
        name="http-ask",
        take=_ask,
        seeds=lambda: [
            b"\0" + _body(question="When does the library close?", num_answers=3),
            b"\0" + _body(question="caf\u00e9", num_passages=2, min_probability=0.5),
            b"\1" + _body(query="opening hours", num_passages=5),
            b"\2" + _body(sentence="It closes at [MASK].", answer="eight", num_candidates=2),
            b"\2" + _body(sentence="[MASK] [MASK] was born in [MASK]"),
        ],
    ),
    Target(
        name="http-question",
        take=_question,
        seeds=lambda: [
            b"when was the library born in basel?",
            "e\u0301 \u05e9\u05dc\u05d5\u05dd \u202e \U0001f469\u200d\U0001f467 [MASK]".encode(),
        ],
        max_bytes=1 << 14,
    ),
    Target(
        name="http-upload",
        take=_upload,
        seeds=lambda: [
            b"\0" + _body(id="c.md", text="# C\n\nIt closes.", format="markdown"),
            b"\0" + _body(id="d", text='{"id": 1, "text": "It was born."}\n', format="jsonl"),
            b"\1" + FORM,
            b"\2" + FORM_TYPE + b"; charset=utf-8\n" + FORM,
            b"\2application/json; charset=utf-16\n" + _body(id="e", text="born", title="E"),
        ],
    ),
    Target(
        name="http-request",
        take=_request,
        seeds=lambda: [
            b"GET /documents/a.txt\nhost: localhost\norigin: http://localhost",
            b"POST /answer\ncontent-type: application/json\ncontent-length: 9\n\n"
            + _body(question="when?"),
            b"GET /training/x?after=3\nauthorization: Bearer x\naccept: */*",
            b"DELETE /documents/%E6%97%A5\nx: y",
            b"OPTIONS /status\norigin: http://[::1]:80",
            b"GET /metrics",
            b"GET /page.js\nif-none-match: x\nrange: bytes=0-1",
        ],
    ),
)

"""The routes, as a client sees them."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

import realm
from realm.errors import (
    ArtifactError,
    ConfigError,
    DamagedError,
    LockedError,
    ReadOnlyError,
    RealmError,
    WithheldError,
)
from realm.records import Document
from realm.serving import service
from realm.serving.responses import (
    AnsweredModel,
    ChangesModel,
    FoundModel,
    ListingModel,
    MentionModel,
)
from realm.serving.settings import Access

Serve = Callable[..., httpx.Client]


@pytest.fixture
def client(serve: Serve, model: Any) -> httpx.Client:
    return serve(model)


def code_of(response: httpx.Response) -> str:
    """Return the code of an error, after a look that it has the shape of all errors."""
    assert response.headers["content-type"] == "application/json"
    told = response.json()
    assert set(told) == {"error"}
    assert set(told["error"]) == {"code", "message"}
    assert "Traceback" not in response.text
    return told["error"]["code"]


def test_a_question_is_answered_with_its_evidence(client: httpx.Client) -> None:
    response = client.post("/answer", json={"question": "when does the library close"})
    assert response.status_code == 200
    answered = AnsweredModel.model_validate(response.json())
    assert answered.answer == "library"
    assert answered.answers[0].document == "a.txt"
    assert (
        client.post("/answer", json={"question": "library", "min_probability": 0.9}).json()[
            "answer"
        ]
        is None
    )


def test_the_same_text_in_other_documents_is_told(serve: Serve, make_packed: Any) -> None:
    """By a real model, as the schema says; a program that cites takes no more than this."""
    text = "# Fermat\n\nFermat was born in Toulouse."
    with realm.load(make_packed()) as opened:
        opened.add_documents(
            [
                Document(id="town.md", text=text, format="markdown"),
                Document(id="old/town.md", text=text, format="markdown"),
                Document(id="street.txt", text="Euler lived in the old house."),
            ]
        )
        asked = {"question": "where was fermat born", "num_answers": 50}
        answered = AnsweredModel.model_validate(serve(opened).post("/answer", json=asked).json())
    copied = [one for one in answered.answers if one.same_text]
    assert {one.document for one in answered.answers if not one.same_text} == {"street.txt"}
    assert copied
    for answer in copied:
        (other,) = answer.same_text
        assert {answer.document, other.document} == {"town.md", "old/town.md"}
        assert text[other.start : other.end] == answer.text
        assert (other.line, other.passage.title) == (answer.line, "Fermat")


def test_passages_are_found_for_a_query(client: httpx.Client) -> None:
    response = client.post("/search", json={"query": "library", "num_passages": 1})
    assert FoundModel.model_validate(response.json()).hits[0].document == "a.txt"


def test_a_model_without_an_encoder_says_so(client: httpx.Client) -> None:
    response = client.post("/explain", json={"sentence": "it closes at [MASK]"})
    assert response.status_code == 409
    assert code_of(response) == "no_encoder"


def test_documents_come_and_go(client: httpx.Client) -> None:
    added = client.post("/documents", json={"id": "b/c.md", "text": "museum", "format": "markdown"})
    assert ChangesModel.model_validate(added.json()).added == ["b/c.md"]
    again = client.post("/documents", json={"id": "b/c.md", "text": "museum", "format": "markdown"})
    assert again.json()["unchanged"] == ["b/c.md"]
    listing = ListingModel.model_validate(client.get("/documents").json())
    assert [info.id for info in listing.documents] == ["a.txt", "b/c.md"]
    assert client.get("/documents/b/c.md").json()["text"] == "museum"
    assert client.post("/answer", json={"question": "museum"}).json()["answer"] == "museum"
    assert client.delete("/documents/b/c.md").json()["removed"] == ["b/c.md"]
    assert client.post("/answer", json={"question": "museum"}).json()["answer"] is None
    for response in (client.delete("/documents/b/c.md"), client.get("/documents/b/c.md")):
        assert response.status_code == 404
        assert code_of(response) == "no_document"
        told = response.json()["error"]["message"]
        assert told == "found no document 'b/c.md'; GET /documents lists all"


def test_passages_that_do_not_change_are_told_to_a_client_not_to_a_programmer(
    serve: Serve, model: Any
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ReadOnlyError("qa answers from its passages; load it with docs=FOLDER")

    for name in ("document", "add_documents", "remove_documents"):
        setattr(model, name, refuse)
    client = serve(model)
    one, removed = client.get("/documents/a"), client.delete("/documents/a")
    added = client.post("/documents", json={"id": "a", "text": "a"})
    assert (one.status_code, code_of(one)) == (404, "no_document")
    for response in (removed, added):
        assert (response.status_code, code_of(response)) == (409, "read_only")
    for response in (one, removed, added):
        told = response.json()["error"]["message"]
        assert "expected a server that was started with --docs or --library" in told
        assert "FOLDER" not in told


def test_a_title_may_hold_what_a_heading_may(client: httpx.Client) -> None:
    """Whoever removes a document may put it back as it was told."""
    text = "# It\x92s open\n\nmuseum"  # as words of Windows come out of a wrong decoding
    told = {"id": "c.md", "text": text, "title": "It\x92s open", "format": "markdown"}
    assert client.post("/documents", json=told).status_code == 200
    assert client.get("/documents/c.md").json() == told


def test_files_are_uploaded_under_their_names(client: httpx.Client) -> None:
    lines = json.dumps({"id": "1", "title": "t", "text": "zoo"}).encode()
    files = [
        ("files", ("notes/x.md", "\ufeff# Zoo".encode(), "text/markdown")),
        ("files", ("y.jsonl", lines, "application/json")),
    ]
    response = client.post("/documents", files=files)
    assert response.json()["added"] == ["notes/x.md", "y.jsonl"]
    assert client.get("/documents/notes/x.md").json() == {
        "id": "notes/x.md",
        "text": "# Zoo",
        "title": "",
        "format": "markdown",
    }
    assert client.get("/documents/progress").json() == {"done": 0, "total": 0}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.pdf", b"text"),
        ("x.txt", b"\xff\xfe\x00"),
        ("x.txt", b"  \n"),
        ("../x.txt", b"text"),
        ("progress", b"text"),
        ("a" * 600 + ".txt", b"text"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_and_none_is_added(
    client: httpx.Client, name: str, content: bytes
) -> None:
    files = [("files", ("good.txt", b"fine")), ("files", (name, content))]
    response = client.post("/documents", files=files)
    assert response.status_code == 422
    assert code_of(response) == "file_refused"
    assert len(client.get("/documents").json()["documents"]) == 1


def test_neither_json_nor_files(client: httpx.Client) -> None:
    response = client.post("/documents", content=b"<a/>", headers={"content-type": "text/xml"})
    assert response.status_code == 415
    assert code_of(response) == "type_refused"
    form = client.post("/documents", files={"files": ("", b"")}, data={"id": "x"})
    assert form.status_code == 422
    assert code_of(form) == "file_refused"


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/answer", {"question": ""}, "invalid_request"),
        ("/answer", {}, "invalid_request"),
        ("/answer", {"question": "a", "surprise": 1}, "invalid_request"),
        ("/answer", {"question": "a", "num_passages": 51}, "invalid_request"),
        ("/answer", {"question": "a", "num_answers": "3"}, "invalid_request"),
        ("/answer", {"question": "a", "min_probability": 2}, "invalid_request"),
        ("/answer", {"question": "a\x00b"}, "invalid_request"),
        ("/answer", {"question": "\ud800"}, "invalid_request"),
        ("/answer", {"question": "a" * 4_001}, "question_too_long"),
        ("/answer", {"question": "a " * 30}, "question_too_long"),
        ("/answer", {"question": "nothing"}, "question_refused"),
        ("/search", {"query": "q" * 4_001}, "query_too_long"),
        ("/explain", {"sentence": "q" * 4_001}, "sentence_too_long"),
        ("/documents", {"id": "progress", "text": "a"}, "invalid_request"),
        ("/documents", {"id": "../a", "text": "a"}, "invalid_request"),
        ("/documents", {"id": "a", "text": "\udfff"}, "invalid_request"),
        ("/documents", {"id": "a", "text": "a", "format": "pdf"}, "invalid_request"),
    ],
)
def test_what_is_not_as_the_schema_says_is_refused(
    client: httpx.Client, path: str, body: dict[str, Any], code: str
) -> None:
    content = json.dumps(body)
    response = client.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 422, response.text
    assert code_of(response) == code
    assert len(response.text) < 600


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[1]", b'{"question": NaN}', b""])
def test_what_is_no_json_is_refused(client: httpx.Client, content: bytes) -> None:
    for path in ("/answer", "/documents"):
        headers = {"content-type": "application/json"}
        response = client.post(path, content=content, headers=headers)
        assert response.status_code == 422
        assert code_of(response) == "invalid_request"


def test_bytes_that_are_no_text_and_forms_that_are_none_are_bad_requests(
    client: httpx.Client,
) -> None:
    for path, kind, content in (
        ("/answer", "application/json", b'{"question": "\xff"}'),
        ("/documents", "multipart/form-data; boundary=a", b"no form"),
    ):
        response = client.post(path, content=content, headers={"content-type": kind})
        assert response.status_code == 400
        assert code_of(response) == "bad_request"


def test_more_files_than_one_upload_may_have_are_told_so(client: httpx.Client) -> None:
    files = [("files", (f"{number}.txt", b"some text")) for number in range(1_001)]
    response = client.post("/documents", files=files)
    assert response.status_code == 400
    assert code_of(response) == "bad_request"
    assert "1,000 files" in response.json()["error"]["message"]


def test_other_addresses_and_methods(client: httpx.Client) -> None:
    for path in ("/nowhere", "/docs", "/redoc", "/page/../app.py", "/training/none"):
        response = client.get(path)
        assert response.status_code == 404
        assert code_of(response) in {"not_found", "no_run"}
    response = client.put("/answer")
    assert response.status_code == 405
    assert code_of(response) == "method_not_allowed"
    assert response.headers["allow"] == "POST"
    assert "expected POST" in response.json()["error"]["message"]


def test_json_that_does_not_say_so_is_told_how_to(client: httpx.Client) -> None:
    """As curl sends it without -H: the answer held a dump of the body and no advice."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    response = client.post("/answer", content=b'{"question": "Who?"}', headers=headers)
    assert response.status_code == 422
    message = response.json()["error"]["message"]
    assert "expected the header Content-Type: application/json" in message
    assert "Who" not in message


def test_an_error_of_ours_tells_nothing_and_others_still_work(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    response = client.post("/answer", json={"question": "crash"})
    assert response.status_code == 500
    assert code_of(response) == "internal"
    assert "secret" not in response.text
    assert "a secret of the server" in caplog.text  # the log has it all
    assert client.post("/answer", json={"question": "library"}).status_code == 200


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (ArtifactError, 503, "unavailable"),
        (DamagedError, 503, "unavailable"),
        (WithheldError, 503, "unavailable"),
        (ConfigError, 503, "unavailable"),
        (LockedError, 409, "library_locked"),
    ],
)
def test_a_client_is_not_told_where_files_lie(
    serve: Serve,
    model: Any,
    caplog: pytest.LogCaptureFixture,
    kind: type[RealmError],
    status: int,
    code: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("found no library at /home/ada/notes.library")

    for name in ("documents", "document", "answer", "add_documents"):
        setattr(model, name, fail)
    client = serve(model)
    for response in (
        client.get("/documents"),
        client.get("/documents/a.txt"),
        client.post("/answer", json={"question": "library"}),
        client.post("/documents", json={"id": "b.txt", "text": "b"}),
    ):
        assert response.status_code == status
        assert code_of(response) == code
        assert "/home" not in response.text
        assert response.headers["retry-after"]
    assert caplog.text.count("found no library at /home/ada/notes.library") == 4


def test_every_response_has_strict_headers(client: httpx.Client) -> None:
    for response in (
        client.get("/healthz"),
        client.get("/nowhere"),
        client.post("/answer", json={"question": "crash"}),
    ):
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "server" not in response.headers
        assert "access-control-allow-origin" not in response.headers


def test_status_health_and_metrics(client: httpx.Client) -> None:
    client.post("/answer", json={"question": "library"})
    client.post("/answer", json={"question": "unheard"})
    client.get("/nowhere/else")
    status = client.get("/status").json()
    assert status["model"] == "words"
    assert status["num_documents"] == 1
    assert client.get("/healthz").json() == {"status": "ok"}
    told = client.get("/metrics").text
    for line in (
        'realm_requests_total{endpoint="/answer",method="POST",status="200"} 2.0',
        'realm_requests_total{endpoint="other",method="GET",status="404"} 1.0',
        "realm_answers_total 2.0",
        "realm_answers_refused_total 1.0",
        "realm_batch_questions_count 2.0",
        "realm_questions_waiting 0.0",
        "realm_documents 1.0",
        "realm_passages 1.0",
    ):
        assert line in told
    assert 'realm_request_seconds_bucket{endpoint="/answer",le="0.1"}' in told
    assert "realm_index_age_seconds" in told


@pytest.mark.parametrize("path", ["/status", "/metrics"])
def test_nobody_waits_for_whoever_asks_how_it_is(
    serve: Serve, model: Any, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Documents that have changed are looked at afresh there: a moment, where there are many."""
    client = serve(model)
    told, is_looking, is_over = model.status(), threading.Event(), threading.Event()

    def look() -> dict[str, Any]:
        is_looking.set()
        assert is_over.wait(20)
        return told

    monkeypatch.setattr(model, "status", look)
    with ThreadPoolExecutor(1) as others:
        looking = others.submit(client.get, path)
        try:
            assert is_looking.wait(20)
            assert client.get("/healthz", timeout=5).status_code == 200
        finally:
            is_over.set()
        assert looking.result().status_code == 200


def test_methods_that_a_client_makes_up_are_counted_as_one(serve: Serve, model: Any) -> None:
    client = serve(model, access=Access(token="0123456789abcdef"))  # noqa: S106 - made up
    for number in range(5):
        assert client.request(f"M{number}", "/answer").status_code == 401
    told = client.get("/metrics", headers={"authorization": "Bearer 0123456789abcdef"}).text
    assert 'realm_requests_total{endpoint="other",method="other",status="401"} 5.0' in told
    assert 'method="M' not in told


def test_openapi_describes_every_route_with_examples(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").json()
    for path in ("/answer", "/explain", "/search", "/documents", "/documents/{id}", "/status"):
        for method in schema["paths"][path].values():
            assert method["description"]
            assert "401" in method["responses"]
    models = schema["components"]["schemas"]
    assert models["AnswerRequest"]["examples"]
    (example,) = models["AnswerModel"]["properties"]["same_text"]["examples"]
    for mention in example:
        assert MentionModel.model_validate(mention).model_dump() == mention
    body = schema["paths"]["/documents"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}


def test_memory_is_given_back_while_questions_are_answered(
    serve: Serve, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    returned: list[int] = []
    monkeypatch.setattr(service, "return_free_memory", returned.append)
    monkeypatch.setattr(service, "SECONDS_BETWEEN_RETURNS", 0.0)
    serve(model).post("/answer", json={"question": "library"})
    assert returned == [0]

"""`realm serve` as a program: started, asked, killed, stopped; with a tiny model."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

import realm
from realm.cli.main import build_app
from realm.cli.serving_commands import TOKEN, _access, _check_sources, _open, _watch
from realm.corpus.store import PassageStore
from realm.errors import ConfigError
from realm.records import Changes, Document, Progress
from realm.serving.refusals import RefusedError
from realm.serving.responses import AnsweredModel
from realm.serving.service import Service
from realm.storage import locked

Make = Callable[..., Any]
Start = Callable[..., tuple[subprocess.Popen[str], httpx.Client]]
APP = build_app()
QUESTIONS = ["where was fermat born", "what did euler change", "who lived in oslo as a student"]
STOPPING = """
import sys, threading
sys.path.insert(0, {tests!r})
from conftest import WordModel
from realm.records import Document
from realm.serving.app import build_app
from realm.serving.server import address_of, bind, make_server, serve
from realm.serving.service import Service
from realm.serving.settings import Limits

model = WordModel(kept={{"a": Document(id="a", text="library")}}, pause_seconds=1.5)
{change}
service, bound = Service(model, limits=Limits(graceful_seconds={patience})), bind("127.0.0.1", 0)
ready = lambda: print("listening at", address_of(bound), flush=True)
serve(make_server(build_app(service), service, on_ready=ready), bound)
"""


ADD_FOR_EVER = """
def add_documents(documents, *, progress):
    for number in range(1_000):
        progress(number, 1_000)
        threading.Event().wait(0.1)

model.add_documents = add_documents
"""


def stopping(*, change: str = "", patience: float = 30.0) -> str:
    """Return a program that serves until it is told to stop."""
    return STOPPING.format(tests=str(Path(__file__).parent), change=change, patience=patience)


def environment() -> dict[str, str]:
    source = str(Path(realm.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a server as a process; return it and a client of it."""
    started: list[subprocess.Popen[str]] = []
    clients: list[httpx.Client] = []

    def run(*command: object) -> tuple[subprocess.Popen[str], httpx.Client]:
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "listening at" in line, process.communicate()[1]
        clients.append(httpx.Client(base_url=line.split()[2], timeout=60))
        return process, clients[-1]

    yield run
    for client in clients:
        client.close()
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def told(make_packed: Make, tmp_path: Path) -> list[object]:
    """Return a command line that serves a library with a tiny model."""
    options = ["--model", make_packed(), "--library", tmp_path / "library", "--port", "0"]
    return ["-m", "realm", "serve", *options]


@pytest.fixture
def texts(articles: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"id": f"{a['id']}.txt", "title": a["title"], "text": a["text"]} for a in articles]


def read_of(answered: dict[str, Any]) -> set[str]:
    """Return the documents that an answer is from."""
    return {entry["document"] for entry in (*answered["answers"], *answered["passages"])}


def test_what_was_acknowledged_survives_a_kill_and_what_was_removed_stays_gone(
    start: Start, told: list[object], texts: list[dict[str, str]]
) -> None:
    process, client = start(*told)
    for text in texts[:3]:
        assert client.post("/documents", json=text).status_code == 200
    asked = {"question": QUESTIONS[0], "num_passages": 20}
    assert "p0.txt" in read_of(client.post("/answer", json=asked).json())
    assert client.delete("/documents/p0.txt").status_code == 200
    assert read_of(client.post("/answer", json=asked).json()) == {"p1.txt", "p2.txt"}
    assert client.post("/documents", json=texts[3]).status_code == 200
    process.kill()
    process.wait(20)

    again, client = start(*told)
    listed = [info["id"] for info in client.get("/documents").json()["documents"]]
    assert listed == ["p1.txt", "p2.txt", "p3.txt"]
    assert read_of(client.post("/answer", json=asked).json()) == {"p1.txt", "p2.txt", "p3.txt"}
    again.send_signal(signal.SIGTERM)
    assert again.wait(20) == 0


def test_an_answer_says_why_its_probability_may_be_off(
    serve: Make, texts: list[dict[str, str]], tmp_path: Path
) -> None:
    """realm-mini was calibrated reading five passages."""
    with realm.load(library=tmp_path / "library") as opened:
        client = serve(opened)
        client.post("/documents", json=texts[0])
        for num_passages, why in (
            (None, None),
            (5, None),
            (1, "it was calibrated reading 5 passages, not 1"),
        ):
            asked = {"question": QUESTIONS[0], "num_passages": num_passages}
            told = client.post("/answer", json=asked).json()
            assert told["calibrated"]
            assert told["why_inexact"] == why
            assert AnsweredModel.model_validate(told).why_inexact == why


def test_a_blank_text_is_refused_as_a_blank_file_is(
    serve: Make, make_packed: Make, texts: list[dict[str, str]], tmp_path: Path
) -> None:
    with realm.load(make_packed(), library=tmp_path / "library") as opened:
        client = serve(opened)
        client.post("/documents", json=texts[0])
        for sent in (
            {"json": {**texts[0], "text": " \n"}},
            {"files": {"files": ("blank.txt", b" \n")}},
        ):
            refused = client.post("/documents", **sent)
            assert refused.status_code == 422
            assert "found no text" in refused.json()["error"]["message"]
        kept = client.get(f"/documents/{texts[0]['id']}").json()
        assert kept["text"] == texts[0]["text"]
        assert len(client.get("/documents").json()["documents"]) == 1


def test_concurrent_questions_get_the_answers_that_they_get_alone(
    serve: Make, make_packed: Make, texts: list[dict[str, str]], tmp_path: Path
) -> None:
    with realm.load(make_packed(), library=tmp_path / "library") as opened:
        client = serve(opened)
        for text in texts:
            client.post("/documents", json=text)

        def ask(question: str) -> dict[str, Any]:
            asked = {"question": question, "num_passages": 4}
            return httpx.post(f"{client.base_url}/answer", json=asked, timeout=60).json()

        alone = [ask(question) for question in QUESTIONS]
        with ThreadPoolExecutor(9) as pool:
            together = list(pool.map(ask, QUESTIONS * 6))
        sizes = client.get("/metrics").text
    assert 'realm_batch_questions_bucket{le="1.0"} 21.0' not in sizes  # some stood together
    for number, answered in enumerate(together):
        expected = alone[number % len(QUESTIONS)]
        for one, other in zip(answered["answers"], expected["answers"], strict=True):
            assert (one["text"], one["start"]) == (other["text"], other["start"])
            assert one["probability"] == pytest.approx(other["probability"], rel=1e-4)
        assert [p["id"] for p in answered["passages"]] == [p["id"] for p in expected["passages"]]


def test_told_to_stop_it_finishes_what_is_in_flight_and_refuses_what_comes(start: Start) -> None:
    process, client = start("-c", stopping())
    got: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: got.append(client.post("/answer", json={"question": "library"}))
    )
    asking.start()
    while "realm_batch_questions_count 0.0" in httpx.get(f"{client.base_url}/metrics").text:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 10
    while (response := httpx.get(f"{client.base_url}/healthz")).status_code == 200:
        assert time.monotonic() < deadline
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "stopping"
    assert response.headers["retry-after"]
    asking.join(20)
    assert got[0].status_code == 200
    assert got[0].json()["answer"] == "library"
    assert process.wait(20) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{client.base_url}/healthz")


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_told_to_stop_it_does_not_wait_for_the_end_of_a_long_change(
    start: Start, signals: list[signal.Signals]
) -> None:
    patience = 0.5 if len(signals) == 1 else 30.0  # a second Ctrl-C waits for nothing
    process, client = start("-c", stopping(change=ADD_FOR_EVER, patience=patience))
    got: list[httpx.Response] = []

    def add() -> None:
        with suppress(httpx.HTTPError):  # the connection may be gone before it is told
            got.append(client.post("/documents", json={"id": "a.txt", "text": "library"}))

    adding = threading.Thread(target=add)
    adding.start()
    while not httpx.get(f"{client.base_url}/documents/progress").json()["total"]:
        time.sleep(0.02)
    began = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.2)
    process.wait(30)
    adding.join(10)
    assert time.monotonic() - began < 10
    assert [one.json()["error"]["code"] for one in got] == ["stopping"] * len(got)
    if len(signals) == 1:
        assert process.returncode == 0
        assert got[0].status_code == 503


def test_a_change_that_is_given_up_leaves_whole_documents(
    make_packed: Make,
    texts: list[dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("realm.library.adding.GROUP_PASSAGES", 1)
    documents = [Document(**text) for text in texts]
    with realm.load(make_packed(), library=tmp_path / "library") as opened:
        service, add_all = Service(opened), opened.add_documents

        def add(documents: list[Document], *, progress: Progress) -> Changes:
            def advance(done: int, total: int) -> None:
                if len(opened.documents()) == 2:
                    service.give_up()
                progress(done, total)

            return add_all(documents, progress=advance)

        monkeypatch.setattr(opened, "add_documents", add)
        with pytest.raises(RefusedError, match="send all of them again"):
            asyncio.run(service.add(documents))
        kept = {info.id: opened.document(info.id) for info in opened.documents()}
        assert kept == {document.id: document for document in documents[:2]}
        assert service.progress == (0, 0)
        with pytest.raises(RefusedError):  # nor does one begin that has waited
            asyncio.run(service.add(documents))


def test_a_removal_does_not_wait_for_another_writer_when_the_server_stops(
    make_packed: Make,
    texts: list[dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("realm.library.library.PATIENCE_SECONDS", 10.0)
    folder = tmp_path / "library"
    with realm.load(make_packed(), library=folder) as opened:
        opened.add_documents([Document(**text) for text in texts])
        service, kept = Service(opened), texts[0]["id"]
        with locked(folder / "library", make_parent=False), pytest.raises(RefusedError) as caught:
            threading.Timer(0.3, service.give_up).start()
            asyncio.run(service.remove(kept))
        assert (caught.value.status, caught.value.code) == (503, "stopping")
        assert opened.document(kept)
        asyncio.run(service.remove(kept))
        assert kept not in {info.id for info in opened.documents()}


def refused(*command: object) -> str:
    """Return what `realm serve` says when it does not start."""
    with pytest.raises(ConfigError) as caught:
        APP(["serve", *map(str, command)], standalone_mode=False)
    return str(caught.value)


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused("--port", port, "--library", tmp_path / "library")
    assert f"port {port} of 127.0.0.1 cannot be had" in said
    assert f"--port {port + 1}" in said
    assert not (tmp_path / "library").exists()
    assert "found no address" in refused("--host", "no.such.host.invalid")


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "uvicorn" else 1)
    said = refused("--port", "0")
    assert "not installed (uvicorn)" in said
    assert "pip install 'realm-lm[serve]'" in said


def test_a_token_that_can_be_guessed_or_sent_by_nobody_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    for text in ("", "short", "a b" * 20, "\xe9" * 20):
        file.write_text(text, encoding="utf-8")
        said = refused("--token-file", file)
        assert "expected a token of at least 16" in said
        assert not text.strip() or text not in said
    assert "expected a file with a token" in refused("--token-file", tmp_path / "none")
    monkeypatch.setenv(TOKEN, "short")
    assert f"${TOKEN} holds 5 characters" in refused()


def test_pages_are_named_as_browsers_name_them() -> None:
    access = _access("127.0.0.1", ["https://Page.Example/", "*"], None, None)
    assert access.origins == ("https://page.example", "*")


def test_a_watched_folder_that_cannot_be_followed_is_told(
    make_packed: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    notes, away = tmp_path / "notes", tmp_path / "away"
    notes.mkdir()
    (notes / "a.txt").write_text("the library closes at eight", encoding="utf-8")
    with realm.load(make_packed(), library=tmp_path / "library") as opened:
        monkeypatch.setattr(opened, "watch", partial(opened.watch, every_seconds=0.05))
        assert Service(opened).status()["watch"] == "off"
        service = Service(opened, watch=_watch(opened, notes))

        def becomes(state: str) -> None:
            deadline = time.monotonic() + 20
            while service.status()["watch"] != state:
                assert time.monotonic() < deadline
                time.sleep(0.02)

        becomes("on")
        notes.rename(away)
        becomes("failing")
        time.sleep(0.2)  # some looks more
        away.rename(notes)
        becomes("on")
    said = capsys.readouterr().err
    assert said.count("not now: found no ") == 1
    assert str(tmp_path) not in str(service.status())


def test_sources_that_exclude_each_other_are_refused(tmp_path: Path) -> None:
    assert "--docs beside --library" in refused("--docs", tmp_path, "--library", tmp_path)
    assert "--library beside --passages" in refused("--library", tmp_path, "--passages", tmp_path)
    assert "--watch without --docs" in refused("--watch")


def test_passages_are_answered_from_by_the_model_that_ships_unless_another_is_named(
    make_packed: Make, store: PassageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REALM_CACHE", str(tmp_path / "cache"))
    shipped = make_packed(name="shipped")
    monkeypatch.setattr("realm.library.loading.default_model", lambda: shipped)
    _check_sources(None, None, store.folder, watch=False)
    with _open(None, None, None, store.folder, None, "cpu") as opened:
        told = opened.status()
    assert (told["model"], told["num_passages"]) == ("shipped", len(store))
    assert (tmp_path / "cache" / "realm-mini").is_dir()


def test_a_folder_of_runs_that_is_not_there_is_told_before_anything_is_loaded(
    tmp_path: Path,
) -> None:
    assert "found no folder" in refused("--docs", tmp_path, "--runs", tmp_path / "typo")

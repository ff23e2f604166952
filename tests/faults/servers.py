"""A `realm serve` with a library, in a process of its own, to be killed while documents change."""

import random
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.faults.trainers import environment

LIMIT_SECONDS = 120.0
LISTENING = re.compile(r"listening at (http://\S+)")
PLACES = ("Lobana", "Fizupu", "Tersa", "Wirra", "Olma", "Yond")


class Server:
    """A server; its log lies beside the library."""

    def __init__(self, library: Path, model: Path) -> None:
        self.log = library.with_name(f"{library.name}.log")
        self.log.write_bytes(b"")
        command = [sys.executable, "-m", "realm", "serve", "--port", "0", "--rate", "10000"]
        command += ["--library", str(library), "--model", str(model)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment())

    def client(self) -> httpx.Client:
        """Return a client, once the server listens."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            told = self.log.read_text(encoding="utf-8", errors="replace")
            if found := LISTENING.search(told):
                return httpx.Client(base_url=found[1], timeout=LIMIT_SECONDS)
            assert time.monotonic() < deadline, f"it never listened: {told}"
            assert self.process.poll() is None, f"it ended: {told}"
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill it without notice."""
        self.process.kill()
        self.process.wait()


@dataclass
class Acknowledged:
    """What a server has said about its documents, and what it was asked when it died."""

    texts: dict[str, str] = field(default_factory=dict[str, str])
    """Id -> text of all that are to be there."""
    open: dict[str, tuple[str | None, ...]] = field(
        default_factory=dict[str, tuple[str | None, ...]]
    )
    """Id -> texts (None: no document) that the last request may have left."""
    num_changes: int = 0


def change_until_killed(server: Server, known: Acknowledged, seed: int, seconds: float) -> None:
    """Add, replace and remove documents until the server is killed after some time.

    Args:
        server: that listens.
        known: is kept up to date: what is acknowledged, and what is open.
        seed: decides the changes.
        seconds: after which it is killed.
    """
    chance = random.Random(seed)  # noqa: S311
    timer = threading.Timer(seconds, server.kill)
    with server.client() as client:
        timer.start()
        while server.process.poll() is None:
            name = f"d{chance.randrange(12)}.txt"
            before = known.texts.get(name)
            is_removal = before is not None and chance.random() < 0.3
            text = None if is_removal else _text(chance)
            known.open = {name: (before, text)}
            try:
                _change(client, name, text)
            except httpx.TransportError:
                break
            known.open, known.num_changes = {}, known.num_changes + 1
            _remember(known, name, text)
    timer.join()


def check_documents(server: Server, known: Acknowledged) -> None:
    """See that a server that was started again has all that was acknowledged, and no more."""
    with server.client() as client:
        listed = {one["id"] for one in client.get("/documents").json()["documents"]}
        found = {name: client.get(f"/documents/{name}").json()["text"] for name in listed}
        for name, either in known.open.items():
            assert found.get(name) in either, f"{name}: found {found.get(name)!r}, of {either}"
            _remember(known, name, found.get(name))
        known.open = {}
        assert found == known.texts, f"found {sorted(found)}, expected {sorted(known.texts)}"
        if found:
            told = client.post("/answer", json={"question": "Who was born in Lobana?"}).json()
            for answer in told["answers"]:
                whole = found[answer["document"]]
                assert whole[answer["start"] : answer["end"]] == answer["text"], answer


def _change(client: httpx.Client, name: str, text: str | None) -> None:
    if text is None:
        answered = client.delete(f"/documents/{name}")
    else:
        answered = client.post("/documents", json={"id": name, "text": text})
    assert answered.status_code == 200, answered.text


def _remember(known: Acknowledged, name: str, text: str | None) -> None:
    if text is None:
        known.texts.pop(name, None)
    else:
        known.texts[name] = text


def _text(chance: random.Random) -> str:
    place, year = chance.choice(PLACES), chance.randrange(1700, 1900)
    more = " The painter was born near the river." * chance.randrange(1, 6)
    return f"{place} is a small town on the river. Somebody was born there in {year}.{more}"

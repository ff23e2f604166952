"""`realm serve` under attack: does it go on answering others, and give back what attackers held?

    python benchmarks/serving_attack.py --seconds 60 --check --out attack.json

The server is the real one, `realm serve` with the model that ships, as a process of its own. One
client asks one question after the other, before, during and after the attack. The attackers are
another process with another address of this machine (127.0.0.66, Linux). They hold connections
and drip heads, bodies and uploads, never read what they asked for, send what is no HTTP, huge or
malformed requests, and questions whose answers they do not wait for. They keep their connections
when the attack is over: the server has to let them go by itself. Then the attack begins again, and
the server is told to stop. With --check the exit code is 1 where a target is missed. Another
release is attacked with PYTHONPATH=ITS/src; --before keeps its figures beside these.
"""

import argparse
import asyncio
import contextlib
import http.client
import itertools
import json
import os
import platform
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

ATTACKER = "127.0.0.66"
COMPARED = (
    *("seconds", "answers", "failures", "files", "rss_mib", "cpu_seconds_during"),
    *("stop_seconds", "tracebacks", "log_bytes", "load_average"),
)
"""Of an older release's figures."""
TARGETS = {
    "failures": 0,
    "p95_during_seconds": 5.0,
    "p50_after_ratio": 2.0,
    "connections_held_after": 0,
    "rss_growth_mib": 100.0,
    "stop_seconds": 40.0,
    "log_kib": 64.0,
    "server_errors": 0,
}
"""At most; a failure is a question of the client that got no answer."""
SETTLE_SECONDS = 45.0
"""After which no connection of an attacker may be left: the longest deadline, and some."""
QUESTION = {"question": "When does the library close on Sunday?"}
FACTS = "The library of {0} opens at nine. On Sunday the library of {0} closes at five."
BAD_REQUESTS = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET  \r\n\r\n",
    b"POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n{}",
    b"POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nContent-Length: 3\r\n\r\n{}",
    b"POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 400 + b"\r\n\r\n{}",
    b"POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    b"POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"que\r\nffffffffffffffffffffff\r\n',
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
    b"GET /" + b"%00../" * 3_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50,
    b"\r\n" * 20_000,
)
"""What is no request, or one that asks for too much, as it goes over the wire."""
BAD_BODIES: tuple[tuple[str, bytes], ...] = (
    ("application/json", b'{"question": "' + b"a" * 1_000_000 + b'"}'),
    ("application/json", b"[" * 500_000),
    ("application/json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    ("application/json", b'{"question": "\xff\xfe"}'),
    ("application/json", b'{"question": "' + b"\\u0000" * 600 + b'"}'),
    ("application/json", b'{"question": ' + b"1" * 100_000 + b"}"),
    ("application/xml", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"),
    ("multipart/form-data", b"--x\r\n\r\n"),
    ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n" * 9),
    ("multipart/form-data; boundary=" + "x" * 300, b"--" + b"x" * 900_000),
)
"""(content type, body) of a request to both routes that take one."""


def request(method: str, path: str, kind: str = "", body: bytes = b"", length: int = -1) -> bytes:
    """Return a request as it goes over the wire.

    Args:
        method: of HTTP.
        path: what is asked for.
        kind: content type.
        body: all of it, or its beginning.
        length: the one that is told; -1: the body's own.
    """
    told = len(body) if length < 0 else length
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {told}\r\n\r\n"
    )
    return head.encode() + body


@dataclass
class Attackers:
    """Many clients that mean ill, in one event loop."""

    host: str
    port: int
    seconds: float
    source: str | None = ATTACKER

    def __post_init__(self) -> None:
        self.ends_at = time.monotonic() + self.seconds
        self.did: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.kept: list[asyncio.StreamWriter] = []
        self.random = random.Random(7)  # noqa: S311 - the same every time

    async def run(self, each: int) -> None:
        """Do everything at once.

        Args:
            each: clients of each kind.
        """
        kinds: list[Callable[[], Awaitable[None]]] = [
            self.silent,
            self.drip_head,
            self.drip_body,
            self.drip_upload,
            self.drip_refused,
            self.never_read,
        ]
        tasks = [self._again(kind) for kind in kinds for _ in range(each)]
        few = max(1, each // 50)
        for kind in (self.rubbish, self.bad_bodies, self.leave_at_once, self.connect_and_go):
            tasks += [self._again(kind) for _ in range(few)]
        await asyncio.gather(*tasks)

    async def _again(self, kind: Callable[[], Awaitable[None]]) -> None:
        """Do one thing over and over, whatever the server makes of it."""
        while time.monotonic() < self.ends_at:
            try:
                await kind()
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                self.did["cut off"] += 1
                await asyncio.sleep(0.5)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        where = (self.source, 0) if self.source else None
        return await asyncio.open_connection(self.host, self.port, local_addr=where, limit=1 << 12)

    async def _drip(self, name: str, first: bytes, rest: bytes) -> None:
        """Send a beginning, then a byte a second, until the end or until it is cut off."""
        _, writer = await self._connect()
        self.did[name] += 1
        self.kept.append(writer)  # nobody closes it
        writer.write(first)
        for number in itertools.count():
            if time.monotonic() >= self.ends_at:
                return
            await asyncio.sleep(1.0)
            if writer.is_closing():
                raise ConnectionResetError
            if rest:
                writer.write(rest[number % len(rest) : number % len(rest) + 1])
                await writer.drain()

    async def silent(self) -> None:
        """Connect, and say nothing."""
        await self._drip("silent", b"", b"")

    async def drip_head(self) -> None:
        """Slow loris: a head that never ends."""
        await self._drip("head dripped", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", b"abc")

    async def drip_body(self) -> None:
        """A question that never ends."""
        begun = request("POST", "/answer", "application/json", b'{"question": "', length=900_000)
        await self._drip("body dripped", begun, b"abc")

    async def drip_upload(self) -> None:
        """A document that never ends, with a good part of it in memory at once."""
        begun = b'{"id": "a.txt", "text": "' + b"a" * 1_000_000
        begun = request("POST", "/documents", "application/json", begun, length=60 << 20)
        await self._drip("upload dripped", begun, b"abc")

    async def drip_refused(self) -> None:
        """The body of a request that is refused before it is read."""
        begun = request("POST", "/nowhere", "application/json", b"{", length=1_000_000)
        await self._drip("refused body dripped", begun, b"abc")

    async def never_read(self) -> None:
        """Ask for much, and read nothing."""
        asked = request("GET", "/openapi.json") * 100
        await self._drip("unread", asked, b"")

    async def _send(self, content: bytes) -> None:
        """Send something and look at the status of what comes."""
        reader, writer = await self._connect()
        try:
            writer.write(content)
            async with asyncio.timeout(5.0):
                await writer.drain()
                line = await reader.readline()
            self.statuses[line[9:12].decode("latin-1") or "none"] += 1
        finally:
            writer.close()

    async def rubbish(self) -> None:
        """Send what is no HTTP, or too much of it."""
        self.did["no request"] += 1
        await self._send(self.random.choice(BAD_REQUESTS))

    async def bad_bodies(self) -> None:
        """Send what no route can use."""
        self.did["bad body"] += 1
        kind, body = self.random.choice(BAD_BODIES)
        path = self.random.choice(("/answer", "/documents", "/search"))
        await self._send(request("POST", path, kind, body))

    async def leave_at_once(self) -> None:
        """Ask a question that can be answered, and do not wait."""
        _, writer = await self._connect()
        self.did["abandoned"] += 1
        question = {"question": f"When does number {self.random.random()} close?"}
        writer.write(request("POST", "/answer", "application/json", json.dumps(question).encode()))
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.close()

    async def connect_and_go(self) -> None:
        """Connect, and leave."""
        _, writer = await self._connect()
        self.did["came and went"] += 1
        writer.close()
        await asyncio.sleep(0.005)


async def attack(host: str, port: int, seconds: float, each: int) -> None:
    """Attack for some time, tell what was done, then keep what is open until told to end."""
    attackers = Attackers(host, port, seconds)
    await attackers.run(each)
    told = {"did": dict(attackers.did), "statuses": dict(attackers.statuses)}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


@contextmanager
def attackers(host: str, port: int, seconds: float, each: int) -> Iterator[subprocess.Popen[str]]:
    """Run `attack` as a process."""
    command = [sys.executable, __file__, "--attack", f"{host}:{port}"]
    with subprocess.Popen(  # noqa: S603
        [*command, "--seconds", str(seconds), "--each", str(each)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@dataclass
class Target:
    """A server that runs."""

    process: subprocess.Popen[str]
    host: str
    port: int
    log: Path

    def num_files(self) -> int:
        """Return its open files and sockets."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that it has used so far."""
        told = Path(f"/proc/{self.process.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self) -> float:
        """Return its resident memory."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text("utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise ValueError("no VmRSS")

    def ask(self) -> float:
        """Ask a question; return the seconds that it took.

        Raises:
            OSError: no answer came.
        """
        began = time.monotonic()
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            body, kind = json.dumps(QUESTION), {"Content-Type": "application/json"}
            connection.request("POST", "/answer", body, kind)
            response = connection.getresponse()
            told = json.loads(response.read())
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(f"{type(error).__name__}: {error}") from None
        finally:
            connection.close()
        if response.status != 200 or not told["answers"]:
            raise OSError(f"{response.status}: {told}")
        return time.monotonic() - began


@contextmanager
def server(command: list[str]) -> Iterator[Target]:
    """Start a server that says where it listens; kill it where it is not told to stop."""
    with tempfile.TemporaryDirectory() as room:
        log = Path(room) / "log.txt"
        with log.open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(  # noqa: S603
                command, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        line = process.stdout.readline() if process.stdout else ""
        if "listening at" not in line:
            raise SystemExit(log.read_text("utf-8"))
        host, _, port = line.split()[2].removeprefix("http://").partition(":")
        try:
            yield Target(process, host, int(port), log)
        finally:
            process.kill()
            process.wait()


def ask_for(target: Target, seconds: float, failures: list[str]) -> list[float]:
    """Ask one question after the other for some time; return how long each took."""
    took: list[float] = []
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at or len(took) + len(failures) < 2:
        try:
            took.append(target.ask())
        except OSError as error:
            failures.append(str(error)[:200])
        time.sleep(0.02)
    return took


def measure(target: Target, seconds: float, each: int, settle_seconds: float) -> dict[str, Any]:
    """Ask before, during and after an attack, then stop the server during another one.

    Args:
        target: a server that has answered already.
        seconds: of each part.
        each: attackers of each kind.
        settle_seconds: after which no connection of theirs may be left.
    """
    failures: list[str] = []
    before = ask_for(target, seconds / 3, failures)
    files, rss, cpu = target.num_files(), target.rss_mib(), target.cpu_seconds()
    with attackers(target.host, target.port, seconds, each) as process:
        time.sleep(min(2.0, seconds / 4))
        during = ask_for(target, seconds - min(2.0, seconds / 4), failures)
        most_files, cpu = target.num_files(), target.cpu_seconds() - cpu
        told = json.loads(process.stdout.readline() if process.stdout else "")
        until = time.monotonic() + settle_seconds
        while target.num_files() > files and time.monotonic() < until:
            time.sleep(0.5)
        held = max(0, target.num_files() - files)
    after = ask_for(target, seconds / 3, failures)
    rss_after = target.rss_mib()
    with attackers(target.host, target.port, 600, each):
        time.sleep(min(5.0, seconds / 4))
        began = time.monotonic()
        target.process.send_signal(signal.SIGTERM)
        code = target.process.wait(120)
        stopped = time.monotonic() - began
    log = target.log.read_text("utf-8", errors="replace")
    return {
        "seconds": {name: percentiles(took) for name, took in
                    (("before", before), ("during", during), ("after", after))},
        "answers": {"before": len(before), "during": len(during), "after": len(after)},
        "failures": len(failures),
        "first_failures": failures[:5],
        "attackers_of_each_kind": each,
        "attackers_did": told["did"],
        "attackers_were_told": told["statuses"],
        "files": {"before": files, "during": most_files, "held_after": held},
        "rss_mib": {"before": rss, "after": rss_after},
        "cpu_seconds_during": cpu,
        "stop_seconds": stopped,
        "exit_code": code,
        "log_bytes": len(log),
        "tracebacks": log.count("Traceback"),
    }  # fmt: skip


def misses(content: dict[str, Any]) -> Iterator[str]:
    """Yield each target that was missed."""
    seconds = {
        name: {cut: float("inf") if value is None else value for cut, value in told.items()}
        for name, told in content["seconds"].items()
    }
    statuses: dict[str, int] = content["attackers_were_told"]
    found = {
        "failures": content["failures"],
        "p95_during_seconds": seconds["during"]["p95"],
        "p50_after_ratio": seconds["after"]["p50"] / seconds["before"]["p50"],
        "connections_held_after": content["files"]["held_after"],
        "rss_growth_mib": content["rss_mib"]["after"] - content["rss_mib"]["before"],
        "stop_seconds": content["stop_seconds"],
        "log_kib": content["log_bytes"] / 1024,
        "server_errors": content["tracebacks"]
        + abs(content["exit_code"])
        + sum(n for status, n in statuses.items() if status >= "500" and status.isdecimal()
              and status != "503"),
    }  # fmt: skip
    for name, most in TARGETS.items():
        if found[name] > most:
            yield f"{name}: {found[name]:.4g}, expected at most {most:g}"
    if not content["attackers_did"]:
        yield "the attackers did nothing"


def commit() -> str:
    """Return the commit that is checked out."""
    told = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip()


def percentiles(values: list[float]) -> dict[str, float | None]:
    """Return p50 and p95; None: too few were answered."""
    if len(values) < 2:
        return {"p50": None, "p95": None}
    cuts = quantiles(values, n=20, method="inclusive")
    return {"p50": cuts[9], "p95": cuts[18]}


def main() -> int:
    """Measure, print, and return 1 where --check is given and a target missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of the attack")
    parser.add_argument("--each", type=int, default=200, help="attackers of each kind")
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    parser.add_argument("--before", type=Path, help="figures of an older release, kept beside")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", action="store_true")
    told = parser.parse_args()
    most, hardest = resource.getrlimit(resource.RLIMIT_NOFILE)
    if told.attack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hardest, hardest))
        host, _, port = told.attack.partition(":")
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(attack(host, int(port), told.seconds, told.each))
        return 0
    with tempfile.TemporaryDirectory() as docs:
        for name in ("Ashford", "Brimley", "Corwen"):
            (Path(docs) / f"{name}.txt").write_text(FACTS.format(name), encoding="utf-8")
        command = [sys.executable, "-m", "realm", "serve", "--docs", docs, "--port", "0"]
        with server(command) as target:
            ask_for(target, 3.0, [])  # warm
            content = measure(target, told.seconds, told.each, SETTLE_SECONDS)
    content = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "commit": commit(),
        "open_files_allowed": most,
        "load_average": os.getloadavg()[0],
        "targets": TARGETS,
        **content,
    }
    if told.before is not None:
        older = json.loads(told.before.read_text(encoding="utf-8"), parse_constant=lambda _: None)
        content["before_mending"] = {name: older[name] for name in COMPARED}
    elif told.out is not None and told.out.is_file():
        kept = json.loads(told.out.read_text(encoding="utf-8"))
        content["before_mending"] = kept["before_mending"]
    content["missed"] = missed = [*misses(content)]
    text = json.dumps(content, indent=1)
    sys.stdout.write(text + "\n")
    if told.out is not None:
        told.out.write_text(text + "\n", encoding="utf-8")
    return int(told.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())

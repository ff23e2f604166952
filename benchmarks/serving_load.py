"""`realm serve` under load: throughput with and without micro-batching, and five minutes of it.

    realm docs add library articles.jsonl
    python benchmarks/serving_load.py library questions.jsonl --check --out load.json

Needs the load tool locust: pip install locust.

Two servers stand over one library, one that puts concurrent questions together and one that
answers one question at a time; clients ask them in turn, so that other work on the machine meets
both alike. Then clients ask the first one for minutes, while documents come and go: each answer is
looked at, whether it comes from a document that was removed before it was asked for. With --check
the exit code is 1 where a target is missed.
"""

import gevent.monkey

gevent.monkey.patch_all()

import argparse  # noqa: E402 - gevent comes first
import itertools  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import random  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from pathlib import Path  # noqa: E402
from statistics import median, quantiles  # noqa: E402
from typing import Any, ClassVar  # noqa: E402

import gevent  # noqa: E402
from locust import FastHttpUser, constant, task  # noqa: E402
from locust.env import Environment  # noqa: E402

from realm.evaluation.questions import read_questions  # noqa: E402

TARGETS = {"speedup": 1.5, "failures": 0, "growth": 0.05}
CLIENTS = 8
WARM_SECONDS = 5.0
LIVE = "live-{}.txt"
FACT = "The keeper of the lighthouse of Quillonport number {0} is Aurelia Vantongeren {0}."
ASKED = "Who is the keeper of the lighthouse of Quillonport number {}?"


@dataclass
class Seen:
    """What the clients of one run have seen."""

    questions: list[str]
    answered: list[tuple[float, float]] = field(default_factory=list)
    """(when, seconds) of each answer."""
    failures: list[str] = field(default_factory=list)
    removed_at: dict[str, float] = field(default_factory=dict)
    """When the server had said that a document is gone."""
    live: str = ""
    num_added: int = 0
    num_checked: int = 0
    """Answers to questions about a document that had just come or gone."""

    def fail(self, what: str) -> None:
        """Note a failure; the first ones are shown."""
        self.failures.append(what)

    def look(self, told: dict[str, Any], began: float) -> None:
        """Check that an answer comes from no document that was gone when it was asked for."""
        for entry in (*told["answers"], *told["passages"]):
            removed = self.removed_at.get(entry["document"])
            if removed is not None and removed < began:
                self.fail(f"{entry['document']} answers {began - removed:.3f} s after it went")


class _Client(FastHttpUser):
    abstract = True
    wait_time = constant(0)
    network_timeout = 120.0
    connection_timeout = 120.0
    seen: ClassVar[Seen]

    def call(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Return a response's JSON; None, and a failure noted, where it is not 200."""
        with self.client.request(method, path, json=body, catch_response=True) as response:
            if response.status_code == 200:
                response.success()
                return response.json()
            self.seen.fail(f"{method} {path}: {response.status_code} {response.text}")
            response.failure(str(response.status_code))
            return None

    def ask(self, question: str) -> dict[str, Any] | None:
        """Ask, and look at the answer."""
        began = time.time()
        told = self.call("POST", "/answer", {"question": question})
        if told is not None:
            now = time.time()
            self.seen.answered.append((now, now - began))
            self.seen.look(told, began)
        return told


class Asker(_Client):
    """Asks one question after the other; now and then about the document that is there now."""

    numbers = itertools.count()

    def on_start(self) -> None:
        """Take questions of its own."""
        self.random = random.Random(next(self.numbers))  # noqa: S311 - the same every time

    @task
    def one(self) -> None:
        """Ask."""
        live = self.seen.live
        if live and self.random.random() < 0.2:
            self.ask(live)
        else:
            self.ask(self.random.choice(self.seen.questions))


class Editor(_Client):
    """Adds a document, asks about it, removes it, asks again."""

    wait_time = constant(1)
    fixed_count = 1

    @task
    def one(self) -> None:
        """Do it once."""
        seen = self.seen
        number = seen.num_added = seen.num_added + 1
        name, question = LIVE.format(number), ASKED.format(number)
        if self.call("POST", "/documents", {"id": name, "text": FACT.format(number)}) is None:
            return
        seen.live = question
        told = self.ask(question)
        if told is not None and all(read["document"] != name for read in told["passages"]):
            seen.fail(f"{name} was added and is not read")
        if self.call("DELETE", f"/documents/{name}") is None:
            return
        seen.removed_at[name] = time.time()
        seen.live = ""
        self.ask(question)
        seen.num_checked += 2


def main() -> int:
    """Measure, print, and return 1 where --check is given and a target missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("library", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slice-seconds", type=float, default=30.0)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", action="store_true")
    told = parser.parse_args()
    questions = [one.question for one in read_questions(told.questions)]
    command = [
        "--library",
        str(told.library),
        *(["--model", str(told.model)] if told.model else []),
    ]
    content: dict[str, Any] = {
        "cores": os.cpu_count(),
        "clients": CLIENTS,
        "load_average_before": os.getloadavg()[0],
        "targets": TARGETS,
    }
    failures: list[str] = []
    with server(command, batch=8) as together, server(command, batch=1) as alone:
        if told.rounds:
            content |= compare(together, alone, questions, told, failures)
    if told.minutes:
        with server(command, batch=8) as together:
            content["endurance"] = endure(together, questions, 60 * told.minutes, failures)
    content["load_average_after"] = os.getloadavg()[0]
    content["failures"] = len(failures)
    content["first_failures"] = failures[:5]
    content["missed"] = missed = [*misses(content)]
    text = json.dumps(content, indent=1)
    sys.stdout.write(text + "\n")
    if told.out is not None:
        told.out.write_text(text + "\n", encoding="utf-8")
    return int(told.check and bool(missed))


def misses(content: dict[str, Any]) -> Iterator[str]:
    """Yield each target that was missed."""
    if content.get("speedup", TARGETS["speedup"]) < TARGETS["speedup"]:
        yield f"speedup {content['speedup']:.2f}, expected at least {TARGETS['speedup']}"
    if content["failures"]:
        yield f"{content['failures']} failures, expected none"
    growth = content.get("endurance", {}).get("growth", 0.0)
    if growth >= TARGETS["growth"]:
        yield f"memory grew by {growth:.1%}, expected less than {TARGETS['growth']:.0%}"


@dataclass(frozen=True)
class Server:
    """A running one."""

    url: str
    pid: int

    def rss_mib(self) -> float:
        """Return its resident memory."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise ValueError("no VmRSS")


@contextmanager
def server(command: list[str], *, batch: int) -> Iterator[Server]:
    """Start `realm serve` on a free port; stop it as an operator does."""
    options = ["--port", "0", "--batch", str(batch), "--rate", "1000000"]
    started = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "realm", "serve", *command, *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    line = started.stdout.readline() if started.stdout else ""
    if "listening at" not in line:
        raise SystemExit(started.wait(60) or 1)
    try:
        yield Server(url=line.split()[2], pid=started.pid)
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(60)


def load(
    target: Server, questions: list[str], seconds: float, *, with_editor: bool = False
) -> Seen:
    """Let the clients ask for some seconds; return what they saw."""
    _Client.seen = seen = Seen(questions=questions)
    Asker.numbers = itertools.count()
    users = [Asker, Editor] if with_editor else [Asker]
    environment = Environment(user_classes=users, host=target.url, stop_timeout=120)
    runner = environment.create_local_runner()
    runner.start(CLIENTS + int(with_editor), spawn_rate=CLIENTS + 1)
    gevent.sleep(seconds)
    runner.quit()
    return seen


def compare(
    together: Server,
    alone: Server,
    questions: list[str],
    told: argparse.Namespace,
    failures: list[str],
) -> dict[str, Any]:
    """Return the throughput of both servers, in turn, and how many times one is the other."""
    rates: dict[str, list[float]] = {"together": [], "one_at_a_time": []}
    seconds: dict[str, list[float]] = {"together": [], "one_at_a_time": []}
    for number in range(told.rounds):
        pair = [("together", together), ("one_at_a_time", alone)]
        for name, target in pair if number % 2 else reversed(pair):
            began = time.time() + WARM_SECONDS
            ended = began + told.slice_seconds
            seen = load(target, questions, WARM_SECONDS + told.slice_seconds)
            failures += seen.failures
            kept = [took for when, took in seen.answered if began <= when < ended]
            rates[name].append(len(kept) / told.slice_seconds)
            seconds[name] += kept
            sys.stderr.write(f"{name}: {rates[name][-1]:.2f} answers/s\n")
    ratios = [a / b for a, b in zip(rates["together"], rates["one_at_a_time"], strict=True)]
    return {
        "answers_per_second": rates,
        "seconds": {name: percentiles(values) for name, values in seconds.items()},
        "speedups": ratios,
        "speedup": median(ratios),
    }


def endure(
    target: Server, questions: list[str], seconds: float, failures: list[str]
) -> dict[str, Any]:
    """Return how minutes of load went, with documents that come and go."""
    memory: list[tuple[float, float]] = []
    began = time.time()

    def watch() -> None:
        while True:
            memory.append((time.time() - began, target.rss_mib()))
            gevent.sleep(1.0)

    watcher = gevent.spawn(watch)
    seen = load(target, questions, seconds, with_editor=True)
    watcher.kill()
    failures += seen.failures
    settled = seconds / 5  # a minute of five
    width = max(10.0, seconds / 15)
    early = median(mib for at, mib in memory if settled <= at < settled + width)
    late = median(mib for at, mib in memory if seconds - width <= at < seconds)
    return {
        "seconds": seconds,
        "answers": len(seen.answered),
        "answers_per_second": len(seen.answered) / seconds,
        "latency": percentiles([took for _, took in seen.answered]),
        "documents_added_and_removed": seen.num_added,
        "answers_about_them_checked": seen.num_checked,
        "rss_mib": {"after_a_fifth": early, "at_the_end": late},
        "growth": late / early - 1,
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """Return p50 and p95."""
    cuts = quantiles(values, n=20, method="inclusive")
    return {"p50": cuts[9], "p95": cuts[18]}


if __name__ == "__main__":
    sys.exit(main())

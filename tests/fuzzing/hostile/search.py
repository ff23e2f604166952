"""Look for inputs that break a target, until the time is over: with atheris, or at random.

One target in one process, because a finding may be the end of it. What was tried is written down
every second, and the input in work before it is tried: also a crash leaves both behind.
"""

import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hostile.mutations import random_input

FOUND = 77
"""Exit code of a search that has found something."""
COUNTS, INPUT = "counts.json", "input"
MAX_ADDRESSES = 12 << 30
"""Bytes of address space: an input that wants more gets a MemoryError, which is a finding."""
MAX_SECONDS = 60
"""Of one input, by the clock: then atheris gives it up."""


@dataclass(kw_only=True)
class Search:
    """One target, attacked for some seconds."""

    name: str
    out: Path
    """Folder for the counts, and for the input in work."""
    seconds: float
    seed: int
    engine: str
    """atheris or random."""
    tried: int = 0
    taken: int = 0
    began: float = 0.0
    told: float = 0.0

    def run(self, extra: Callable[[], dict[str, Any]] | None = None) -> NoReturn:
        """Try the seeds, then mutations of them; exit with 0, or FOUND.

        Args:
            extra: returns further targets by name.
        """
        resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESSES, MAX_ADDRESSES))
        self._load(extra)
        seeds = self.target.seeds()
        for data in seeds:  # loads what they need: not counted as time
            self.began = self.told = time.monotonic()
            self.attack(data)
        if self.engine == "atheris":
            self._with_atheris(seeds)
        rng = random.Random(self.seed)  # noqa: S311 - nothing secret
        while True:
            self.attack(random_input(rng, seeds, self.target.max_bytes))

    def _load(self, extra: Callable[[], dict[str, Any]] | None) -> None:
        """Import the targets; under atheris with its counters in our own code.

        What is imported only when it is needed is needed by the seeds.
        """
        if self.engine == "atheris":
            import atheris

            with atheris.instrument_imports(include=["realm"]):
                self._import(extra)
                for data in self.target.seeds():
                    self.one(self.target, data)
        else:
            self._import(extra)

    def _import(self, extra: Callable[[], dict[str, Any]] | None) -> None:
        from hostile.catalogue import TARGETS
        from hostile.target import FindingError, attack

        self.target = {**TARGETS, **(extra() if extra else {})}[self.name]
        self.one, self.finding = attack, FindingError

    def attack(self, data: bytes) -> None:
        """Try one input; exit when the time is over, or with what was found."""
        (self.out / INPUT).write_bytes(data)
        self.tried += 1
        try:
            self.taken += self.one(self.target, data)
        except self.finding as error:
            self._write(str(error))
            sys.stderr.write(f"{error}\n")
            os._exit(FOUND)
        now = time.monotonic()
        if now - self.told > 1.0:
            self.told = now
            self._write(None)
        if now - self.began > self.seconds:
            self._write(None)
            os._exit(0)

    def _write(self, finding: str | None) -> None:
        told = {"tried": self.tried, "taken": self.taken, "finding": finding}
        seconds = {"seconds": round(time.monotonic() - self.began, 1)}
        (self.out / COUNTS).write_text(json.dumps({**told, **seconds}), encoding="utf-8")

    def _with_atheris(self, seeds: list[bytes]) -> NoReturn:
        import atheris

        corpus = self.out / "corpus"
        corpus.mkdir()
        for number, data in enumerate(seeds):
            (corpus / f"seed-{number}").write_bytes(data)

        def mutate(data: bytes, max_bytes: int, seed: int) -> bytes:
            rng = random.Random(seed)  # noqa: S311 - nothing secret
            if rng.random() < 0.5:
                return atheris.Mutate(data, max_bytes)
            return random_input(rng, [data], max_bytes)

        options = {
            "seed": self.seed + 1,  # 0: a seed of its own choice
            "max_len": self.target.max_bytes,
            "timeout": MAX_SECONDS,
            "rss_limit_mb": 0,  # told by the growth of memory at each input
            "artifact_prefix": f"{self.out}/",
            "verbosity": 0,
        }
        told = [f"-{name}={value}" for name, value in options.items()]
        atheris.Setup(["fuzz", *told, str(corpus)], self.attack, custom_mutator=mutate)
        atheris.Fuzz()
        os._exit(0)

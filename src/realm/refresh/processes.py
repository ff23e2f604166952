"""Builder processes that a trainer starts on its own machine and starts again when they die."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from realm.device import AUTO
from realm.refresh.presence import PROCESSES

LONGEST_PAUSE_SECONDS = 60.0
MAX_FAILURES = 8
"""Deaths in a row, each within its first minute, after which a builder is given up."""
SOON_SECONDS = 60.0
STOP_SECONDS = 2.0
"""How long a builder has to end before it is killed."""
LOG_TAIL_CHARACTERS = 400

Tell = Callable[[str], None]
Command = Callable[[Path, int], list[str]]


@dataclass(kw_only=True)
class _Builder:
    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    not_before: float = 0.0
    is_given_up: bool = False
    ended: bool = field(default=False)
    """It came to its end by itself."""


class BuilderProcesses:
    """Keeps a number of builders alive; `look` is called now and then."""

    def __init__(
        self,
        run: Path,
        count: int,
        *,
        threads: int,
        tell: Tell,
        device: str = AUTO,
        command: Command | None = None,
    ) -> None:
        """Prepare; nothing is started before `look`.

        Args:
            run: the run's folder.
            count: how many builders.
            threads: CPU threads of each.
            tell: called with a sentence when something happens.
            device: where they embed.
            command: (run, threads) -> command line (None: `realm index --follow`).
        """
        self.run = run
        self.threads = threads
        self.tell = tell
        self.command = command or partial(follow_command, device=device)
        self._builders = [_Builder(number=number) for number in range(count)]
        self._lock = threading.Lock()
        """One thread looks, another one stops: nothing is started after that."""

    def look(self) -> None:
        """Start what is not running; after each failure the pause is twice as long."""
        with self._lock:
            self._look(time.monotonic())

    def _look(self, now: float) -> None:
        for builder in self._builders:
            if builder.is_given_up or builder.ended:
                continue
            code = builder.process.poll() if builder.process else None
            if builder.process and code is None:
                continue
            if builder.process:
                self._has_died(builder, int(code or 0), now)
            elif now >= builder.not_before:
                self._start(builder, now)

    def log(self, number: int = 0) -> Path:
        """Return where a builder's output goes."""
        return self.run / PROCESSES / f"builder-{number}.log"

    def last_words(self) -> str:
        """Return the ends of the builders' logs, for an error message."""
        told: list[str] = []
        for builder in self._builders:
            try:
                text = self.log(builder.number).read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            if lines := text.strip().splitlines():
                told.append(lines[-1][-LOG_TAIL_CHARACTERS:])
        return "; ".join(dict.fromkeys(told))

    def stop(self) -> None:
        """End all builders, by force after two seconds; none is started from here on."""
        with self._lock:
            builders, self._builders = self._builders, []
        running = [b.process for b in builders if b.process and b.process.poll() is None]
        for process in running:
            process.terminate()
        if not _have_ended(running, STOP_SECONDS):
            for process in running:
                process.kill()
            _have_ended(running, STOP_SECONDS / 4)

    def pids(self) -> list[int]:
        """Return the processes that run now."""
        return [b.process.pid for b in self._builders if b.process and b.process.poll() is None]

    def _start(self, builder: _Builder, now: float) -> None:
        try:
            self.log(builder.number).parent.mkdir(parents=True, exist_ok=True)
            with self.log(builder.number).open("ab") as log:
                builder.process = subprocess.Popen(  # noqa: S603
                    self.command(self.run, self.threads),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=_environment(self.threads),
                    start_new_session=True,  # Ctrl-C is for the trainer, which stops its builders
                )
        except OSError as error:
            self._pause(builder, now, f"cannot start a builder: {error}")
        builder.started = now

    def _has_died(self, builder: _Builder, code: int, now: float) -> None:
        if code == 0:
            builder.ended = True
            return
        if now - builder.started > SOON_SECONDS:
            builder.failures = 0
        builder.process = None
        self._pause(builder, now, f"builder {builder.number} ended with {_told(code)}")

    def _pause(self, builder: _Builder, now: float, what: str) -> None:
        builder.failures += 1
        if builder.failures > MAX_FAILURES:
            builder.is_given_up = True
            self.tell(f"{what}, {builder.failures} times in a row: given up. {self.last_words()}")
            return
        pause = min(LONGEST_PAUSE_SECONDS, 0.5 * 2.0**builder.failures)
        builder.not_before = now + pause
        self.tell(f"{what}; started again in {pause:.0f} s")


def follow_command(run: Path, threads: int, device: str = AUTO) -> list[str]:
    """Return the command line of a builder that ends with this process."""
    return [
        *(
            sys.executable,
            "-P",
            "-m",
            "realm",
            "index",  # whatever lies in this folder
            "--follow",
            str(run.resolve()),
        ),
        *("--threads", str(threads), "--device", device, "--parent", str(os.getpid())),
    ]


def _environment(threads: int) -> dict[str, str]:
    """Return the environment of a builder: not that of a rank, if the trainer is one."""
    own = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK"}
    inherited = {name: value for name, value in os.environ.items() if name not in own}
    return inherited | {"OMP_NUM_THREADS": str(threads)}


def _told(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _have_ended(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> bool:
    """Wait until all have ended; return whether they did in time."""
    deadline = time.monotonic() + seconds
    for process in processes:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
    return True

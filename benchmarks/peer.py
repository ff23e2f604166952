"""A peer in an environment of its own, driven over a pipe so that its rounds interleave with ours.

The peer's script runs under the other environment's Python and ends with `serve({...})`; here,
`Peer` starts it and calls its functions by name. Each call is timed where it runs. Only the
standard library is imported: both ends use this file.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from harness import Seconds

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
STATUS = Path("/proc/self/status")
OLD_MODULE = "transformers.models.deprecated.realm"
"""What the environment `old` is for."""
FORGET = Path("/proc/self/clear_refs")


class PeerError(Exception):
    """A peer's process failed; the message says how."""


class Answer(NamedTuple):
    """What a call in a peer's process returned, and what it took there."""

    result: Any
    seconds: Seconds
    peak_bytes: int
    """The most memory that the process held during the call, above what it held before."""


class Peer:
    """A process that answers calls; leave it as a context manager."""

    def __init__(
        self,
        script: Path,
        *arguments: str,
        python: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the process.

        Args:
            script: ends with `serve`.
            arguments: of the script.
            python: of the other environment; None: this one's.
            environment: variables to add, for example how many threads.
        """
        path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")]))
        self.name = script.name
        self._process = subprocess.Popen(  # noqa: S603 - our own script
            [str(python or sys.executable), str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, **(environment or {})},
        )

    def call(self, name: str, /, **arguments: Any) -> Answer:  # noqa: ANN401 - whatever JSON holds
        """Call one of the functions that the script serves, and wait for it.

        Raises:
            PeerError: the function failed, or the process ended.
        """
        told, sent = self._process.stdout, self._process.stdin
        assert told is not None and sent is not None  # noqa: S101, PT018 - both are pipes
        try:
            sent.write(json.dumps({"call": name, "arguments": arguments}) + "\n")
            sent.flush()
            line = told.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise PeerError(f"{self.name} ended with code {self._process.wait()} during {name}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(f"{self.name}: {name} failed: {answer['error']}")
        return Answer(answer["result"], Seconds(*answer["seconds"]), answer["peak_bytes"])

    def action(self, name: str, /, **arguments: Any) -> Callable[[], Seconds]:  # noqa: ANN401
        """Return the call as an action for `interleaved`."""
        return lambda: self.call(name, **arguments).seconds

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def serve(functions: Mapping[str, Callable[..., object]]) -> None:
    """Answer calls from standard input until it ends; whatever else prints goes to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        for line in sys.stdin:
            call = json.loads(line)
            out.write(json.dumps(_answer(functions[call["call"]], call["arguments"])) + "\n")
            out.flush()


def memory_bytes(key: str) -> int:
    """Return a line of /proc/self/status: VmRSS is held now, VmHWM is the most so far.

    Not getrusage's ru_maxrss: a new process inherits its parent's.
    """
    for line in STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise PeerError(f"{STATUS} says nothing of {key}")


def forget_peak() -> None:
    """Make VmHWM start anew from what is held now."""
    FORGET.write_text("5", encoding="utf-8")


def environment_of(name: str, module: str | None = None) -> Path | None:
    """Return the Python of a peers' environment (`make .venv-NAME/.installed`).

    Args:
        name: of the environment.
        module: what is wanted there.

    Returns:
        None where the environment is missing, or cannot import the module.
    """
    python = ROOT / f".venv-{name}" / "bin" / "python"
    if not python.exists():
        return None
    if module is not None:
        command = [str(python), "-c", f"import {module}"]
        if subprocess.run(command, check=False).returncode:  # noqa: S603 - our own
            return None
    return python


def _answer(function: Callable[..., object], arguments: Mapping[str, Any]) -> dict[str, Any]:
    gc.collect()
    gc.disable()
    forget_peak()
    held = memory_bytes("VmRSS")
    try:
        cpu, wall = time.process_time(), time.perf_counter()
        result = function(**arguments)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    except Exception as error:  # noqa: BLE001 - told to the other side
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        gc.enable()
    peak = max(0, memory_bytes("VmHWM") - held)
    gc.collect()
    with suppress(OSError, AttributeError):  # several peers wait at once, and need not hold it
        ctypes.CDLL(None).malloc_trim(0)
    return {"result": result, "seconds": [cpu, wall], "peak_bytes": peak}

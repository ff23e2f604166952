"""A command run in a child of this process: torch is imported already, and a fault dies with it."""

import json
import os
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.layer import Layer
from tests.towns import call_realm

LIMIT_SECONDS = 120


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    err: str
    calls: list[str]
    failed: list[str]


def run_with(layer: Layer, command: Sequence[object]) -> Ended:
    """Run a command of realm over a layer, in a child."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.json"
        told.touch()
        child = os.fork()
        if not child:
            _run(layer, command, told)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        text = told.read_text(encoding="utf-8")
        assert status == 0, f"{command} ended with {status}: {text}"
        value: dict[str, Any] = json.loads(text)
        return Ended(**value)


def _run(layer: Layer, command: Sequence[object], told: Path) -> None:
    status = 1
    handle = os.open(told, os.O_WRONLY)
    signal.alarm(LIMIT_SECONDS)  # a fork of a process with threads may hang: then it fails
    try:
        layer.install()
        ended = call_realm(*command)
        value = {
            "code": ended.code,
            "err": ended.err,
            "calls": layer.calls,
            "failed": layer.failed,
        }
        os.write(handle, json.dumps(value).encode())
        status = 0
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent tells it
        os.write(handle, repr(error).encode())
    finally:
        os._exit(status)

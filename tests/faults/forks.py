"""A command run in a child of this process: torch is imported already, and a fault dies with it."""

import json
import os
import resource
import signal
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jaxtyping

from tests.faults.layer import Layer
from tests.towns import Result, call_realm

LIMIT_SECONDS = 120


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str
    calls: list[str]
    failed: list[str]


def run_with(
    layer: Layer,
    command: Sequence[object],
    *,
    limit_bytes: int = -1,
    call: Callable[..., Result] = call_realm,
) -> Ended:
    """Run a command of realm over a layer, in a child.

    Args:
        layer: between the child and its files.
        command: as for `call_realm`.
        limit_bytes: no file may become larger: what native writers make of a full disk.
        call: what is called with the command's parts.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _run(layer, lambda: call(*command), writer, limit_bytes)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as stream:
        text = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f"{command} ended with {status}: {text}"
    value: dict[str, Any] = json.loads(text)
    return Ended(**value)


def _run(layer: Layer, call: Callable[[], Result], writer: int, limit_bytes: int) -> None:
    status, told = 1, b""
    signal.alarm(LIMIT_SECONDS)  # a fork of a process with threads may hang: then it fails
    try:
        if layer.reads:  # the check of a protocol reads what is lazy, and hides how it failed
            jaxtyping.config.update("jaxtyping_disable", True)  # noqa: FBT003
        layer.install()
        if limit_bytes >= 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
        ended = call()
        value = Ended(ended.code, ended.out, ended.err, layer.calls, layer.failed)
        told, status = json.dumps(value._asdict()).encode(), 0
    except BaseException:  # noqa: BLE001 - whatever it is, the parent tells it
        told = traceback.format_exc().encode()
    finally:
        with os.fdopen(writer, "wb") as stream:
            stream.write(told)
        os._exit(status)

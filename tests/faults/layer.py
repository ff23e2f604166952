"""A layer between a process and its files that fails when it is told to.

No root, no FUSE, no preloaded library: Python's audit events stand for opening, renaming, making
and removing, wrapped files for writing, and the entry of each native writer (Arrow, safetensors,
FAISS) for what those do. What reads is in `reading.py`. `sitecustomize.py` beside this puts it
into a process of its own.
"""

import builtins
import errno
import io
import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.reading import WRITING, path_read, wrap_readers

ENVIRONMENT = "REALM_FAULTS"
"""Settings of a `Layer` as JSON, for a process of its own."""
CODES = ("ENOSPC", "EIO", "EROFS", "EACCES")
REMOVALS = {"os.remove", "os.rmdir", "shutil.rmtree"}
EVENTS = {"os.rename", "os.mkdir", "os.link", "os.symlink", "os.truncate", *REMOVALS}


@dataclass
class Layer:
    """Counts what a process does to the files below a folder, and fails one call or several."""

    root: str
    fail_at: int = -1
    """Number of the first call that fails, from 0; -1: none does."""
    code: str = "ENOSPC"
    lasts: bool = False
    """Whether later calls fail too: a disk that stays full."""
    reads: bool = False
    """Whether the calls that read count and fail, not those that write."""
    calls: list[str] = field(default_factory=list[str])
    """What was called."""
    failed: list[str] = field(default_factory=list[str])

    def told(self, call: str, path: object) -> OSError | None:
        """Count a call; return the error that it is to end with."""
        name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else str(path)
        if not os.path.abspath(name).startswith(self.root):  # noqa: PTH100 - no look at the disk
            return None
        number = len(self.calls)
        self.calls.append(f"{call} {os.path.relpath(name, self.root)}")
        is_due = number == self.fail_at or (self.lasts and 0 <= self.fail_at < number)
        if not is_due or (self.lasts and number != self.fail_at and call in REMOVALS):
            return None
        self.failed.append(self.calls[-1])
        value = getattr(errno, self.code)
        return OSError(value, os.strerror(value), name)

    def check(self, call: str, path: object) -> None:
        """Count a call; fail if it is due."""
        if error := self.told(call, path):
            raise error

    def install(self) -> None:
        """Stand between this process and its files, for as long as it lives."""
        if self.reads:
            sys.addaudithook(self._hear_reading)
            wrap_readers(self)
            return
        sys.addaudithook(self._hear)
        self._wrap_files()
        self._wrap_native()

    def _hear_reading(self, event: str, arguments: tuple[Any, ...]) -> None:
        if (path := path_read(event, arguments)) is not None:
            self.check(event, path)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes) and flags & WRITING:
                self.check("open", path)
        elif event in EVENTS:
            self.check(event, arguments[0])

    def _wrap_files(self) -> None:
        layer, real_open, real_fsync = self, io.open, os.fsync

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                layer.check("write", self.name)
                return super().write(data)

        def open_file(
            file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **kw: Any
        ) -> Any:
            if ("r" in mode and "+" not in mode) or not isinstance(file, str | os.PathLike):
                return real_open(file, mode, buffering, *rest, **kw)
            raw = File(os.fspath(file), mode.replace("b", "").replace("t", ""))
            stream = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return stream if "b" in mode else io.TextIOWrapper(stream, *rest, **kw)

        def fsync(handle: int) -> None:
            layer.check("fsync", Path(f"/proc/self/fd/{handle}").readlink())
            real_fsync(handle)

        builtins.open = io.open = open_file
        os.fsync = fsync

    def _wrap_native(self) -> None:
        import pyarrow as pa
        import safetensors.torch
        from safetensors import SafetensorError

        layer = self
        serialize, new_file, os_file = safetensors.torch.serialize_file, pa.ipc.new_file, pa.OSFile

        def serialize_file(tensors: Any, filename: Any, *rest: Any, **kw: Any) -> Any:
            if error := layer.told("native write", filename):
                raise SafetensorError(f"I/O error: {error.strerror} (os error {error.errno})")
            return serialize(tensors, filename, *rest, **kw)

        def new_ipc_file(sink: Any, *rest: Any, **kw: Any) -> Any:
            if isinstance(sink, str):
                layer.check("native write", sink)
            return new_file(sink, *rest, **kw)

        def open_os_file(path: str, *rest: Any, **kw: Any) -> Any:
            layer.check("native write", path)
            return os_file(path, *rest, **kw)

        safetensors.torch.serialize_file = serialize_file
        pa.ipc.new_file, pa.OSFile = new_ipc_file, open_os_file


def install_from_environment() -> None:
    """Install what the environment asks for."""
    if told := os.environ.get(ENVIRONMENT):
        Layer(**json.loads(told)).install()


def environment(layer: Layer) -> dict[str, str]:
    """Return the environment of a process that is to have this layer."""
    here = Path(__file__).parent
    told = asdict(layer)
    path = os.pathsep.join([str(here / "site"), str(here.parents[1])])
    return {ENVIRONMENT: json.dumps(told), "PYTHONPATH": path}

"""The ways by which a process reads its files, each with a place where it may fail.

Python's files fail at opening, and at any read afterwards; a map when it is made; a native reader
(Arrow, safetensors, FAISS, torch) when it opens its file, with the error that this library raises
then. A page of a map that cannot be read ends the process by a signal, and is not played here.
"""

import builtins
import importlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
LISTINGS = {"os.listdir", "os.scandir"}
OWNERS = {"realm", "bm25s", "faiss", "numpy", "pyarrow", "safetensors", "torch"}
"""Packages that may have taken a native reader into a name of their own."""


class Told(Protocol):
    """What counts calls, and decides which is to fail."""

    def told(self, call: str, path: object) -> OSError | None:
        """Count a call; return the error that it is to end with."""
        ...

    def check(self, call: str, path: object) -> None:
        """Count a call; fail if it is due."""
        ...


def path_read(event: str, arguments: tuple[Any, ...]) -> str | bytes | None:
    """Return what an audit event opens, lists or maps to read; None: it does nothing like it."""
    if event == "open":
        path, mode, flags = arguments
        is_file = mode is not None  # else it is `os.open`: of a folder, to flush it
        return path if is_file and isinstance(path, str | bytes) and not flags & WRITING else None
    if event in LISTINGS:
        return arguments[0] if isinstance(arguments[0], str | bytes) else None
    if event == "mmap.__new__" and arguments[0] >= 0:
        return os.fsencode(Path(f"/proc/self/fd/{arguments[0]}").readlink())
    return None


def wrap_readers(layer: Told) -> None:
    """Let reads from opened files fail, and the entries of native readers."""
    files = _wrap_files(layer)
    import pyarrow as pa
    import safetensors
    import torch

    for native, wrapped in (
        (pa.memory_map, _entry(layer, pa.memory_map, _arrow)),
        (pa.input_stream, _input_stream(pa.input_stream, files)),
        (safetensors.safe_open, _entry(layer, safetensors.safe_open, _safetensors)),
        (torch.from_file, _entry(layer, torch.from_file, _torch)),
    ):
        _replace(native, wrapped)
    try:
        faiss = importlib.import_module("faiss")
    except ImportError:
        return
    _replace(faiss.read_index, _entry(layer, faiss.read_index, _faiss))


def _wrap_files(layer: Told) -> type[io.FileIO]:
    real_open = io.open

    class File(io.FileIO):
        def read(self, size: int | None = -1, /) -> Any:
            self._check()
            return super().read(-1 if size is None else size)

        def readall(self) -> Any:
            self._check()
            return super().readall()

        def readinto(self, buffer: Any, /) -> Any:
            self._check()
            return super().readinto(buffer)

        def _check(self) -> None:
            if error := layer.told("read", self.name):
                raise OSError(error.errno, error.strerror)  # like a real one, it names no file

    def open_file(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **kw: Any) -> Any:
        if set(mode) & set("wax+") or not buffering or not isinstance(file, str | os.PathLike):
            return real_open(file, mode, buffering, *rest, **kw)
        stream = io.BufferedReader(File(os.fspath(file), "r"))
        return stream if "b" in mode else io.TextIOWrapper(stream, *rest, **kw)

    builtins.open = io.open = open_file
    return File


def _entry(
    layer: Told, native: Callable[..., Any], failure: Callable[[OSError], Exception]
) -> Callable[..., Any]:
    """Return a native reader that fails as the library does, when it is due."""

    def call(path: Any, *rest: Any, **kw: Any) -> Any:
        if isinstance(path, str | os.PathLike) and (error := layer.told("native open", path)):
            raise failure(error)
        return native(path, *rest, **kw)

    return call


def _input_stream(native: Callable[..., Any], files: type[io.FileIO]) -> Callable[..., Any]:
    """Return Arrow's stream over a file of Python's, whose reads fail."""
    import pyarrow as pa

    def call(path: Any, *rest: Any, **kw: Any) -> Any:
        if not isinstance(path, str):
            return native(path, *rest, **kw)
        return native(pa.PythonFile(files(path, "r"), mode="r"), *rest, **kw)

    return call


def _replace(native: Any, wrapped: Any) -> None:
    """Put a reader in the place of another one, wherever a module has a name for it."""
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").partition(".")[0] in {*OWNERS, native.__module__}:
            for name in [name for name, value in vars(module).items() if value is native]:
                setattr(module, name, wrapped)


def _arrow(error: OSError) -> Exception:
    told = f"Failed to open local file '{error.filename}'. Detail: [errno {error.errno}] "
    return OSError(error.errno, told + str(error.strerror))


def _safetensors(error: OSError) -> Exception:
    return FileNotFoundError(f"No such file or directory: {error.filename}")


def _torch(error: OSError) -> Exception:
    told = f"unable to open file <{error.filename}> in read-only mode: "
    return RuntimeError(f"{told}{error.strerror} ({error.errno})")


def _faiss(error: OSError) -> Exception:
    told = f"could not open {error.filename} for reading: {error.strerror}"
    return RuntimeError(f"Error in faiss::FileIOReader::FileIOReader: Error: 'f' failed: {told}")

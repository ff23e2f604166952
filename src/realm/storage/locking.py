"""One writer of a folder at a time.

The lock is the operating system's, on a file `.NAME.lock` beside the folder: it ends with the
process, however that ends, so that a file which a killed process left behind keeps nobody out.
Windows, and file systems that have no locks, go without.
"""

import os
import socket
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from realm.errors import LockedError
from realm.storage.files import hidden

POLL_SECONDS = 0.1


class _Held(threading.local):
    """The lock files that this thread holds."""

    def __init__(self) -> None:
        self.files: set[Path] = set()


_held = _Held()


@contextmanager
def locked(folder: Path, *, wait_seconds: float = 0.0) -> Generator[None]:
    """Keep every other writer out of `folder`; whoever holds it already may take it again.

    Args:
        folder: need not exist.
        wait_seconds: how long to wait for another writer to let it go.

    Raises:
        LockedError: another process, or another thread of this one, is writing it.
    """
    file = hidden(folder.absolute(), "lock")
    if file in _held.files:
        yield
        return
    handle = _take_in_time(file, folder, wait_seconds)
    _held.files.add(file)
    try:
        yield
    finally:
        _held.files.remove(file)
        if handle is not None:
            with suppress(OSError):
                file.unlink()  # before the lock is let go: nobody else's is removed
            os.close(handle)


@contextmanager
def claimed(part: Path) -> Generator[bool]:
    """Take a part of what several processes do together; yield False if another one has it."""
    with ExitStack() as holding:
        try:
            holding.enter_context(locked(part))
        except LockedError:
            is_mine = False
        else:
            is_mine = True
        yield is_mine


def is_locked(folder: Path) -> bool:
    """Return whether a living process holds the lock of `folder` (False where there are none)."""
    if not hidden(folder.absolute(), "lock").exists():
        return False
    with claimed(folder) as is_free:
        return not is_free


def _take_in_time(file: Path, folder: Path, wait_seconds: float) -> int | None:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            return _take(file, folder)
        except LockedError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(POLL_SECONDS)


def _take(file: Path, folder: Path) -> int | None:
    """Return the open file that holds the lock, None where there are no locks."""
    try:
        fcntl: Any = import_module("fcntl")
    except ImportError:  # Windows
        return None
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = _open(file)
        except OSError:
            return None  # who cannot write here is told so by what is to be written
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(handle, 1_000, 0).decode(errors="replace")
            os.close(handle)
            raise LockedError(
                f"{folder} is being written by {owner or 'another process'}; wait for it, or "
                "choose another --out"
            ) from None
        except OSError:  # no locks on this file system
            return handle
        if _is_at(file, handle):
            _sign(handle)
            return handle
        os.close(handle)  # its owner let go and removed it after it was opened here


def _open(file: Path) -> int:
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # another user's: it can be locked all the same
        return os.open(file, os.O_RDONLY)


def _is_at(file: Path, handle: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _sign(handle: int) -> None:
    """Write who holds the lock, for whoever is kept out."""
    since = datetime.now(UTC).astimezone().isoformat(" ", "seconds")
    owner = f"process {os.getpid()} on {socket.gethostname()} since {since}"
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, owner.encode(), 0)

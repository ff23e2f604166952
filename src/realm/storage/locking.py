"""One writer of a folder at a time.

The lock is the operating system's, on a file `.NAME.lock` beside the folder: it ends with the
process, however that ends, so that a file which a killed process left behind keeps nobody out.
Windows, and file systems that have no locks, go without.
"""

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from realm.errors import LockedError
from realm.storage.files import LOCK, hidden

POLL_SECONDS = 0.1
LOOK_SECONDS = 0.001
"""Longest pause before a lock is tried again that somebody only looked at."""


class _Held(threading.local):
    """The lock files that this thread holds."""

    def __init__(self) -> None:
        self.files: set[Path] = set()


_held = _Held()


@contextmanager
def locked(
    folder: Path,
    *,
    wait_seconds: float = 0.0,
    make_parent: bool = True,
    waiting: Callable[[], object] = lambda: None,
) -> Generator[None]:
    """Keep every other writer out of `folder`; whoever holds it already may take it again.

    Args:
        folder: need not exist.
        wait_seconds: how long to wait for another writer to let it go.
        make_parent: make the folder in which it is to stand.
        waiting: called again and again meanwhile; what it raises ends the wait.

    Raises:
        LockedError: another process, or another thread of this one, is writing it.
    """
    file = _lock_file(folder)
    if file in _held.files:
        yield
        return
    if make_parent:
        with suppress(OSError):  # who cannot write here is told so by what is to be written
            file.parent.mkdir(parents=True, exist_ok=True)
    handle = _take_in_time(file, folder, wait_seconds, waiting)
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
    """Take a part of what several processes do together; yield False if it is not to be had.

    That is, another process has it, or the folder that it belongs to is gone: somebody has brought
    the work to its end meanwhile.
    """
    with ExitStack() as holding:
        is_mine = part.parent.is_dir()
        if is_mine:
            try:
                holding.enter_context(locked(part, make_parent=False))
            except LockedError:
                is_mine = False
        yield is_mine and part.parent.is_dir()


def is_locked(folder: Path) -> bool:
    """Return whether a living process, this one too, holds the lock of `folder`.

    Nobody who wants the lock at this moment is kept from it. False where there are no locks.
    """
    try:
        fcntl: Any = import_module("fcntl")
        handle = os.open(hidden(folder.absolute(), LOCK), os.O_RDONLY)
    except (ImportError, OSError):
        return False
    try:
        return _is_taken(fcntl, handle)
    finally:
        os.close(handle)


def is_being_filled(folder: Path) -> bool:
    """Return whether a living process writes a part of `folder`; a lock file alone says nothing."""
    parts = (lock.name.removesuffix(".lock")[1:] for lock in folder.glob(".*.lock"))
    return any(is_locked(folder / part) for part in parts)


def touch_lock(folder: Path) -> None:
    """Let those who wait for the lock of `folder` see that its holder, who calls this, moves on."""
    with suppress(OSError):
        os.utime(hidden(folder.absolute(), LOCK))


def lock_touched(folder: Path) -> int | None:
    """Return when the lock of `folder` was taken or touched, to be compared; None: there is none.

    By the clock of the file system, in nanoseconds.
    """
    try:
        return hidden(folder.absolute(), LOCK).stat().st_mtime_ns
    except OSError:
        return None


def _lock_file(folder: Path) -> Path:
    """Return the lock of `folder` by one name, whatever leads to where it stands."""
    place = folder.absolute()
    if place.name == "..":
        place = Path(os.path.realpath(place))
    return hidden(Path(os.path.realpath(place.parent)) / place.name, LOCK)


def _take_in_time(
    file: Path, folder: Path, wait_seconds: float, waiting: Callable[[], object]
) -> int | None:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            return _take(file, folder)
        except LockedError:
            if time.monotonic() >= deadline:
                raise
        waiting()
        time.sleep(POLL_SECONDS)


def _take(file: Path, folder: Path) -> int | None:
    """Return the open file that holds the lock, None where there are no locks."""
    try:
        fcntl: Any = import_module("fcntl")
    except ImportError:  # Windows
        return None
    while True:
        try:
            handle = _open(file)
        except OSError:
            return None  # see `locked`
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not _is_taken(fcntl, handle):  # somebody was looking, or has just let go
                os.close(handle)
                time.sleep(random.uniform(0.0, LOOK_SECONDS))  # noqa: S311
                continue
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


def _is_taken(fcntl: Any, handle: int) -> bool:  # noqa: ANN401
    """Return whether somebody holds the lock, other than by looking, as this does.

    Any number of processes may look at the same moment: they share the lock.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks on this file system
        return False
    fcntl.flock(handle, fcntl.LOCK_UN)
    return False


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

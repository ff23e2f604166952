"""A folder for the files that targets read, gone with the process."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
"""Where files are no disk's: a thousand a second are written."""

PLACE = "REALM_FUZZING_PLACE"
"""Environment variable: where else, by whom the folder is removed also after a crash."""


def quick_place() -> str | None:
    """Return the folder for temporary files that is in memory; None: there is none here."""
    if PLACE in os.environ:
        return os.environ[PLACE]
    return str(IN_MEMORY) if os.access(IN_MEMORY, os.W_OK) else None


@cache
def scratch() -> Path:
    """Return this process's folder."""
    folder = Path(tempfile.mkdtemp(prefix="realm-fuzzing-", dir=quick_place()))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def fresh_folder(name: str) -> Path:
    """Return an empty folder of this name."""
    folder = scratch() / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def from_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], None]:
    """Return a function that writes its input into a file and reads that."""

    def take(data: bytes) -> None:
        path = scratch() / name
        path.write_bytes(data)
        read(path)

    return take


def chosen(data: bytes, num_choices: int) -> tuple[int, bytes]:
    """Return a choice, which the first byte makes, and the rest."""
    return (data[0] % num_choices if data else 0), data[1:]

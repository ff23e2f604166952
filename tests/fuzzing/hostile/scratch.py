"""A folder for the files that targets read, gone with the process."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path


@cache
def scratch() -> Path:
    """Return this process's folder."""
    folder = Path(tempfile.mkdtemp(prefix="realm-fuzzing-"))
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

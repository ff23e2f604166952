"""How much memory a container, or a batch system, lets a process have: Linux's control groups.

A process is in one group of a tree, and every group above it may set a limit, too. Within a
container the tree often begins at the container itself, whatever name the host has for it.
"""

import math
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
"""Where the groups lie: of version 2 one tree, of version 1 a tree for each controller."""
OWN = Path("/proc/self/cgroup")
"""The groups of this process: lines `number:controllers:path`, in version 2 without controllers."""


def memory_limit_bytes() -> float:
    """Return the least limit that this process's groups set; endless where none does."""
    return min(map(_limit, _files()), default=math.inf)


def _files() -> Iterator[Path]:
    """Yield the files that hold limits, or would if there were one."""
    try:
        lines = OWN.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        controllers, _, group = line.partition(":")[2].partition(":")
        if not controllers:
            tree, name = GROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            tree, name = GROUPS / controllers, "memory.limit_in_bytes"
        else:
            continue
        place = tree / group.strip("/")
        for one in (place, *place.parents):
            if one.is_relative_to(tree):
                yield one / name


def _limit(file: Path) -> float:
    """Return the limit that a file tells; endless where there is none, or only `max`."""
    try:
        limit = float(int(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return math.inf
    return limit if limit > 0 else math.inf

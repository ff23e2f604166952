"""On what a benchmark ran: commit, processor, memory, load. Never the machine's name."""

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16")
"""Instructions that decide how fast matrix products of 16 bits are."""


def commit(root: Path) -> dict[str, Any]:
    """Return the commit of a checkout and whether files differ from it, results aside."""
    return {
        "commit": _git(root, "rev-parse", "--short=12", "HEAD"),
        "dirty": bool(_git(root, "status", "--porcelain", "--", ".", ":!benchmarks/results")),
    }


def hardware() -> dict[str, Any]:
    """Return processor, its features, cores that may be used, and bytes of memory."""
    cpu, flags = _cpuinfo()
    return {
        "cpu": cpu or platform.machine(),
        "features": [feature for feature in FEATURES if feature in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def load_average() -> float:
    """Return the machine's load over the last minute."""
    return round(os.getloadavg()[0], 2)


def _cpuinfo() -> tuple[str, set[str]]:
    path = Path("/proc/cpuinfo")
    told = dict[str, str]()
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        key, _, value = line.partition(":")
        told.setdefault(key.strip(), value.strip())
    return told.get("model name", ""), set(told.get("flags", "").split())


def _git(root: Path, *arguments: str) -> str | None:
    """Return what git says, None where there is no git or no repository."""
    git = shutil.which("git")
    if git is None:
        return None
    run = subprocess.run(  # noqa: S603 - fixed arguments
        [git, "-C", str(root), *arguments], capture_output=True, text=True, check=False
    )
    return run.stdout.strip() if run.returncode == 0 else None

"""Run every benchmark, go on after one that fails, and print one table at the end.

make bench                                  # all of them, and the environments of the peers
python benchmarks/all.py embedding start_up # some of them
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from harness import RESULTS, ROOT, shown

HERE = Path(__file__).resolve().parent
PATIENCE_SECONDS = 1_800
"""After which a part is stopped, and counts as failed."""
PARTS = ("embedding", "exact_search", "training_step", "answering", "start_up", "growth")


def main() -> int:
    """Run the parts and return 1 where one failed, or a target was missed with --check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="smallest form, on shipped data")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--out", type=Path, help="folder of the results")
    told = parser.parse_args()
    parts = told.parts or PARTS
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"found {', '.join(unknown)}, expected parts among {', '.join(PARTS)}")
    flags = [flag for flag in ("quick", "check") if getattr(told, flag)]
    out = told.out or (ROOT / "runs" / "bench" / "quick" if told.quick else RESULTS)
    return run_parts(parts, out, [f"--{flag}" for flag in flags])


def run_parts(parts: Sequence[str], out: Path, flags: Sequence[str], scripts: Path = HERE) -> int:
    """Run each part in a process of its own; print a summary; return 1 where any failed."""
    began = time.perf_counter()
    codes: dict[str, int] = {}
    older: set[str] = set()
    for part in parts:
        result = out / f"{part}.json"
        moved = result.read_text(encoding="utf-8") if result.is_file() else None
        result.unlink(missing_ok=True)
        command = [sys.executable, str(scripts / f"{part}.py"), "--out", str(result), *flags]
        codes[part] = _run(command)
        if not result.is_file() and moved is not None:
            result.write_text(moved, encoding="utf-8")  # an older result is better than none
            codes[part] = codes[part] or 1
            older.add(part)
    sys.stdout.write(summary(codes, out, older))
    sys.stdout.write(f"{time.perf_counter() - began:.0f} s in all\n")
    return int(any(codes.values()))


def _run(command: Sequence[str]) -> int:
    try:
        return subprocess.run(command, check=False, timeout=PATIENCE_SECONDS).returncode  # noqa: S603
    except subprocess.TimeoutExpired as error:
        sys.stderr.write(f"{error}\n")
        return 124


def summary(codes: dict[str, int], out: Path, older: Collection[str]) -> str:
    """Return a line for each figure of each part, and for each part that failed.

    Args:
        codes: each part's exit code: not 0, too, where it missed a target with --check.
        out: folder of the results.
        older: parts whose results are those of an earlier run.
    """
    lines = ["", "SUMMARY"]
    for part, code in codes.items():
        path = out / f"{part}.json"
        content: dict[str, Any] = {}
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
        figures = content.get("figures", [])
        missed = sum(figure["met"] is False for figure in figures)
        if code and (part in older or not missed):
            told = "; figures below are older" if part in older else ""
            lines.append(f"{part}: FAILED with code {code}{told}")
        width = max((len(figure["what"]) for figure in figures), default=0)
        lines += [f"{part:14} {f['what']:{width}}  {shown(f)}" for f in figures]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

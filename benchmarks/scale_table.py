"""The table of docs/scale.md from 1e5 to 1e9 passages: computed by the planner, nothing is run."""

import math
import sys
from dataclasses import replace
from typing import Any

from realm.config import ApproximateConfig, PretrainConfig
from realm.index.ivfpq import choose_layout
from realm.planning.costs import search_seconds
from realm.planning.encoders import SHAPES
from realm.planning.machine import ACCELERATORS, computed_rates
from realm.planning.plan import ROOM, make_plan
from realm.planning.workload import Workload
from realm.readable import duration, size

SIZES = (100_000, 1_000_000, 13_353_718, 100_000_000, 1_000_000_000)
GPU, NETWORK_GBITS = "h100", 400.0
BUILDERS, TRAINERS = 16, 64
SECONDS_A_CODE = 25e-9
"""Of one CPU thread, a code of 32 bytes: measured, see the IVF-PQ rows of scale.json."""
CPU_MEMORY = 64e9
CPU_SCAN_BYTES = 6e9
"""Bytes/s of one CPU thread that searches for one query: measured."""


def table() -> list[dict[str, Any]]:
    """Return one row for each size: BERT-base, 512 queries a step, the paper's processes."""
    rates = computed_rates(ACCELERATORS[GPU], network_gbits=NETWORK_GBITS)
    rates = replace(rates, disk_write_bytes=10e9)  # storage of a cluster
    shape = SHAPES["bert-base"]
    rows: list[dict[str, Any]] = []
    for passages in SIZES:
        work = Workload(
            passages=passages,
            encoder=shape,
            embedder=shape,
            pretrain=PretrainConfig(steps=200_000, batch_size=512),
            trainers=TRAINERS,
            builders=BUILDERS,
            keeps_attention=False,
        )
        plan = make_plan(work, rates)
        layout = choose_layout(ApproximateConfig(), num_passages=passages, dim=work.dim)
        probes = min(ApproximateConfig().probes, layout.lists)
        codes = probes * passages / layout.lists
        room = ROOM * CPU_MEMORY
        rows.append(
            {
                "passages": passages,
                "exact_bytes": work.scan_bytes,
                "snapshot_bytes": work.snapshot_bytes,
                "machines_exact": math.ceil(work.scan_bytes / room),
                "question_exact_cpu_seconds": work.scan_bytes / CPU_SCAN_BYTES,
                "batch_exact_gpu_seconds": search_seconds(
                    rates, rows=passages / TRAINERS, dim=work.dim, queries=512.0
                ),
                "ivfpq_bytes": layout.index_bytes(passages, work.dim),
                "machines_ivfpq": math.ceil(layout.index_bytes(passages, work.dim) / room),
                "lists": layout.lists,
                "question_ivfpq_cpu_seconds": codes * SECONDS_A_CODE
                + layout.lists * work.dim * 2 / 20e9,
                "step_seconds": plan.step_seconds,
                "refresh_seconds": plan.refresh_seconds,
                "refresh_gpu_hours": plan.stage("refresh").parts["embedding"] * BUILDERS / 3600,
                "builders_needed": plan.builders_needed,
                "staleness_max": plan.staleness[1],
            }
        )
    return rows


def show_table(rows: list[dict[str, Any]]) -> None:
    """Print it as Markdown."""
    head = (
        "| passages | exact, 16 bits | machines | a question, exact | 512 queries, 64 H100 "
        "| IVF-PQ | machines | a question, IVF-PQ | a refresh, 16 H100 | H100 hours "
        "| builders for 500 steps |"
    )
    lines = [head, "|" + "---|" * 11]
    for row in rows:
        needed = row["builders_needed"]
        cells = (
            f"{row['passages']:,}",
            size(float(row["exact_bytes"])),
            row["machines_exact"],
            duration(row["question_exact_cpu_seconds"]),
            duration(row["batch_exact_gpu_seconds"]),
            size(float(row["ivfpq_bytes"])),
            row["machines_ivfpq"],
            duration(row["question_ivfpq_cpu_seconds"]),
            duration(row["refresh_seconds"]),
            f"{row['refresh_gpu_hours']:.3g}",
            "none" if needed is None else f"{needed:,}",
        )
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    show_table(table())

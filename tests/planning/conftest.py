"""Rates of made-up machines, on which the formulas are easy to work out by hand."""

import pytest

from realm.planning.encoders import SHAPES
from realm.planning.machine import MachineRates
from realm.planning.workload import Workload


@pytest.fixture
def rates() -> MachineRates:
    return MachineRates(
        is_measured=True,
        source="a made-up machine",
        embed_flops=1e12,
        embed_passage_seconds=0.0,
        train_flops=1e12,
        scan_bytes=1e10,
        scan_flops=1e11,
        stream_bytes=1e10,
        split_wordpieces=1e5,
        mask_wordpieces=1e5,
        disk_write_bytes=1e9,
        network_bytes=1e9,
        memory_bytes=64e9,
        base_memory_bytes=4e8,
        has_quick_bfloat16=True,
    )


@pytest.fixture
def wikipedia() -> Workload:
    """The paper's corpus and encoder."""
    return Workload(passages=13_353_718, encoder=SHAPES["bert-base"], embedder=SHAPES["bert-base"])

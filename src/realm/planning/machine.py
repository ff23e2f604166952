"""What a machine can do: measured here, or computed from an accelerator's data sheet."""

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from realm.errors import ArtifactError, ConfigError
from realm.planning.container import memory_limit_bytes
from realm.storage import read_json, sealed

EFFICIENCY = 0.4
"""Share of an accelerator's peak that training and embedding are assumed to reach."""
_TOO_MUCH = (OverflowError, RecursionError)
"""What a number or a nesting without end leads to."""
FORMAT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineRates:
    """Rates of one process on one machine (one accelerator, or a CPU with so many threads)."""

    is_measured: bool
    """False: computed from a data sheet, nothing was run."""
    source: str
    """What the rates are of, in words."""
    embed_flops: float
    """FLOP/s of Embed_doc without gradients, reading the store and padding included."""
    embed_passage_seconds: float
    """Seconds a passage that do not depend on the encoder: ids to tensors, groups, copying."""
    train_flops: float
    """FLOP/s of a joint step, forward and backward."""
    scan_bytes: float
    """Bytes/s of the 16-bit matrix that exact search reads for one query."""
    scan_flops: float
    """FLOP/s of exact search of many queries at once, top-k included."""
    stream_bytes: float
    """Bytes/s of memory, for the optimizer's update."""
    split_wordpieces: float
    """Wordpieces/s from articles to passages, on the CPU beside."""
    mask_wordpieces: float
    """Wordpieces/s of passages whose sentences are tagged and masked, on the CPU beside."""
    disk_write_bytes: float
    """Bytes/s written and synced."""
    network_bytes: float
    """Bytes/s between processes, each way."""
    memory_bytes: float
    """Bytes that one process may take: of an accelerator, or of the machine or its container."""
    base_memory_bytes: float
    """Bytes of a process that has only imported the libraries."""
    has_quick_bfloat16: bool
    """False: matrix products run in 32 bits there, whatever the settings say."""

    def halves(self, autocast: str) -> bool:
        """Return whether matrix products run in 16 bits under this setting of `autocast`."""
        return autocast == "bfloat16" and self.has_quick_bfloat16

    def keeps_attention(self, dropout: float) -> bool:
        """Return whether attention's weights are kept for the backward pass.

        Not by the fused kernels, which compute them again: those of accelerators, and on a CPU
        torch's, where it is the quicker (`realm.model.bert.set_attention`).
        """
        return self.is_measured and (self.has_quick_bfloat16 or dropout > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """A line of a data sheet."""

    name: str
    tflops: float
    """Peak of dense bfloat16, in 1e12 FLOP/s."""
    memory_gb: float
    bandwidth_gb: float
    """Memory, GB/s."""


ACCELERATORS = {
    one.name: one
    for one in (
        Accelerator(name="t4", tflops=65.0, memory_gb=16.0, bandwidth_gb=320.0),
        Accelerator(name="v100", tflops=125.0, memory_gb=32.0, bandwidth_gb=900.0),
        Accelerator(name="a100", tflops=312.0, memory_gb=80.0, bandwidth_gb=2_039.0),
        Accelerator(name="h100", tflops=989.0, memory_gb=80.0, bandwidth_gb=3_350.0),
        Accelerator(name="h200", tflops=989.0, memory_gb=141.0, bandwidth_gb=4_800.0),
        Accelerator(name="tpu-v3", tflops=61.0, memory_gb=16.0, bandwidth_gb=450.0),
    )
}
"""Vendors' data sheets, dense bf16 (fp16 where there is no bf16); tpu-v3: one core of a chip."""


def computed_rates(
    gpu: Accelerator,
    *,
    efficiency: float = EFFICIENCY,
    network_gbits: float,
    cpu: MachineRates | None = None,
) -> MachineRates:
    """Return the rates of one accelerator: peak times `efficiency`. Computed, not measured.

    Args:
        gpu: its data sheet.
        efficiency: share of the peak that matrix products reach; also of memory bandwidth twice
            as much, at most 0.8.
        network_gbits: Gbit/s of each accelerator to the others.
        cpu: measured rates of the machine's CPU, for splitting, masking and the disk; None: those
            of one server core of 2023.
    """
    return MachineRates(
        is_measured=False,
        source=(
            f"{gpu.name}: {gpu.tflops:g} TFLOP/s bf16 x {efficiency:g}, computed, not measured"
        ),
        embed_flops=gpu.tflops * 1e12 * efficiency,
        embed_passage_seconds=0.0,
        train_flops=gpu.tflops * 1e12 * efficiency,
        scan_bytes=gpu.bandwidth_gb * 1e9 * min(0.8, 2 * efficiency),
        scan_flops=gpu.tflops * 1e12 * efficiency / 4,
        stream_bytes=gpu.bandwidth_gb * 1e9 * min(0.8, 2 * efficiency),
        split_wordpieces=cpu.split_wordpieces if cpu else 3e5,
        mask_wordpieces=cpu.mask_wordpieces if cpu else 1.5e5,
        disk_write_bytes=cpu.disk_write_bytes if cpu else 1e9,
        network_bytes=network_gbits * 1e9 / 8,
        memory_bytes=gpu.memory_gb * 1e9,
        base_memory_bytes=1.5e9,
        has_quick_bfloat16=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Measured rates, and where and how they were measured."""

    rates: MachineRates
    encoder: str
    threads: int
    hardware: str
    versions: dict[str, str]
    date: str
    seconds: float
    """How long the measurement took."""

    def save(self, file: Path) -> None:
        """Write it as JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(sealed({"format": FORMAT, **asdict(self)}), indent=2)
        partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)

    @classmethod
    def load(cls, file: Path) -> "Calibration":
        """Read what `save` wrote.

        Raises:
            ConfigError: there is no such file.
            ArtifactError: it is no calibration, or another release's.
        """
        if not file.is_file():
            raise ConfigError(
                f"cannot read the calibration {file}: there is no such file; make one on the "
                "machine in question with `realm plan --calibrate`"
            )
        try:
            values = read_json(file)
            if (found := values.pop("format")) != FORMAT:
                raise ValueError(f"format {found!r}, this release reads {FORMAT}")  # noqa: TRY301
            told: dict[str, Any] = values.pop("rates")
            numbers: dict[str, Any] = {
                name: value if isinstance(value, bool | str) else float(value)
                for name, value in told.items()
            }
            return cls(rates=MachineRates(**numbers), **values)
        except (
            ArtifactError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            *_TOO_MUCH,
        ) as error:
            raise ArtifactError(
                f"{file} is no calibration of this release ({error}); make it again with "
                "`realm plan --calibrate`"
            ) from None


def calibration_file(encoder: str, threads: int) -> Path:
    """Return where the measurement of an encoder is kept: $XDG_CACHE_HOME/realm, ~/.cache/realm."""
    cache = os.environ.get("XDG_CACHE_HOME")
    folder = Path(cache) if cache else Path.home() / ".cache"
    return folder / "realm" / f"calibration-{encoder}-{threads}.json"


def processor_name() -> str:
    """Return the processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return how many cores this process may use: in a container often not all of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine_memory_bytes() -> float:
    """Return the machine's memory."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def usable_memory_bytes() -> float:
    """Return how much memory this process may use: in a container often not all of the machine's.

    Whoever takes more is killed there, not told.
    """
    return min(machine_memory_bytes(), memory_limit_bytes())

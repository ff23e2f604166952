"""What one stage takes, and the parts that several stages are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from realm.config import TrainConfig
from realm.planning.encoders import EncoderShape
from realm.planning.machine import MachineRates
from realm.planning.workload import Workload

FLOAT = 4.0
UPDATE_BYTES = 10 * FLOAT
"""Memory traffic of an update, a parameter: AdamW reads four numbers and writes three, clipping
the gradient's norm reads it twice and writes it once."""
CHECKPOINT_BYTES = 3 * FLOAT
"""Value and both moments."""
CHUNK_ROWS = 1 << 16
"""Rows that exact search scores at once (`realm.index.exact`)."""
SEQUENCE_BYTES = 50.0
"""A wordpiece waiting to be embedded, in Python lists: an integer (32), its place in the list of
ids and in that of segments (8 each, and an eighth more than is filled)."""
VECTOR_BYTES = 14.0
"""A dimension of a shard's vector while it is written: 32 and 16 bits, and two 32-bit copies for
the rounding that search's error bound needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """Costs of one stage; parts by name, so that a sum can be explained."""

    name: str
    seconds: float
    flops: float = 0.0
    """Of all processes together, on real wordpieces, matrix products only."""
    steps: int = 0
    parts: Mapping[str, float] = field(default_factory=dict[str, float])
    """Seconds by what they are spent on; of a training stage: a step's."""
    memory: Mapping[str, float] = field(default_factory=dict[str, float])
    """Bytes that one process holds."""
    mapped: Mapping[str, float] = field(default_factory=dict[str, float])
    """Bytes of files that should stay in the page cache, once a machine."""
    disk: Mapping[str, float] = field(default_factory=dict[str, float])
    """Bytes on disk while and after it runs."""
    network: Mapping[str, float] = field(default_factory=dict[str, float])
    """Bytes sent by one process, a step or a refresh."""

    @property
    def memory_bytes(self) -> float:
        """Bytes that one process holds, files mapped aside."""
        return sum(self.memory.values(), 0.0)

    @property
    def disk_bytes(self) -> float:
        """Bytes on disk."""
        return sum(self.disk.values(), 0.0)

    @property
    def network_bytes(self) -> float:
        """Bytes sent by one process, a step or a refresh."""
        return sum(self.network.values(), 0.0)


def search_seconds(rates: MachineRates, *, rows: float, dim: int, queries: float) -> float:
    """Seconds of exact search: the matrix is read once, and multiplied with every query.

    rows x dim x 2 bytes / scan_bytes + 2 x rows x dim x queries / scan_flops
    """
    return rows * dim * (2 / rates.scan_bytes + 2 * queries / rates.scan_flops)


def embedding_seconds(work: Workload, rates: MachineRates, passages: int) -> float:
    """Seconds in which one process embeds so many passages."""
    return passages * (work.passage_flops / rates.embed_flops + rates.embed_passage_seconds)


def all_reduce_bytes(parameters: int, trainers: int) -> float:
    """Bytes that each of n trainers sends for the mean gradient on a ring: 2 (n - 1) / n x 4 P."""
    return 2 * (trainers - 1) / trainers * FLOAT * parameters


def update_seconds(rates: MachineRates, parameters: int) -> float:
    """Seconds of clipping and AdamW, which memory limits."""
    return parameters * UPDATE_BYTES / rates.stream_bytes


def training_memory(
    rates: MachineRates, parameters: int, config: TrainConfig, saved: Mapping[str, float]
) -> dict[str, float]:
    """Bytes of a training process: libraries, parameters and what goes with them, one group."""
    casts = 2 * parameters if rates.halves(config.autocast) else 0.0
    return {
        "libraries": rates.base_memory_bytes,
        "parameters": FLOAT * parameters,
        "gradients": FLOAT * parameters,
        "moments": 2 * FLOAT * parameters,
        "16-bit copies": casts,
        **saved,
    }


def saved(
    shape: EncoderShape, rates: MachineRates, config: TrainConfig, *, wordpieces: float, each: float
) -> float:
    """Bytes that so many wordpieces, in texts of `each`, leave for the backward pass."""
    a_wordpiece = shape.saved_bytes(
        each,
        half=rates.halves(config.autocast),
        keeps_attention=rates.keeps_attention(config.dropout),
    )
    return wordpieces * a_wordpiece


def num_checkpoints(config: TrainConfig) -> int:
    """How many checkpoints a stage writes."""
    return config.steps // config.save_every_steps + bool(config.steps % config.save_every_steps)


def checkpoints_bytes(config: TrainConfig, parameters: int) -> float:
    """Bytes of the checkpoints that are kept while one more is written."""
    return min(config.keep_checkpoints + 1, num_checkpoints(config)) * CHECKPOINT_BYTES * parameters


def num_measurements(config: TrainConfig) -> int:
    """How often a stage is measured on held-out data: before step 1, at intervals, at the end."""
    every = config.eval_every_steps
    return 1 + config.steps // every + (1 if config.steps % every else 0)


def writing_seconds(rates: MachineRates, config: TrainConfig, parameters: int) -> float:
    """Seconds of writing all checkpoints of a stage."""
    return num_checkpoints(config) * CHECKPOINT_BYTES * parameters / rates.disk_write_bytes

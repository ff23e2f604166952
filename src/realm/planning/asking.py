"""From what a user types to a workload and a machine."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from realm.config import (
    Config,
    FinetuneConfig,
    IctConfig,
    IndexConfig,
    MlmConfig,
    PretrainConfig,
    load_config,
)
from realm.errors import ConfigError
from realm.planning.encoders import parse_encoder
from realm.planning.machine import (
    ACCELERATORS,
    EFFICIENCY,
    Accelerator,
    Calibration,
    MachineRates,
    calibration_file,
    computed_rates,
)
from realm.planning.plan import split_processes
from realm.planning.workload import Workload
from realm.readable import counted

C = TypeVar("C", bound=Config)
SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}
MAX_PASSAGES = 1e12
SECTIONS = ("ict", "mlm", "index", "pretrain", "finetune")
"""Stages whose settings a plan reads; a key without one of them is pretrain's."""
DEFAULT_GPU = "h100"
CPU_NETWORK_GBITS, GPU_NETWORK_GBITS = 10.0, 400.0
MAX_PROCESSES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """Who does the work: accelerators, or processes on CPUs."""

    gpus: int | None = None
    """Accelerators in all; None: CPUs."""
    trainers: int | None = None
    builders: int | None = None


def parse_count(text: str, *, name: str) -> int:
    """Return a number as people write it: 13.35e6, 13.35M, 100k, 13_353_718, 13,353,718.

    A comma parts thousands and nothing else: 13,35M is refused.

    Raises:
        ConfigError: no such number, or none from 2 to 1e12.
    """
    match = re.fullmatch(
        r"((?:\d{1,3}(?:,\d{3})+|[\d_]*)\.?\d*(?:e[+]?\d+)?)([kmbg]?)", text.strip().lower()
    )
    try:
        number = float(re.sub("[_,]", "", match[1])) * SCALES[match[2]] if match else None
    except (ValueError, OverflowError):
        number = None
    if number is None or not 2 <= number <= MAX_PASSAGES:
        raise ConfigError(
            f"{name}: found {text!r}, expected a number from 2 to 1e12 such as 13.35e6, 13.35M or "
            "100k, or a folder of passages"
        )
    return round(number)


def ask(
    passages: str,
    *,
    encoder: str,
    embedder: str | None = None,
    passage_wordpieces: float | None = None,
    settings: Sequence[str] = (),
    file: Path | None = None,
) -> Workload:
    """Return the workload of one process.

    Args:
        passages: a number, or a folder from `realm split`, whose passages are counted.
        encoder: name or LAYERSxWIDTH.
        embedder: the same; None: as the encoder.
        passage_wordpieces: mean length; None: the folder's, or 150.
        settings: key=value, e.g. `ict.steps=100000`; without a stage the key is pretrain's.
        file: TOML file with tables of settings.

    Raises:
        ConfigError: found, expected, what to do.
        ArtifactError: the folder is no passages folder.
    """
    folder = Path(passages).expanduser()
    if folder.is_dir():
        from realm.corpus.store import PassageStore  # slow to import

        store = PassageStore.open(folder)
        count, mean = len(store), float(store.lengths().mean())
    else:
        count, mean = parse_count(passages, name="--passages"), 150.0
    if passage_wordpieces is not None:
        if not 4 <= passage_wordpieces <= 512:
            raise ConfigError(
                f"--passage-wordpieces: found {passage_wordpieces:g}, expected the mean length of "
                "a passage with title and special tokens, 4 to 512"
            )
        mean = passage_wordpieces
    sections = _sections(settings)
    shape = parse_encoder(encoder)
    return Workload(
        passages=count,
        encoder=shape,
        embedder=parse_encoder(embedder) if embedder else shape,
        passage_wordpieces=mean,
        ict=_load(IctConfig, "ict", file, sections),
        mlm=_load(MlmConfig, "mlm", file, sections),
        index=_load(IndexConfig, "index", file, sections),
        pretrain=_load(PretrainConfig, "pretrain", file, sections),
        finetune=_load(FinetuneConfig, "finetune", file, sections),
    )


def choose_accelerator(
    name: str | None, *, tflops: float | None, memory_gb: float | None, bandwidth_gb: float | None
) -> Accelerator:
    """Return a known accelerator, or one of given peak, memory (80 GB) and bandwidth.

    Raises:
        ConfigError: an unknown name or a number that is not positive, or not finite.
    """
    told = (name or DEFAULT_GPU).lower()
    if told not in ACCELERATORS and (name is None or tflops is None):
        raise ConfigError(
            f"--gpu: found {name!r}, expected one of {sorted(ACCELERATORS)}, or --tflops with its "
            "peak in bfloat16"
        )
    known = ACCELERATORS.get(told, ACCELERATORS[DEFAULT_GPU])
    made = Accelerator(
        name=told if tflops is None or name else "an accelerator",
        tflops=known.tflops if tflops is None else tflops,
        memory_gb=known.memory_gb if memory_gb is None else memory_gb,
        bandwidth_gb=known.bandwidth_gb if bandwidth_gb is None else bandwidth_gb,
    )
    if not all(map(_is_rate, (made.tflops, made.memory_gb, made.bandwidth_gb))):
        raise ConfigError(
            f"found --tflops {made.tflops:g}, --gpu-memory {made.memory_gb:g} and --gpu-bandwidth "
            f"{made.bandwidth_gb:g}, expected numbers of more than 0"
        )
    return made


def accelerator_rates(
    gpu: Accelerator, *, efficiency: float | None, network_gbits: float | None, cpu: Path | None
) -> MachineRates:
    """Return computed rates; `cpu` names a calibration for text and disk.

    Raises:
        ConfigError: an impossible efficiency or network, or no such calibration.
    """
    share = EFFICIENCY if efficiency is None else efficiency
    if not 0 < share <= 1:
        raise ConfigError(f"--efficiency: found {share:g}, expected a share above 0 and up to 1")
    return computed_rates(
        gpu,
        efficiency=share,
        network_gbits=_positive(network_gbits, GPU_NETWORK_GBITS),
        cpu=Calibration.load(cpu).rates if cpu else None,
    )


def cpu_rates(calibration: Calibration, *, network_gbits: float | None) -> MachineRates:
    """Return measured rates with the network that is asked for."""
    gbits = _positive(network_gbits, CPU_NETWORK_GBITS)
    return replace(calibration.rates, network_bytes=gbits * 1e9 / 8)


def saved_calibration(encoder: str, threads: int) -> Calibration | None:
    """Return what an earlier `realm plan` measured, None where it measured nothing."""
    file = calibration_file(parse_encoder(encoder).name, threads)
    return Calibration.load(file) if file.is_file() else None


def assign_processes(work: Workload, rates: MachineRates, told: Processes) -> Workload:
    """Return the workload with its trainers and builders; what is not told is divided.

    Raises:
        ConfigError: impossible numbers.
    """
    for name, number in (("gpus", told.gpus), ("trainers", told.trainers)):
        if number is not None and not 1 <= number <= MAX_PROCESSES:
            raise ConfigError(f"--{name}: found {number}, expected 1 to {MAX_PROCESSES:,}")
    if told.builders is not None and not 0 <= told.builders <= MAX_PROCESSES:
        raise ConfigError(f"--builders: found {told.builders}, expected 0 to {MAX_PROCESSES:,}")
    if told.gpus is None:
        return replace(work, trainers=told.trainers or 1, builders=told.builders or 0)
    if told.trainers is None and told.builders is None:
        return split_processes(work, rates, told.gpus)
    trainers = told.trainers or told.gpus - (told.builders or 0)
    builders = told.gpus - trainers if told.builders is None else told.builders
    if trainers < 1 or builders < 0 or trainers + builders > told.gpus:
        raise ConfigError(
            f"{counted(trainers, 'trainer')} and {counted(builders, 'builder')} are not "
            f"{counted(told.gpus, 'accelerator')}; leave "
            "one of --gpus, --trainers, --builders out"
        )
    return replace(work, trainers=trainers, builders=builders)


def _positive(value: float | None, default: float) -> float:
    if value is not None and not _is_rate(value):
        raise ConfigError(f"--network-gbits: found {value:g}, expected a number of more than 0")
    return default if value is None else value


def _is_rate(value: float) -> bool:
    """Return whether one can divide by it: above 0, and no nan or inf, which a float may be."""
    return value > 0 and math.isfinite(value)


def _sections(settings: Sequence[str]) -> dict[str, list[str]]:
    """Return each stage's own key=value pairs."""
    found: dict[str, list[str]] = {name: [] for name in SECTIONS}
    for text in settings:
        head, dot, rest = text.partition("=")[0].partition(".")
        if dot and head in found and rest:
            found[head].append(text[len(head) + 1 :])
        else:
            found["pretrain"].append(text)
    return found


def _load(cls: type[C], section: str, file: Path | None, sections: dict[str, list[str]]) -> C:
    return load_config(cls, section=section, file=file, overrides=sections[section])

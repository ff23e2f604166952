"""realm plan, realm approximate."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from realm.cli import options
from realm.readable import counted

if TYPE_CHECKING:
    from realm.planning.machine import Calibration
    from realm.planning.plan import Plan

PANEL = "Scale"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("plan", rich_help_panel=PANEL)(plan)
    app.command("approximate", epilog=options.settings_help("approximate"), rich_help_panel=PANEL)(
        approximate
    )


def plan(
    *,
    passages: Annotated[
        str | None,
        typer.Option(help="How many (13.35e6, 13.35M, 100k), or a folder from realm split."),
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="minilm, bert-base, bert-large or LAYERSxWIDTH.")
    ] = "minilm",
    embedder: Annotated[
        str | None, typer.Option(help="The same for the towers (default: as the encoder).")
    ] = None,
    passage_wordpieces: Annotated[
        float | None, typer.Option(help="Mean length of a passage (default: the folder's, or 150).")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(help="Accelerators in all; divided into trainers and builders.")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="Which: t4, v100, a100, h100 (default), h200, tpu-v3.")
    ] = None,
    tflops: Annotated[
        float | None, typer.Option(help="Peak of an accelerator in bfloat16, 1e12 FLOP/s.")
    ] = None,
    gpu_memory: Annotated[float | None, typer.Option(help="Its memory in GB.")] = None,
    gpu_bandwidth: Annotated[float | None, typer.Option(help="Its memory's GB/s.")] = None,
    efficiency: Annotated[
        float | None, typer.Option(help="Share of the peak that is reached (default: 0.4).")
    ] = None,
    network_gbits: Annotated[
        float | None,
        typer.Option(help="Gbit/s of a process to the others (default: 400; between CPUs 10)."),
    ] = None,
    trainers: Annotated[int | None, typer.Option(help="Processes that share each batch.")] = None,
    builders: Annotated[
        int | None,
        typer.Option(help="Processes that rebuild the index beside them; 0: the trainers do."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of a process (default: all cores it may use).")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine again, for half a minute.")
    ] = False,
    calibration: Annotated[
        Path | None, typer.Option(help="Rates measured elsewhere, a file that plan saved.")
    ] = None,
    config: options.Config = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="STAGE.KEY=VALUE",
            help="A setting of a stage, e.g. ict.steps=100000 (without a stage: pretrain's).",
        ),
    ] = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    r"""Say what a run would take: memory, disk, network and time of each stage and refresh.

    Rates of a CPU are measured once for each encoder and kept; those of accelerators are computed
    from their data sheet. `realm plan --calibrate` alone only measures.

    Example: realm plan --passages 13.35M --encoder bert-base --gpus 8 --gpu h100 \
    --set batch_size=512 --set steps=200000
    """
    from realm.errors import ConfigError
    from realm.planning import asking

    on_accelerators = gpus is not None or gpu is not None or tflops is not None
    if passages is None:
        if not calibrate or on_accelerators:
            raise ConfigError(
                "found no --passages, expected how many passages there are, e.g. --passages 100k "
                "(only --calibrate goes without)"
            )
        _show_calibration(_calibrated(encoder, threads, again=True, quiet=quiet), as_json=as_json)
        return
    _check_used(
        {"--gpu-memory": gpu_memory, "--gpu-bandwidth": gpu_bandwidth, "--efficiency": efficiency},
        {"--threads": threads, "--calibrate": calibrate or None},
        on_accelerators=on_accelerators,
        calibration=calibration,
    )
    work = asking.ask(
        passages,
        encoder=encoder,
        embedder=embedder,
        passage_wordpieces=passage_wordpieces,
        settings=settings or [],
        file=config,
    )
    if on_accelerators:
        rates = asking.accelerator_rates(
            asking.choose_accelerator(
                gpu, tflops=tflops, memory_gb=gpu_memory, bandwidth_gb=gpu_bandwidth
            ),
            efficiency=efficiency,
            network_gbits=network_gbits,
            cpu=calibration,
        )
        if gpus is None and trainers is None and builders is None:
            gpus = 1
    else:
        measured = (
            _load_calibration(calibration)
            if calibration
            else _calibrated(encoder, threads, again=calibrate, quiet=quiet)
        )
        rates = asking.cpu_rates(measured, network_gbits=network_gbits)
    told = asking.Processes(gpus=gpus, trainers=trainers, builders=builders)
    from realm.planning.plan import make_plan

    made = make_plan(asking.assign_processes(work, rates, told), rates)
    if as_json:
        options.print_json(made.as_dict())
    else:
        _show(made)


def approximate(
    snapshot: Annotated[Path, typer.Argument(help="Snapshot folder, from realm index.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    config: options.Config = None,
    sets: options.Sets = None,
    rebuild: options.Rebuild = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Make a small, fast, approximate index (FAISS IVF-PQ) of a snapshot, for very many passages.

    Its recall against exact search is measured and kept. Needs the extra: ann.

    Example: realm approximate index/ --out approximate/
    """
    from realm.config import ApproximateConfig, load_config

    settings = load_config(
        ApproximateConfig, section="approximate", file=config, overrides=sets or []
    )
    from realm.cli import display
    from realm.index.approximate import build_approximate
    from realm.index.snapshot import Snapshot
    from realm.storage import MANIFEST

    done = "already done: " if (out / MANIFEST).is_file() and not rebuild else ""
    with display.progress("coding", "passages", quiet=quiet) as advance:
        made = build_approximate(
            Snapshot.open(snapshot), out, config=settings, rebuild=rebuild, progress=advance
        )
    size = sum(file.stat().st_size for file in out.iterdir())
    if as_json:
        told = {"out": out, "num_passages": len(made), "size_bytes": size, "recall": made.recall}
        more = {"recall_at": made.recall_at, "probes": made.probes, "already_done": bool(done)}
        options.print_json(told | more)
        return
    display.out.print(
        f"{done}{counted(len(made), 'passage')}, {size / len(made):.0f} bytes a passage, recall@"
        f"{made.recall_at} {made.recall:.3f} with {counted(made.probes, 'probe')} in {out}",
        markup=False,
    )


def _check_used(
    of_accelerators: Mapping[str, object],
    of_measuring: Mapping[str, object],
    *,
    on_accelerators: bool,
    calibration: Path | None,
) -> None:
    """Refuse options that would say nothing: each option -> its value, None where not given."""
    from realm.errors import ConfigError

    def given(options: Mapping[str, object]) -> str:
        return next((name for name, value in options.items() if value is not None), "")

    if not on_accelerators and (name := given(of_accelerators)):
        raise ConfigError(
            f"found {name} without an accelerator, expected one beside it: --gpus, --gpu or "
            "--tflops; a plan for this machine's CPU takes what was measured"
        )
    if on_accelerators and (name := given(of_measuring)):
        raise ConfigError(
            f"found {name} beside accelerators, expected one of them: their rates are computed "
            "from a data sheet, and nothing is measured"
        )
    if calibration is not None and of_measuring["--calibrate"]:
        raise ConfigError(
            "found --calibrate beside --calibration, expected one of them: rates are measured "
            "here, or read from a file"
        )


def _calibrated(encoder: str, threads: int | None, *, again: bool, quiet: bool) -> "Calibration":
    """Return this machine's rates, measured now where nothing is kept or `again` is said."""
    from realm.errors import ConfigError
    from realm.planning import asking
    from realm.planning.encoders import parse_encoder
    from realm.planning.machine import calibration_file, usable_cores

    if threads is not None and threads < 1:
        raise ConfigError(f"--threads: found {threads}, expected at least 1")
    count = threads or usable_cores()
    shape = parse_encoder(encoder)
    kept = None if again else asking.saved_calibration(encoder, count)
    if kept is not None:
        return kept
    from realm.cli import display
    from realm.planning.calibrate import calibrate

    with display.progress("measuring this machine", "measurements", quiet=quiet) as advance:
        measured = calibrate(shape, dim=128, threads=count, progress=advance)
    file = calibration_file(shape.name, count)
    measured.save(file)
    if not quiet:
        told = f"measured in {measured.seconds:.0f} s, kept in {file}"
        display.err.print(told, style="dim", markup=False)
    return measured


def _load_calibration(file: Path) -> "Calibration":
    from realm.planning.machine import Calibration

    return Calibration.load(file)


def _show_calibration(measured: "Calibration", *, as_json: bool) -> None:
    from realm.cli import display

    if as_json:
        options.print_json(measured)
        return
    rates = measured.rates
    rows = [
        ("embedding", f"{rates.embed_flops / 1e9:,.1f} GFLOP/s"),
        ("joint step", f"{rates.train_flops / 1e9:,.1f} GFLOP/s"),
        ("search, one query", f"{rates.scan_bytes / 1e9:,.1f} GB/s"),
        ("search, many", f"{rates.scan_flops / 1e9:,.1f} GFLOP/s"),
        ("split", f"{rates.split_wordpieces:,.0f} wordpieces/s"),
        ("mask", f"{rates.mask_wordpieces:,.0f} wordpieces/s"),
        ("memory", f"{rates.stream_bytes / 1e9:,.1f} GB/s"),
        ("disk", f"{rates.disk_write_bytes / 1e9:,.2f} GB/s"),
    ]
    display.out.print(display.table(rates.source, ("what", "rate"), rows))


def _show(made: "Plan") -> None:
    from realm.cli import display
    from realm.readable import duration, size

    work = made.work
    rows = [
        (
            stage.name,
            duration(stage.seconds),
            f"{stage.flops:.2g}" if stage.flops else "",
            size(stage.memory_bytes),
            size(sum(stage.mapped.values(), 0.0)) if stage.mapped else "",
            size(stage.disk_bytes) if stage.disk else "",
            size(stage.network_bytes) if stage.network_bytes else "",
        )
        for stage in made.stages
    ]
    title = (
        f"{counted(work.passages, 'passage')} of {work.passage_wordpieces:.0f} wordpieces, "
        f"{work.encoder.name}, {counted(work.trainers, 'trainer')}, "
        f"{counted(work.builders, 'builder')}"
    )
    columns = ("stage", "time", "FLOPs", "memory", "mapped", "disk", "network")
    display.out.print(display.table(title, columns, rows))
    needed = made.builders_needed
    who = "no number of builders" if needed is None else counted(needed, "builder")
    mean, oldest = made.staleness
    display.out.print(
        f"index: {size(float(work.scan_bytes))} to search (16 bits), "
        f"{size(float(work.snapshot_bytes))} on disk\n"
        f"a pre-training step: {duration(made.step_seconds)}; a refresh: "
        f"{duration(made.refresh_seconds)}\n"
        f"within refresh.every_steps = {counted(work.refresh.every_steps, 'step')} "
        f"({duration(work.refresh.every_steps * made.step_seconds)}) {who} "
        f"{'rebuilds' if needed == 1 else 'rebuild'} it\n"
        f"staleness: {counted(round(mean), 'step')} on average, {oldest:,.0f} at most\n"
        f"all stages: {duration(made.total_seconds)}",
        markup=False,
    )
    display.out.print(f"rates: {made.rates.source}", markup=False)
    for warning in made.warnings:
        display.out.print(f"as it stands: {warning}", markup=False)

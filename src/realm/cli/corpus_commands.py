"""realm split, realm mask."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from realm.cli import options
from realm.readable import counted

PANEL = "Preparing text"


class OnError(StrEnum):
    """What to do with a malformed record."""

    skip = "skip"
    fail = "fail"


class Scheme(StrEnum):
    """What is masked."""

    salient = "salient"
    token = "token"  # noqa: S105 - a masking scheme
    span = "span"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for name, verb in (("split", split), ("mask", mask)):
        app.command(name, epilog=options.settings_help(name), rich_help_panel=PANEL)(verb)


def split(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT",
            help="JSONL with id, title and text (.gz/.bz2/.zst), Parquet, a folder of .txt/.md, or "
            "a Wikipedia dump (.xml.bz2).",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Passages folder to write.")],
    tokenizer: Annotated[
        str,
        typer.Option(
            help="The tokenizer of the encoder to train: minilm, a folder, a vocab.txt, or a "
            "Hugging Face id."
        ),
    ] = "minilm",
    processes: options.Processes = 1,
    on_error: Annotated[
        OnError, typer.Option(help="Malformed records: skip and count, or stop at the first.")
    ] = OnError.skip,
    config: options.Config = None,
    sets: options.Sets = None,
    rebuild: options.Rebuild = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Cut articles into passages of whole sentences: the knowledge corpus Z.

    Example: realm split articles.jsonl.gz --out passages/
    """
    from realm.config import SplitConfig, load_config

    settings = load_config(SplitConfig, section="split", file=config, overrides=sets or [])
    from realm.checkpoint.folders import load_tokenizer
    from realm.cli import display
    from realm.corpus.split import split as split_articles

    with display.progress("splitting", "articles", quiet=quiet) as advance:
        report = split_articles(
            inputs,
            out,
            config=settings,
            tokenizer=load_tokenizer(tokenizer),
            num_processes=processes,
            on_error=on_error.value,
            rebuild=rebuild,
            progress=advance,
        )
    display.show_skipped(report.skipped)
    if as_json:
        options.print_json(report, out=out)
        return
    done = "already done: " if report.already_done else ""
    display.out.print(
        f"{done}{counted(report.num_articles, 'article')}, "
        f"{counted(report.num_passages, 'passage')}, "
        f"{counted(report.num_wordpieces, 'wordpiece')} in {out}",
        markup=False,
    )
    if not quiet:
        display.show_next(f"realm mask {shlex.quote(str(out))} --out examples/")


def mask(
    passages: Annotated[Path, typer.Argument(help="Passages, from realm split.")],
    out: Annotated[Path, typer.Option("--out", help="Examples folder to write.")],
    scheme: Annotated[
        Scheme | None,
        typer.Option(help="What is masked: names, dates and numbers (salient), or at random."),
    ] = None,
    tagger: Annotated[
        str | None,
        typer.Option(
            help="What finds them: rules, trained, spacy:PIPELINE, hf:MODEL or jsonl:FILE."
        ),
    ] = None,
    processes: options.Processes = 1,
    config: options.Config = None,
    sets: options.Sets = None,
    rebuild: options.Rebuild = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Make masked sentences of passages: what is asked in pre-training.

    Example: realm mask passages/ --out examples/
    """
    from realm.config import MaskConfig, load_config

    told = options.with_options(sets, scheme=scheme.value if scheme else None, tagger=tagger)
    settings = load_config(MaskConfig, section="mask", file=config, overrides=told)
    from realm.cli import display
    from realm.corpus.store import PassageStore
    from realm.masking.examples import mask as mask_passages

    store = PassageStore.open(passages)
    with display.progress("masking", "passages", quiet=quiet) as advance:
        report = mask_passages(
            store,
            out,
            config=settings,
            rebuild=rebuild,
            num_processes=processes,
            progress=advance,
        )
    display.show_skipped(report.skipped)
    if as_json:
        options.print_json(report, out=out)
        return
    kinds = ", ".join(f"{name} {count:,}" for name, count in report.spans_by_label.items())
    done = "already done: " if report.already_done else ""
    display.out.print(
        f"{done}{counted(report.num_examples, 'masked example')} from "
        f"{counted(report.num_passages, 'passage')} ({kinds}) in {out}",
        markup=False,
    )
    if not quiet:
        where = shlex.quote(str(passages))
        display.show_next(f"realm ict {where} --out runs/ict")
        display.show_next(
            f"realm mlm {where} --examples {shlex.quote(str(out))} --out runs/mlm", word="and"
        )

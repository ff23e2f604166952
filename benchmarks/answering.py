"""Answering questions: ours against the old RealmForOpenQA, and all-MiniLM with a plain reader.

    python benchmarks/answering.py --check

Questions of SQuAD-open's development split, one at a time, over its 21,875 passages, of which 5
are read; every question goes to all engines, in an order drawn anew, with one thread (for CPU
seconds) and with all cores (for wall seconds). Tower and reader have the weights of realm-mini
(BERT, 6 layers x 384), for ours and, exported, for RealmForOpenQA. What is compared is time, not
quality: the passages' vectors are made up, so that nothing has to be embedded first, which changes
neither the work of a search nor the length of what is read. The old port knows towers with a pooler
only, so ours has one here, too.

The third engine is what one would put together today: sentence-transformers' all-MiniLM for the
search, transformers' BertForQuestionAnswering of MiniLM's size to read the same 5 passages.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch
from corpus import add_corpus_arguments, open_corpus
from harness import Figure, Measured, Seconds, Timings, interleaved, ratio, run_benchmark, spread
from peer import HERE, OLD_MODULE, Peer, environment_of

from realm.answering import Answerer
from realm.checkpoint.checkpoints import load_model
from realm.config import IndexConfig
from realm.corpus.store import PassageStore
from realm.exchange.hf_realm import OldSettings, Searched, write_hf_realm
from realm.fine_tuned import FineTuned
from realm.index.builder import publish_vectors
from realm.index.snapshot import Snapshot
from realm.mini import default_model
from realm.storage import Request, is_done

READ = 5
TOGETHER = 16
"""Questions asked at once, where an engine can."""
OURS, OLD = "ours", "RealmForOpenQA of transformers 4.57.6"
PLAIN = "all-MiniLM and a plain reader"
SPEED_UP = 2.0
FEW_ROUNDS = 2
AGREEMENT = 0.9
"""Of answers with the old port's: ours adds up equal strings and reads in 16 bits."""
MILLISECONDS = {"p50": 250.0, "p95": 400.0}
"""At most, on two idle cores."""


def main() -> int:
    """Measure."""
    return run_benchmark("answering", __doc__, measure, _add_arguments)


def measure(told: argparse.Namespace) -> Measured:
    """Return the ratios of seconds, percentiles, and questions a second."""
    torch.set_num_threads(1)
    threads = 1 if told.quick else told.threads
    corpus = open_corpus(told)
    folder: Path = told.work / "answering" / corpus.store.fingerprint[:12]
    folder.mkdir(parents=True, exist_ok=True)
    snapshot = made_up_snapshot(corpus.store, folder / "index")
    answerer = open_answerer(corpus.store, snapshot)
    questions = corpus.questions[: 3 if told.quick else told.questions]
    rows = [rows for rows, _ in answerer.retriever.retrieve(questions, READ)]
    write_peers(corpus.store, snapshot, folder, joint=answerer.lengths.joint)
    answers: dict[str, list[str]] = {OURS: [], OLD: [], PLAIN: []}

    def ours(question: str) -> None:
        (found,) = answerer.answer([question], num_passages=READ)
        answers[OURS].append(found.answers[0].text if found.answers else "")

    with ExitStack() as stack:
        plain = stack.enter_context(Peer(HERE / "peers" / "answer_plain.py", str(folder)))
        peers = [plain]
        calls = [{"questions": [q], "rows": [r]} for q, r in zip(questions, rows, strict=True)]
        actions: dict[str, Callable[[], object]] = {
            OURS: each(ours, questions),
            PLAIN: each(asked(plain, answers[PLAIN]), calls),
        }
        if (old := environment_of("old", OLD_MODULE)) is not None:
            script = HERE / "peers" / "answer_old.py"
            peers.append(stack.enter_context(Peer(script, str(folder / "old"), python=old)))
            calls = [{"question": question} for question in questions]
            actions[OLD] = each(asked(peers[-1], answers[OLD]), calls)
        some = {"questions": questions[:TOGETHER], "rows": rows[:TOGETHER]}
        together = {
            OURS: lambda: answerer.answer(some["questions"], num_passages=READ),
            PLAIN: plain.action("ask", **some),
        }
        rounds = len(questions) - 1  # the first question warms up
        few = 1 if told.quick else FEW_ROUNDS
        use_threads(1, peers)
        singly, many = interleaved(actions, rounds=rounds), interleaved(together, rounds=few)
        use_threads(threads, peers)
        quickly, many_quickly = (
            interleaved(actions, rounds=rounds),
            interleaved(together, rounds=few),
        )
    return Measured(
        figures=[
            *(against(singly, peer) for peer in (OLD, PLAIN)),
            Figure(
                what=f"{len(some['questions'])} questions together, against {PLAIN}",
                value=ratio(many[PLAIN], many[OURS]),
                at_least=SPEED_UP,
                note="CPU seconds, one thread",
            ),
            *percentile_figures(quickly),
            *rates(quickly, many_quickly, len(some["questions"])),
            agreement(answers),
        ],
        timings={
            f"{name}, {what}": took
            for what, found in (
                ("one thread", singly),
                ("together, one thread", many),
                (f"{threads} threads", quickly),
                (f"together, {threads} threads", many_quickly),
            )
            for name, took in found.items()
        },
        settings={
            "corpus": corpus.name,
            "passages": len(corpus.store),
            "questions": rounds,
            "read": READ,
            "threads": threads,
            "reader in": "32 bits" if answerer.passage_reader.autocast == "none" else "16 bits",
        },
        versions={"transformers of the old environment": "4.57.6" if old else None},
    )


def use_threads(count: int, peers: Sequence[Peer]) -> None:
    """Let all engines compute with so many threads."""
    torch.set_num_threads(count)
    for peer in peers:
        peer.call("use_threads", count=count)


def made_up_snapshot(store: PassageStore, out: Path) -> Snapshot:
    """Return an index of random vectors."""
    dim = load_model(default_model()).need_towers().query.dim
    settings = {**IndexConfig().as_dict(), "step": 0}
    inputs = {"passages": store.fingerprint, "embedder": "made up"}
    request = Request(kind="index", settings=settings, inputs=inputs)
    if not is_done(out, request, rebuild=True):
        vectors = torch.randn(len(store), dim, generator=torch.Generator().manual_seed(0))
        publish_vectors(
            lambda rows: vectors[rows.start : rows.stop],
            out,
            request,
            num_passages=len(store),
            dim=dim,
            replace=True,
        )
    return Snapshot.open(out)


def open_answerer(store: PassageStore, snapshot: Snapshot) -> Answerer:
    """Return realm-mini over these vectors, its tower pooling as the old port's."""
    tuned = FineTuned.load(default_model(), device="cpu", autocast="auto")
    tuned.model.need_towers().query.pooling = "pooler"
    answerer = Answerer(tuned.model, store, snapshot, lengths=tuned.lengths)
    answerer.passage_reader.autocast = tuned.autocast
    return answerer


def write_peers(store: PassageStore, snapshot: Snapshot, folder: Path, *, joint: int) -> None:
    """Write the same model in the old layout, and the passages' texts."""
    texts = [store.text(row) for row in range(len(store))]
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    model = load_model(default_model())
    towers = model.need_towers()
    towers.query.pooling = towers.passage.pooling = "pooler"
    (folder / "old").mkdir(exist_ok=True)
    write_hf_realm(
        model,
        folder / "old",
        searched=Searched(store=store, snapshot=snapshot),
        settings=OldSettings(reader_beam_size=READ, reader_seq_len=joint),
    )


def each(ask: Callable[[Any], object], arguments: Sequence[object]) -> Callable[[], object]:
    """Return an action that asks the next question each time."""
    turns = cycle(arguments)
    return lambda: ask(next(turns))


def asked(peer: Peer, notes: list[str]) -> Callable[[dict[str, Any]], Seconds]:
    """Return what asks a peer, and notes its answers."""

    def ask(arguments: dict[str, Any]) -> Seconds:
        answer = peer.call("ask", **arguments)
        notes.extend([answer.result] if isinstance(answer.result, str) else answer.result)
        return answer.seconds

    return ask


def against(timings: Mapping[str, Timings], peer: str) -> Figure:
    """Return how many times as long a peer computes."""
    if peer not in timings:
        note = "there is no environment .venv-old; run make bench"
        return Figure(what=f"against {peer}", value=None, note=note)
    return Figure(
        what=f"against {peer}",
        value=ratio(timings[peer], timings[OURS]),
        at_least=SPEED_UP,
        note="CPU seconds of a question, one thread",
    )


def percentile_figures(timings: Mapping[str, Timings]) -> list[Figure]:
    """Return p50 and p95 of the wall seconds of a question, for each engine."""
    found: list[Figure] = []
    for name, took in timings.items():
        cuts = (
            quantiles(took.wall, n=20, method="inclusive") if len(took.wall) > 1 else took.wall * 19
        )
        for what, place in (("p50", 9), ("p95", 18)):
            most = MILLISECONDS[what] if name == OURS else None
            found.append(
                Figure(what=f"{what} of {name}", value=1e3 * cuts[place], unit="ms", at_most=most)
            )
    return found


def rates(
    timings: Mapping[str, Timings], at_once: Mapping[str, Timings], together: int
) -> list[Figure]:
    """Return questions a second by the wall clock, one at a time and together."""
    singly = {
        name: spread([1 / seconds for seconds in took.wall]) for name, took in timings.items()
    }
    many = {n: spread([together / seconds for seconds in t.wall]) for n, t in at_once.items()}
    return [
        *(Figure(what=f"questions a second, {n}", value=v, unit="") for n, v in singly.items()),
        *(
            Figure(what=f"questions a second, {together} together, {n}", value=v, unit="")
            for n, v in many.items()
        ),
    ]


def agreement(answers: Mapping[str, Sequence[str]]) -> Figure:
    """Return the share of questions to which ours and the old port answer the same letters."""
    what = f"same answer as {OLD}"
    if not answers[OLD]:
        return Figure(what=what, value=None, note="there is no environment .venv-old")
    pairs = zip(answers[OURS], answers[OLD], strict=False)
    same = [letters(one) == letters(other) for one, other in pairs]
    return Figure(what=what, value=sum(same) / len(same), unit="", at_least=AGREEMENT)


def letters(text: str) -> str:
    """Return what is left of case, blanks and marks: the old port answers in wordpieces."""
    return "".join(char for char in text.lower() if char.isalnum() and char.isascii())


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_corpus_arguments(parser)
    parser.add_argument("--questions", type=int, default=25, help="the first one warms up")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))


if __name__ == "__main__":
    sys.exit(main())

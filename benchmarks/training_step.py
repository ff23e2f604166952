"""A joint pre-training step on one core: ours against the same maths on plain transformers.

    python benchmarks/training_step.py --check

4 queries with 8 candidates each (the null passage, and 7 passages drawn at random), read in joint
inputs of at most 192 wordpieces with 10 [MASK]s a query; towers and encoder have MiniLM's size,
the marginal is per token, dropout is off. A step is forward, backward, clipping and AdamW.

- `whole`: towers and encoder. The peer is BertModel and BertForMaskedLM in 32 bits, padded to 192,
  the vocabulary's head at all positions, as in the released code.
- `drawn`: the same by `gradient_candidates = 2`, against `whole`.
- `encoder`: the encoder alone, scores given; beside that peer, RealmKnowledgeAugEncoder of
  transformers 4.57.6, the last release that had it, in an environment of its own.

Every engine is a process of its own (one thread) with the same weights and wordpieces, so that its
memory is its own: the most it held, less what it held before its model was made.
"""

import argparse
import json
import random
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from corpus import add_corpus_arguments, open_corpus
from harness import Figure, Measured, Seconds, Timings, interleaved, ratio, run_benchmark
from peer import HERE, OLD_MODULE, Peer, environment_of
from safetensors.torch import save_file

from realm.checkpoint.pretrained import load_pretrained
from realm.config import EncoderConfig
from realm.corpus.store import PassageStore
from realm.model.bert import bert_settings
from realm.model.embedder import Embedder
from realm.retrieval.batch import body_of, passage_sequence
from realm.retrieval.candidates import NULL_ROW

QUERIES, CANDIDATES, LENGTH, MASKS = 4, 8, 192, 10
QUERY_WORDPIECES = 40
DIM = 128
ROUNDS = 2
"""Each takes more than a minute, and CPU seconds differ little."""
SCRIPTS = {
    "ours, whole": ("step_ours.py", "whole"),
    "ours, drawn": ("step_ours.py", "drawn"),
    "transformers, whole": ("step_plain.py", "whole"),
    "ours, encoder": ("step_ours.py", "encoder"),
    "transformers, encoder": ("step_plain.py", "encoder"),
    "REALM of transformers 4.57.6, encoder": ("step_old.py", "encoder"),
}
DRAWN = "ours, drawn"
OLD = "REALM of transformers 4.57.6, encoder"
SPEED_UP, MEMORY = 4.0, 0.5
LOSS_TOLERANCE, NORM_TOLERANCE = 0.005, 0.02
"""Relative; 16-bit products keep 8 bits."""


def main() -> int:
    """Measure."""
    return run_benchmark("training_step", __doc__, measure, _add_arguments)


def measure(told: argparse.Namespace) -> Measured:
    """Return speed-ups, shares of memory, and how far loss and gradient are from the peers'."""
    torch.set_num_threads(1)
    corpus = open_corpus(told)
    folder: Path = told.work / "training_step"
    folder.mkdir(parents=True, exist_ok=True)
    queries, candidates, length = (2, 3, 48) if told.quick else (QUERIES, CANDIDATES, LENGTH)
    batch = write_batch(corpus.store, folder, length, queries=queries, candidates=candidates)
    names = [name for name in SCRIPTS if not told.quick or not name.endswith(", encoder")]
    old = environment_of("old", OLD_MODULE)
    told_by: dict[str, list[Mapping[str, float]]] = {}
    with ExitStack() as stack:
        actions = {}
        for name in names:
            script, mode = SCRIPTS[name]
            if name == OLD and old is None:
                continue
            peer = stack.enter_context(
                Peer(
                    HERE / "peers" / script,
                    str(folder),
                    mode,
                    python=old if name == OLD else None,
                    environment={"OMP_NUM_THREADS": "1"},
                )
            )
            actions[name] = _noting(peer, told_by.setdefault(name, []))
        timings = interleaved(actions, rounds=1 if told.quick else min(told.rounds, ROUNDS))
    real = sum(len(ids) for ids, _ in batch["joint"])
    return Measured(
        figures=figures(names, timings, told_by),
        timings=timings,
        settings={
            "corpus": corpus.name,
            "queries": queries,
            "candidates": candidates,
            "wordpieces": length,
            "real_share": round(real / (len(batch["joint"]) * length), 3),
            "masks": MASKS,
            "threads": 1,
        },
        versions={"transformers of the old environment": "4.57.6" if old else None},
        more={"steps": told_by},
    )


def write_batch(
    store: PassageStore,
    folder: Path,
    length: int,
    *,
    queries: int = QUERIES,
    candidates: int = CANDIDATES,
) -> dict[str, Any]:
    """Write the batch and the weights that all engines start from; return the batch."""
    rng = random.Random(0)  # noqa: S311 - draws no secret
    tokenizer = store.tokenizer
    drawn = rng.sample(range(len(store)), queries * candidates)  # a query's own passage, and 7
    texts = [body_of(store, row)[:QUERY_WORDPIECES] for row in drawn[:queries]]
    places = [sorted(rng.sample(range(len(text)), MASKS)) for text in texts]
    masked = [
        [tokenizer.mask_id if n in chosen else piece for n, piece in enumerate(text)]
        for text, chosen in zip(texts, places, strict=True)
    ]
    rows = [NULL_ROW, *drawn[queries:]]
    width = candidates - 1
    passage_of = [[0, *range(1 + q * width, 1 + (q + 1) * width)] for q in range(queries)]
    torch.manual_seed(0)
    pretrained = load_pretrained(EncoderConfig(init="minilm"), tokenizer=tokenizer)
    encoder = pretrained.build_encoder()
    tower = Embedder(pretrained.build(), projection_size=DIM, pooling="mean")
    tower.init_score_scale(10.0)
    batch = {
        "bert": bert_settings(encoder.bert),
        "dim": DIM,
        "norm_eps": tower.norm.eps,
        "length": length,
        "queries": [tokenizer.query_input(query, length) for query in masked],
        "passages": [passage_sequence(store, tokenizer, row, length) for row in rows],
        "passage_of": passage_of,
        "joint": [
            tokenizer.joint_input(query, body_of(store, rows[number]), length)
            for query, numbers in zip(masked, passage_of, strict=True)
            for number in numbers
        ],
        "positions": [[1 + place for place in chosen] for chosen in places],
        "targets": [
            [text[place] for place in chosen] for text, chosen in zip(texts, places, strict=True)
        ],
        "scores": [[rng.gauss(0.0, 1.0) for _ in numbers] for numbers in passage_of],
    }
    parts = {"encoder": encoder, "tower": tower}
    weights = {
        f"{n}.{k}": v.contiguous() for n, m in parts.items() for k, v in m.state_dict().items()
    }
    save_file(weights, folder / "weights.safetensors")
    (folder / "batch.json").write_text(json.dumps(batch), encoding="utf-8")
    return batch


def figures(
    names: Sequence[str],
    timings: Mapping[str, Timings],
    told_by: Mapping[str, Sequence[Mapping[str, float]]],
) -> list[Figure]:
    """Return what is compared: each peer with ours of the same mode."""
    found: list[Figure] = []
    for peer in names:
        ours = f"ours, {SCRIPTS[peer][1]}"
        if peer == DRAWN:
            found += _drawn(timings, told_by)
        if peer in {DRAWN, ours}:
            continue
        if peer not in timings:
            note = "there is no environment .venv-old; run make bench"
            found.append(Figure(what=f"against {peer}", value=None, note=note))
            continue
        most = {name: max(told["bytes"] for told in told_by[name]) for name in (ours, peer)}
        note = f"{most[ours] / 2**20:,.0f} of {most[peer] / 2**20:,.0f} MiB"
        found += [
            Figure(
                what=f"against {peer}", value=ratio(timings[peer], timings[ours]), at_least=SPEED_UP
            ),
            Figure(
                what=f"memory, of {peer}",
                value=most[ours] / most[peer],
                unit="",
                at_most=MEMORY,
                note=note,
            ),
            _distance("loss", LOSS_TOLERANCE, peer, told_by[ours], told_by[peer]),
            _distance("gradient_norm", NORM_TOLERANCE, peer, told_by[ours], told_by[peer]),
        ]
    return found


def _drawn(
    timings: Mapping[str, Timings], told_by: Mapping[str, Sequence[Mapping[str, float]]]
) -> list[Figure]:
    """Return what it saves to draw 2 of 8 candidates for the encoder's backward pass."""
    most = [max(told["bytes"] for told in told_by[name]) for name in (DRAWN, "ours, whole")]
    return [
        Figure(
            what="the encoder learns from 2 drawn candidates, against all",
            value=ratio(timings["ours, whole"], timings[DRAWN]),
        ),
        Figure(
            what="memory, of learning from all",
            value=most[0] / most[1],
            unit="",
            note=f"{most[0] / 2**20:,.0f} of {most[1] / 2**20:,.0f} MiB",
        ),
    ]


def _distance(
    key: str,
    tolerance: float,
    peer: str,
    ours: Sequence[Mapping[str, float]],
    theirs: Sequence[Mapping[str, float]],
) -> Figure:
    """Return the largest relative difference of a value over all steps."""
    off = [abs(a[key] - b[key]) / abs(b[key]) for a, b in zip(ours, theirs, strict=True)]
    return Figure(
        what=f"{key.replace('_', ' ')}, relative distance to {peer}",
        value=max(off),
        unit="",
        at_most=tolerance,
        note=f"over {len(off)} steps; {theirs[0][key]:.4f} at the first",
    )


def _noting(peer: Peer, notes: list[Mapping[str, float]]) -> Any:  # noqa: ANN401 - an action
    """Return an action that steps, and notes what the step told."""

    def step() -> Seconds:
        answer = peer.call("step")
        notes.append(answer.result)
        return answer.seconds

    return step


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_corpus_arguments(parser)


if __name__ == "__main__":
    sys.exit(main())

"""A joint step on real examples with candidates drawn at random, beside the plan's seconds.

    PYTHONPATH=src python benchmarks/step_cost.py ENCODER CALIBRATION EXAMPLES PASSAGES

Candidates that an untrained embedder finds are far shorter than the mean passage; random ones are
as long, which is what the plan counts on. One thread, CPU seconds, median of three steps.
"""

import random
import sys
import time
from pathlib import Path
from statistics import median

import torch

from realm.config import PretrainConfig
from realm.corpus.store import PassageStore
from realm.device import autocast_to
from realm.masking.store import ExampleStore
from realm.model.bert import set_dropout
from realm.model.embedder import Towers
from realm.model.inputs import in_packs
from realm.model.likelihood import marginal_log_likelihood
from realm.model.realm import Budget, read_candidates, score_candidates
from realm.planning.encoders import parse_encoder
from realm.planning.machine import Calibration
from realm.planning.probes import new_encoder, new_tower
from realm.planning.stages import pretrain_stage
from realm.planning.workload import Workload
from realm.retrieval.batch import Lengths, candidate_batch
from realm.retrieval.candidates import NULL_ROW

QUERIES, CANDIDATES, STEPS = 4, 8, 3


def main() -> None:
    """Print predicted and measured seconds of a step."""
    encoder, calibration, examples, passages = sys.argv[1:]
    torch.set_num_threads(1)
    shape = parse_encoder(encoder)
    drawn_from, store = ExampleStore.open(Path(examples)), PassageStore.open(Path(passages))
    towers, reading = Towers(new_tower(shape, 128)), new_encoder(shape)
    for part in (towers, reading):
        part.train()
        set_dropout(part, 0.1)
    rng = random.Random(0)  # noqa: S311 - draws no secret
    budget = Budget(pad_id=store.tokenizer.pad_id, batch_tokens=4_096)
    seconds: list[float] = []
    wordpieces = 0
    for _ in range(STEPS + 1):  # the first makes kernels
        drawn = [drawn_from[rng.randrange(len(drawn_from))] for _ in range(QUERIES)]
        rows = [
            [NULL_ROW, *(rng.randrange(len(store)) for _ in range(CANDIDATES - 1))] for _ in drawn
        ]
        began = time.process_time()
        sizes = [
            sum(len(e.query_ids) + (len(store.wordpieces(r)) if r >= 0 else 0) for r in chosen)
            for e, chosen in zip(drawn, rows, strict=True)
        ]
        for group in in_packs(sizes, 4_096):
            batch = candidate_batch(
                store,
                [drawn[i] for i in group],
                [rows[i] for i in group],
                Lengths(query=96, passage=288, joint=384),
            )
            with autocast_to("bfloat16", torch.device("cpu")):
                scores = score_candidates(towers, batch, budget)
                log_probs = read_candidates(reading, batch, budget)
            (
                -marginal_log_likelihood(scores.float(), log_probs, batch.mask_is_real).sum()
            ).backward()
            wordpieces += batch.num_tokens
        seconds.append(time.process_time() - began)
    work = Workload(
        passages=len(store),
        encoder=shape,
        embedder=shape,
        passage_wordpieces=float(store.lengths().mean()),
        pretrain=PretrainConfig(batch_size=QUERIES, num_candidates=CANDIDATES),
    )
    planned = pretrain_stage(work, Calibration.load(Path(calibration)).rates).parts["computing"]
    measured = median(seconds[1:])
    sys.stdout.write(
        f"{encoder}: predicted {planned:.2f}, measured {measured:.2f} CPU seconds "
        f"({planned / measured - 1:+.0%}), {wordpieces / (STEPS + 1):,.0f} wordpieces a step\n"
    )


if __name__ == "__main__":
    main()

"""What each candidate did for a few held-out examples: kept in a run's folder, for its report."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from realm.checkpoint.run_records import HELD_OUT, read_held_out
from realm.corpus.store import PassageStore
from realm.errors import DamagedError
from realm.model.likelihood import marginal_log_likelihood, retrieval_utility, span_log_probs
from realm.model.realm import CandidateBatch
from realm.records import MaskedExample
from realm.storage import write_json

EXCERPT_CHARACTERS = 320
"""Of a passage, around the masked words where it holds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutRead:
    """Held-out examples read with their candidates."""

    store: PassageStore
    examples: Sequence[MaskedExample]
    rows: Sequence[Sequence[int]]
    batch: CandidateBatch
    scores: Float[Tensor, "batch candidates"]
    log_probs: Float[Tensor, "batch candidates masks"]
    predicted: Int[Tensor, "batch masks"]
    """With all candidates."""
    predicted_without: Int[Tensor, "batch masks"]
    """With the null passage alone."""


def keep_held_out(run: Path, step: int, read: HeldOutRead) -> None:
    """Write what the candidates did at a step, beside what they did when it was first measured."""
    told = {"step": step, "examples": told_examples(read)}
    first: dict[str, Any] | None = None
    with suppress(DamagedError):  # only shown: no reason to stop a training
        first = read_held_out(run).get("first")
    is_first = first is None or step <= int(first["step"])  # a run that starts again repeats it
    write_json(run / HELD_OUT, {"first": told if is_first else first, "newest": told})


def told_examples(read: HeldOutRead) -> list[dict[str, Any]]:
    """Return each example with its candidates, the null passage first, as plain JSON values."""
    log_probs = read.log_probs.double()  # 32 bits hold no p(y|x) below 1e-45
    p_z = read.scores.softmax(dim=-1)
    p_y = span_log_probs(log_probs, read.batch.mask_is_real).exp()
    utility = retrieval_utility(log_probs, read.batch.mask_is_real)
    total = marginal_log_likelihood(read.scores, log_probs, read.batch.mask_is_real).exp()
    decode = read.store.tokenizer.decode
    told: list[dict[str, Any]] = []
    for place, (example, rows) in enumerate(zip(read.examples, read.rows, strict=True)):
        num_masks = int(read.batch.mask_is_real[place].sum())
        has_span = example.span_start >= 0
        answer = (
            example.sentence[example.span_start : example.span_end]
            if has_span
            else decode(list(example.target_ids))
        )
        told.append(
            {
                "sentence": example.sentence,
                "start": example.span_start,
                "end": example.span_end,
                "answer": answer,
                "p_without": float(p_y[place, 0]),
                "p_marginal": float(total[place]),
                "predicted": decode(read.predicted[place, :num_masks].tolist()),
                "predicted_without": decode(read.predicted_without[place, :num_masks].tolist()),
                "candidates": [
                    {
                        **_passage(read.store, row, answer),
                        "p_passage": float(p_z[place, number]),
                        "p_answer": float(p_y[place, number]),
                        "utility": float(utility[place, number]),
                    }
                    for number, row in enumerate(rows)
                    if bool(read.batch.is_real[place, number])
                ],
            }
        )
    return told


def _passage(store: PassageStore, row: int, answer: str) -> dict[str, Any]:
    """Return what to show of a candidate: an excerpt with the answer in it, if there is one."""
    if row < 0:
        return {"passage_id": None, "title": "", "excerpt": "", "start": -1, "end": -1}
    passage = store[row]
    found = passage.text.lower().find(answer.lower()) if answer else -1
    first = max(0, found - EXCERPT_CHARACTERS // 2) if found >= 0 else 0
    shown = passage.text[first : first + EXCERPT_CHARACTERS]
    is_whole = found >= 0 and found + len(answer) <= first + len(shown)
    return {
        "passage_id": passage.id,
        "title": passage.title,
        "excerpt": shown,
        "start": found - first if is_whole else -1,
        "end": found - first + len(answer) if is_whole else -1,
    }

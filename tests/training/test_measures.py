"""What joint pre-training measures, by hand."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from realm.checkpoint.checkpoints import load_model
from realm.checkpoint.run_records import read_held_out
from realm.corpus.store import PassageStore
from realm.masking.store import ExampleStore
from realm.model.realm import Budget, CandidateBatch
from realm.records import MaskedExample
from realm.retrieval.batch import Lengths
from realm.retrieval.candidates import MISSING_ROW, NULL_ROW
from realm.training.held_out import HeldOutRead, keep_held_out, told_examples
from realm.training.measures import (
    EVAL_GROUP,
    ForwardPass,
    average,
    leave_out_null,
    measure_held_out,
    step_measures,
)

NAN = float("nan")


def batch(
    is_real: Sequence[Sequence[bool]], mask_is_real: Sequence[Sequence[bool]]
) -> CandidateBatch:
    real, masks = torch.tensor(is_real), torch.tensor(mask_is_real)
    return CandidateBatch(
        queries=[([1, 2, 3], [0, 0, 0])] * len(real),
        passages=[([1, 3, 3], [0, 0, 1])],
        passage_of=torch.zeros(real.shape, dtype=torch.long),
        is_real=real,
        joint=[([1, 2, 3, 3], [0, 0, 0, 1])] * real.numel(),
        targets=torch.zeros(masks.shape, dtype=torch.long),
        mask_positions=torch.zeros(masks.shape, dtype=torch.long),
        mask_is_real=masks,
    )


def test_one_example_by_hand() -> None:
    """p(z|x) = 0.5, 0.3, 0.2; p(y|z,x) = 0.1, 0.4, 0.2 over two masks."""
    scores = torch.tensor([[0.5, 0.3, 0.2]]).log()
    log_probs = torch.tensor([[[0.2, 0.5], [0.8, 0.5], [0.4, 0.5]]]).log()
    stale = torch.tensor([[NAN, -1.0, -2.0]])
    found = step_measures(scores, log_probs, batch([[True] * 3], [[True] * 2]), stale)
    p = 0.5 * 0.1 + 0.3 * 0.4 + 0.2 * 0.2
    log = lambda value: float(torch.tensor(value).log())  # noqa: E731
    expected = {
        "count": 1.0,
        "masks": 2.0,
        "loss": -log(p),
        "loss_per_mask": -log(p) / 2,
        "utility/marginal_minus_null": log(p / 0.1),
        "utility/mean": (log(4.0) + log(2.0)) / 2,
        "utility/best": log(4.0),
        "p_null": 0.5,
        "tokens": 3.0 + 3.0 + 3 * 4.0,
        "index/score_drift": (abs(log(0.3) + 1) + abs(log(0.2) + 2)) / 2,
    }
    assert {found.pop(name) for name in ("with_passages", "with_scores", "with_orders")} == {1.0}
    rank = found.pop("index/rank_correlation")
    assert found == pytest.approx(expected, rel=1e-5)
    assert rank == pytest.approx(1.0)


def test_without_the_null_passage_the_utility_is_still_measured_against_it() -> None:
    """It is read in any case, and has no part in p(y|x) = 0.6 x 0.4 + 0.4 x 0.2."""
    scores = torch.tensor([[-torch.inf, *torch.tensor([0.6, 0.4]).log()], [0.0, -9e9, -9e9]])
    log_probs = torch.tensor([[[0.1], [0.4], [0.2]], [[0.3], [0.9], [0.9]]]).log()
    of = batch([[False, True, True], [True, False, False]], [[True], [True]])
    found = step_measures(scores, log_probs, of, torch.full((2, 3), NAN))
    first = float(torch.tensor(0.32 / 0.1).log())  # the second has nothing else to read: 0
    assert found["utility/marginal_minus_null"] == pytest.approx(first / 2, rel=1e-5)


def test_the_order_of_the_snapshot_against_the_fresh_one() -> None:
    scores = torch.tensor([[0.0, 3.0, 2.0, 1.0]])
    log_probs = torch.zeros(1, 4, 1)
    of = batch([[True] * 4], [[True]])
    for stale, expected in (([3.0, 2.0, 1.0], 1.0), ([1.0, 2.0, 3.0], -1.0)):
        found = step_measures(scores, log_probs, of, torch.tensor([[NAN, *stale]]))
        assert found["index/rank_correlation"] == pytest.approx(expected)


def test_candidates_that_are_missing_count_for_nothing() -> None:
    scores = torch.tensor([[0.0, 0.0, -torch.inf], [0.0, -torch.inf, -torch.inf]])
    log_probs = torch.tensor([[[-2.0], [-1.0], [-9.0]], [[-2.0], [-9.0], [-9.0]]])
    is_real = [[True, True, False], [True, False, False]]
    stale = torch.tensor([[NAN, 0.5, NAN], [NAN, NAN, NAN]])
    found = step_measures(scores, log_probs, batch(is_real, [[True], [True]]), stale)
    assert found["utility/mean"] == found["utility/best"] == 1.0
    assert found["index/score_drift"] == 0.5
    assert "index/rank_correlation" not in found  # nothing to order


def test_with_nothing_but_the_null_passage_there_is_no_utility() -> None:
    scores = torch.tensor([[0.0, -torch.inf]])
    of = batch([[True, False]], [[True]])
    found = step_measures(scores, torch.full((1, 2, 1), -1.0), of, torch.full((1, 2), NAN))
    assert found["p_null"] == 1.0
    assert not {"utility/mean", "utility/best", "index/score_drift"} & set(found)


def test_groups_are_averaged_by_their_size_and_tokens_are_summed() -> None:
    parts = [
        {"count": 1.0, "loss": 4.0, "tokens": 10.0},
        {"count": 3.0, "loss": 0.0, "tokens": 5.0},
    ]
    assert average(parts, sums={"tokens"}) == {"examples": 4.0, "loss": 1.0, "tokens": 15.0}
    parts[0]["rare"] = 7.0
    assert average(parts)["rare"] == 7.0  # of those that have it


def test_each_masked_wordpiece_counts_alike_in_whatever_group_it_stands() -> None:
    """A span of nine and one of one: nine times as much, not as much."""
    parts = [
        {"count": 1.0, "masks": 9.0, "loss_per_mask": 1.0, "piece_accuracy": 1.0, "p_null": 0.0},
        {"count": 1.0, "masks": 1.0, "loss_per_mask": 6.0, "piece_accuracy": 0.0, "p_null": 1.0},
    ]
    together = {"loss_per_mask": 1.5, "piece_accuracy": 0.9, "p_null": 0.5, "examples": 2.0}
    assert average(parts) == pytest.approx(together)


def test_a_batch_shows_the_same_numbers_however_it_is_grouped() -> None:
    """Examples with three, one, two and no passages, some of which are new to the index."""
    torch.manual_seed(0)
    is_real = torch.arange(4)[None] <= torch.tensor([3, 1, 2, 0])[:, None]
    scores = torch.randn(4, 4).masked_fill(~is_real, -torch.inf)
    log_probs = torch.randn(4, 4, 2)
    stale = torch.randn(4, 4).masked_fill(~is_real, NAN)
    stale[:, 0] = stale[2, 1] = NAN
    masks = torch.tensor([[True, True], [True, False], [True, True], [True, False]])

    def measured(rows: slice) -> dict[str, float]:
        of = batch(is_real[rows].tolist(), masks[rows].tolist())
        found = step_measures(scores[rows], log_probs[rows], of, stale[rows])
        del found["tokens"]
        return found

    whole = average([measured(slice(0, 4))])
    assert {"utility/mean", "index/score_drift", "index/rank_correlation"} <= set(whole)
    for cuts in ([0, 1, 4], [0, 2, 4], [0, 3, 4], [0, 1, 2, 3, 4]):
        parts = [measured(slice(*ends)) for ends in pairwise(cuts)]
        assert average(parts) == pytest.approx(whole, rel=1e-5), cuts


def test_the_null_passage_is_left_out_where_something_else_is_there() -> None:
    of = batch([[True, True], [True, False]], [[True], [True]])
    leave_out_null(of)
    assert of.is_real.tolist() == [[False, True], [True, False]]


@pytest.fixture
def forward(store: PassageStore, start: dict[str, Path]) -> ForwardPass:
    """Return a pass in which example k is read with the passages k and k + 1."""

    def candidates(drawn: Sequence[MaskedExample]) -> tuple[list[list[int]], Tensor]:
        rows = [[NULL_ROW, e.origin, MISSING_ROW] for e in drawn]
        return rows, torch.full((len(drawn), 3), NAN)

    return ForwardPass(
        store=store,
        towers=load_model(start["embedder"]).need_towers(),
        encoder=load_model(start["encoder"]).need_encoder(),
        candidates=candidates,
        lengths=Lengths(query=32, passage=48, joint=80),
        budget=Budget(pad_id=store.tokenizer.pad_id, batch_tokens=4_096),
        null_passage=True,
        autocast="none",
    )


def test_held_out_examples_are_measured_whatever_their_number(
    forward: ForwardPass, examples: ExampleStore
) -> None:
    chosen = [examples[row] for row in range(0, 22, 2)]  # a whole group and a part of one
    found = measure_held_out(forward, chosen)
    assert found["eval/examples"] == 11
    assert found["eval/candidates_hold_span"] == 1.0  # their own passage was given
    singly = [measure_held_out(forward, [example]) for example in chosen]
    for name in ("loss", "span_accuracy", "piece_accuracy_null", "p_null", "utility/mean"):
        mean = sum(part[f"eval/{name}"] for part in singly) / 11
        assert found[f"eval/{name}"] == pytest.approx(mean, rel=1e-4, abs=1e-6)


def test_a_prediction_without_retrieval_sees_the_null_passage_only(
    forward: ForwardPass, examples: ExampleStore
) -> None:
    """The encoder is made to name the gold wordpiece of one example whatever it reads."""
    example = next(
        examples[row] for row in range(len(examples)) if len(examples[row].positions) == 1
    )
    with torch.no_grad():
        forward.encoder.head.bias[example.target_ids[0]] = 100.0
    found = measure_held_out(forward, [example])
    assert found["eval/span_accuracy"] == found["eval/span_accuracy_null"] == 1.0
    with torch.no_grad():
        forward.encoder.head.bias[example.target_ids[0]] = -100.0
    found = measure_held_out(forward, [example])
    assert found["eval/span_accuracy"] == found["eval/span_accuracy_null"] == 0.0


def test_what_candidates_did_for_the_first_examples_is_kept(
    forward: ForwardPass, examples: ExampleStore, tmp_path: Path
) -> None:
    chosen = [examples[row] for row in range(0, 22, 2)]
    read: list[HeldOutRead] = []
    found = measure_held_out(forward, chosen, on_first=read.append)
    assert len(read) == 1
    told = told_examples(read[0])
    assert [one["sentence"] for one in told] == [one.sentence for one in chosen[:EVAL_GROUP]]
    for one, example in zip(told, chosen, strict=False):
        null, passage = one["candidates"]  # the missing one is left out
        assert (null["passage_id"], null["utility"]) == (None, 0.0)
        assert null["p_passage"] + passage["p_passage"] == pytest.approx(1.0)
        assert null["p_answer"] == one["p_without"]
        weighted = [z["p_passage"] * z["p_answer"] for z in one["candidates"]]
        assert sum(weighted) == pytest.approx(one["p_marginal"], rel=1e-4)
        assert one["sentence"][one["start"] : one["end"]] == one["answer"]
        assert passage["excerpt"][passage["start"] : passage["end"]] == one["answer"]
        assert passage["passage_id"] == forward.store[example.origin].id
    faint = told_examples(replace(read[0], log_probs=read[0].log_probs - 200.0))
    assert min(one["p_without"] for one in faint) > 0  # below what 32 bits hold
    assert measure_held_out(forward, chosen) == found
    for step in (0, 4, 2):  # cut after 4, resumed from 1
        keep_held_out(tmp_path, step, read[0])
    kept = read_held_out(tmp_path)
    assert (kept["first"]["step"], kept["newest"]["step"]) == (0, 2)
    assert kept["newest"]["examples"] == told


def test_no_examples_no_numbers(forward: ForwardPass) -> None:
    assert measure_held_out(forward, []) == {}

"""The claim of the paper: retriever and encoder learn together, from raw text alone (section 3).

On a made-up world (reproductions/small-world), for entities of which no masked sentence was ever
seen: the retriever learns which passage tells what is asked, which its warm start did not know.
And it is these ingredients that do it: whoever breaks one of them, breaks this test (the slow
tests below do, one at a time).
"""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from measure import Outcome
from recipe import REALM, SmallWorld

from realm.refresh.sync import SyncRefresher
from realm.retrieval.candidates import CandidateFinder
from realm.training import backward

OVERRIDES = {
    "ict": ("steps=300",),
    "mlm": ("steps=200", "eval_every_steps=200"),
    "pretrain": ("steps=240", "eval_every_steps=240", "num_eval_examples=16"),
}
"""Fewer steps than the reproduction: under two minutes of one core in all."""


def recall(outcomes: Sequence[Outcome]) -> float:
    """Return how often the passage that tells the fact was found first."""
    return sum(outcome.rank == 1 for outcome in outcomes) / len(outcomes)


def right(outcomes: Sequence[Outcome]) -> float:
    return sum(outcome.is_right for outcome in outcomes) / len(outcomes)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    """A world of two thousand passages, with both warm starts."""
    torch.set_num_threads(1)
    made = SmallWorld(out=tmp_path_factory.mktemp("small-world"), overrides=OVERRIDES)
    made.ict()
    made.mlm()
    return made


@pytest.fixture
def joint(small: SmallWorld, tmp_path: Path) -> SmallWorld:
    """The same warm starts, with room for a joint run and its measures."""
    for part in small.out.iterdir():
        if part.name not in {REALM.name, "index", "measured"}:
            (tmp_path / part.name).symlink_to(part)
    return SmallWorld(out=tmp_path, overrides=OVERRIDES)


def learn(world: SmallWorld) -> list[Outcome]:
    """Return what joint training makes of sentences about entities held out."""
    run = world.pretrain(REALM)
    return world.measure("realm", retriever=run, encoder=run)


def test_retriever_and_encoder_learn_together(joint: SmallWorld) -> None:
    """Recall@1 and masked accuracy, above ICT and above the null passage."""
    realm = learn(joint)
    baseline = joint.measure("ict", retriever=joint.ict(), encoder=joint.out / REALM.name)
    alone = sum(outcome.is_right_alone for outcome in realm) / len(realm)
    told = f"recall@1 {recall(baseline):.3f} -> {recall(realm):.3f}, right {right(baseline):.3f} "
    told += f"-> {right(realm):.3f}, null passage {alone:.3f}"
    assert recall(baseline) < 0.25, told
    assert recall(realm) > 0.45, told
    assert right(realm) > max(right(baseline), alone) + 0.2, told


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["gradient", "own passage", "refresh"])
def test_it_does_not_learn_without(
    broken: str, joint: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three mutations of the code, each of which must turn the test above red."""
    if broken == "gradient":
        scored = backward.score_vectors
        monkeypatch.setattr(backward, "score_vectors", lambda *parts: scored(*parts).detach())
    elif broken == "own passage":
        monkeypatch.setattr(CandidateFinder, "are_own", lambda _, __, rows: [False] * len(rows))
    else:
        monkeypatch.setattr(SyncRefresher, "_is_due", lambda *_: False)
    with pytest.raises(AssertionError, match="recall@1"):
        test_retriever_and_encoder_learn_together(joint)
    run = joint.out / REALM.name
    assert recall(joint.measure("realm", retriever=run, encoder=run)) < 0.25

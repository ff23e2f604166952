"""Table 3 for any sentence: its numbers are those of the paper's equations."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from realm.checkpoint.checkpoints import checkpoint_folder, save_checkpoint
from realm.checkpoint.parts import Model
from realm.checkpoint.sources import write_sources
from realm.corpus.store import PassageStore
from realm.errors import ArtifactError, ConfigError, MaskingError
from realm.explaining import Explainer, Explanation
from realm.retrieval.batch import Lengths
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer

Make = Callable[..., Any]

LENGTHS = Lengths(query=40, passage=64, joint=96)
TEXT = "Fermat was born in the year 1607 near the harbour of [MASK] ."


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def model(tokenizer: WordpieceTokenizer, make_towers: Make, make_encoder: Make) -> Model:
    return Model(tokenizer=tokenizer, towers=make_towers(), encoder=make_encoder())


@pytest.fixture
def explainer(model: Model, store: PassageStore, make_snapshot: Make) -> Explainer:
    return Explainer(model, store, make_snapshot(model.towers), lengths=LENGTHS)


def check_equations(found: Explanation) -> None:
    p_z = [candidate.p_passage for candidate in found.candidates]
    p_y = [candidate.p_answer for candidate in found.candidates]
    assert sum(p_z) == pytest.approx(1.0, abs=1e-5)
    marginal = sum(z * y for z, y in zip(p_z, p_y, strict=True))
    assert found.p_marginal == pytest.approx(marginal, rel=1e-4)  # Eq. 1
    assert found.p_without == pytest.approx(p_y[0], rel=1e-5)
    null, *others = found.candidates
    assert null.passage is None
    assert null.utility == 0.0
    assert sum(candidate.gradient for candidate in found.candidates) == pytest.approx(0, abs=1e-5)
    for candidate in found.candidates:
        gradient = (candidate.p_answer / found.p_marginal - 1) * candidate.p_passage  # Appendix A
        assert candidate.gradient == pytest.approx(gradient, rel=1e-3, abs=1e-6)
        utility = math.log(candidate.p_answer) - math.log(null.p_answer)  # Eq. 2
        assert candidate.utility == pytest.approx(utility, rel=1e-3, abs=1e-5)
    scored = [candidate.p_passage for candidate in others]
    assert scored == sorted(scored, reverse=True)


@pytest.mark.parametrize("answer", ["Toulouse", "Basel", "an unknown place"])
def test_an_answer_is_explained_by_the_papers_equations(explainer: Explainer, answer: str) -> None:
    found = explainer.explain(TEXT, answers=[answer])
    check_equations(found)
    assert (found.text, found.answer) == (TEXT, answer)
    assert found.num_masks == len(explainer.store.tokenizer.encode(answer).ids)
    assert len(found.candidates) == 8
    rows = [c.passage.row for c in found.candidates if c.passage is not None]
    assert len(set(rows)) == 7


def test_several_blanks_are_one_answer(explainer: Explainer) -> None:
    text = "[MASK] was born in the year [MASK] near the harbour of Toulouse ."
    found = explainer.explain(text, answers=["Fermat", "1607"])
    check_equations(found)
    assert found.answer == "Fermat 1607"
    assert found.num_masks == 2
    joint = [c.p_answer for c in found.candidates]
    single = "Fermat was born in the year [MASK] near the harbour of Toulouse ."
    one = explainer.explain(single, answers=["1607"])
    assert max(joint) < max(c.p_answer for c in one.candidates)  # a product over both


def test_a_long_answer_has_a_probability_too(explainer: Explainer) -> None:
    """It is below what 32 bits hold, and was told as 0, with retrieval and without."""
    found = explainer.explain(TEXT, answers=["the old house near the harbour of Toulouse " * 3])
    assert found.num_masks == 24
    assert 0 < found.p_without < 1e-50
    check_equations(found)


def test_without_an_answer_the_prediction_is_explained(explainer: Explainer) -> None:
    found = explainer.explain(TEXT)
    check_equations(found)
    assert found.answer == found.predicted
    assert found.num_masks == 1
    asked = explainer.explain(TEXT, answers=[found.predicted])
    assert asked.p_marginal == pytest.approx(found.p_marginal, rel=1e-4)
    for other in ("Toulouse", "Basel", "1607", "the"):
        assert explainer.explain(TEXT, answers=[other]).p_marginal <= found.p_marginal + 1e-6
    assert found.predicted_without
    without = explainer.explain(TEXT, answers=[found.predicted_without]).p_without
    assert without >= found.p_without - 1e-6


def test_marks_side_by_side_are_one_blank_of_several_wordpieces(explainer: Explainer) -> None:
    text = "Fermat was born near the harbour of [MASK] [MASK] in 1607 ."
    found = explainer.explain(text)
    check_equations(found)
    assert found.num_masks == 2
    assert explainer.explain(text, answers=["the old house"]).num_masks == 3


@pytest.mark.parametrize("num_candidates", [2, 5])
def test_as_many_candidates_as_asked_for(explainer: Explainer, num_candidates: int) -> None:
    found = explainer.explain(TEXT, answers=["Toulouse"], num_candidates=num_candidates)
    assert len(found.candidates) == num_candidates
    check_equations(found)


def test_all_passages_may_be_read_but_no_more(explainer: Explainer, store: PassageStore) -> None:
    most = len(store) + 1
    check_equations(explainer.explain(TEXT, answers=["Basel"], num_candidates=most))
    for number in (0, 1, most + 1):
        with pytest.raises(ConfigError, match=f"expected 2 to {most}"):
            explainer.explain(TEXT, num_candidates=number)


def test_the_passage_that_holds_the_sentence_may_be_read(
    explainer: Explainer, store: PassageStore
) -> None:
    """Nothing is trained here, so nothing is a trivial retrieval."""
    start, end = store[0].sentences[0]
    text = store[0].text[start:end].replace("Toulouse", "[MASK]")
    found = explainer.explain(text, answers=["Toulouse"], num_candidates=len(store) + 1)
    assert 0 in [c.passage.row for c in found.candidates if c.passage is not None]


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("Fermat was born in Toulouse.", []),
        ("[MASK]", []),
        (TEXT, ["Toulouse", "Basel"]),
        (TEXT, [" "]),
        (TEXT + " and so on" * 20, []),
    ],
)
def test_a_text_that_cannot_be_filled_is_refused(
    explainer: Explainer, text: str, answers: list[str]
) -> None:
    with pytest.raises(MaskingError):
        explainer.explain(text, answers=answers)


def test_passages_of_another_snapshot_or_vocabulary_are_refused(
    model: Model, store: PassageStore, make_store: Make, make_snapshot: Make
) -> None:
    snapshot = make_snapshot(model.towers)
    other = make_store([{"id": "o", "title": "o", "text": "Euler was born in Basel."}])
    with pytest.raises(ArtifactError, match="was built from passages"):
        Explainer(model, other, snapshot)
    tokens = WordpieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, "fermat"])
    changed = Model(tokenizer=tokens, towers=model.towers, encoder=model.encoder)
    with pytest.raises(ConfigError, match="another tokenizer"):
        Explainer(changed, store, snapshot)


@pytest.fixture
def run(model: Model, store: PassageStore, tmp_path: Path) -> Path:
    """A run as `pretrain` leaves it, its last index out of date."""
    folder = tmp_path / "run"
    settings = {"query_wordpieces": 40, "passage_wordpieces": 64, "joint_wordpieces": 96}
    save_checkpoint(checkpoint_folder(folder, 3), model, settings=settings, inputs={})
    write_sources(folder, store)
    return folder


def test_a_pretrained_run_explains_itself(run: Path, store: PassageStore) -> None:
    calls: list[int] = []
    explainer = Explainer.load(run, progress=lambda done, _: calls.append(done))
    assert explainer.lengths == LENGTHS
    assert explainer.store.fingerprint == store.fingerprint
    assert calls[-1] == len(store)  # its own index is older than its parameters: made once, kept
    again = Explainer.load(run, progress=lambda done, _: calls.append(done))
    assert calls.count(len(store)) == 1
    assert again.explain(TEXT) == explainer.explain(TEXT)
    assert Explainer.load(checkpoint_folder(run, 3)).explain(TEXT) == explainer.explain(TEXT)
    assert calls.count(len(store)) == 1


@pytest.mark.parametrize("missing", ["encoder", "towers"])
def test_a_run_without_its_parts_is_refused(
    model: Model, store: PassageStore, tmp_path: Path, missing: str
) -> None:
    parts = {"towers": model.towers, "encoder": model.encoder, missing: None}
    half = Model(tokenizer=model.tokenizer, **parts)
    save_checkpoint(checkpoint_folder(tmp_path / "run", 1), half, settings={}, inputs={})
    write_sources(tmp_path / "run", store)
    with pytest.raises(ConfigError, match="has no e"):
        Explainer.load(tmp_path / "run")

"""The page about a run: every stage and state, whole, escaped, the same twice, alone."""

import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from realm.errors import ArtifactError, ConfigError
from realm.reporting.report import render_run_report, write_run_report
from realm.storage import locked

pytest.importorskip("matplotlib", reason="the extra plot is not installed")
MakeRun = Callable[..., Path]
Lines = Callable[..., list[dict[str, Any]]]
Make = Callable[..., dict[str, Any]]
VOID = {"meta", "br", "path", "use"}
STAGES = {
    "ict": {"stage": "ict"},
    "mlm": {"stage": "mlm"},
    "pretrain": {"stage": "pretrain", "refresh": {"mode": "sync", "every_steps": 5}},
    "finetune": {"stage": "finetune"},
    "classify": {"stage": "finetune", "task": "classify"},
}
HELD_OUT = {
    "sentence": "The baker was born in Bado.",
    "start": 22,
    "end": 26,
    "answer": "Bado",
    "p_without": 1e-6,
    "p_marginal": 0.25,
    "predicted": "bado",
    "predicted_without": "the",
    "candidates": [
        {
            "passage_id": None,
            "title": "",
            "excerpt": "",
            "start": -1,
            "end": -1,
            "p_passage": 0.1,
            "p_answer": 1e-6,
            "utility": 0.0,
        },
        {
            "passage_id": "bado#0",
            "title": "Bado",
            "excerpt": "In Bado a baker was born.",
            "start": 3,
            "end": 7,
            "p_passage": 0.9,
            "p_answer": 0.27,
            "utility": 12.5,
        },
    ],
}


class Page(HTMLParser):
    """Tags that are closed, words that are shown, places that are pointed at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in {"href", "src", "xlink:href", "data", "action"}:
                self.targets.append(str(value))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def shown(self) -> str:
        """All words of the page."""
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def run(make_run_once: MakeRun, pretrain_lines: Lines) -> Path:
    """A pre-training run with all that one has."""
    settings = {
        **STAGES["pretrain"],
        "steps": 20,
        "batch_size": 99,
        "optimizer": {"learning_rate": 3e-5, "old_setting": 1},
    }
    content = {"versions": {"torch": "9.9"}, "device": "cpu", "peak_memory_bytes": 2_000_000_000}
    made = make_run_once("pre", settings=settings, lines=pretrain_lines(20), content=content)
    newest = {"step": 20, "examples": [HELD_OUT]}
    told = {"first": {"step": 0, "examples": [{**HELD_OUT, "p_marginal": 1e-7}]}, "newest": newest}
    (made / "held-out.json").write_text(json.dumps(told))
    snapshot = made / "index" / "step-5"
    snapshot.mkdir(parents=True)
    manifest = {"content": {"num_passages": 680, "dim": 128, "model_hash": "cafe" * 16}}
    (snapshot / "manifest.json").write_text(json.dumps(manifest))
    (made / "sources.json").write_text('{"passages": "../Z"}')
    return made


@pytest.fixture(scope="module")
def text(run: Path) -> str:
    """The page about it."""
    return render_run_report(run)


@pytest.mark.parametrize(
    ("stage", "finished"), [*((stage, True) for stage in STAGES), ("mlm", False)]
)
def test_every_stage_has_a_page(
    make_run: MakeRun, pretrain_lines: Lines, stage: str, *, finished: bool
) -> None:
    lines = pretrain_lines(6)
    made = make_run(settings=STAGES[stage], lines=lines, finished=finished)
    page = Page(render_run_report(made))
    assert "svg" in page.tags
    told = "6 of 10 steps in 1.5 min" if finished else "Stopped after 6 of 10 steps"
    assert told in page.shown


def test_a_run_that_is_going_or_has_said_nothing_yet_has_one_too(make_run: MakeRun) -> None:
    made = make_run(finished=False)
    (made / "metrics.jsonl").unlink()
    with locked(made):
        page = Page(render_run_report(made))
    assert "Still going: 0 of 10 steps" in page.shown
    assert "Nothing has been logged yet" in page.shown
    assert "svg" not in page.tags


def test_a_run_of_one_step_has_a_page_and_its_one_point_is_seen(make_run: MakeRun) -> None:
    lines = [{"step": 0, "eval/loss": 3.0}, {"step": 1, "loss": 2.5}]
    shown = Page(render_run_report(make_run("one", lines=lines))).shown
    assert "No number was logged twice, as a curve needs." in shown
    assert "Nothing has been logged yet" not in shown
    measured = [*lines, {"step": 1, "eval/loss": 2.0}]
    drawn = render_run_report(make_run("two", lines=measured))
    assert len(re.findall(r"<use [^>]*fill: var\(--series-1\)", drawn)) == 1  # loss
    assert len(re.findall(r"<use [^>]*fill: var\(--series-2\)", drawn)) == 2  # held out


def test_one_step_is_told_as_one(make_run: MakeRun, pretrain_lines: Lines) -> None:
    made = make_run(settings={**STAGES["pretrain"], "steps": 1}, lines=pretrain_lines(1))
    shown = Page(render_run_report(made)).shown
    assert "1 of 1 step in 1.5 min" in shown
    assert "1 snapshot came into use in 1 step, the first included" in shown


def test_the_page_asks_for_nothing_and_points_only_into_itself(text: str) -> None:
    page = Page(text)
    assert page.targets
    assert all(target.removeprefix("#") in page.ids for target in page.targets)
    assert all(target.startswith("#") for target in page.targets)
    assert len(page.ids) == len(set(page.ids))
    assert "script" not in page.tags
    assert not re.search(r"https?:|@import|url\((?!#)", text)


def test_the_same_run_gives_the_same_bytes(run: Path, text: str, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report.html"
    write_run_report(run, out)
    assert out.read_bytes() == text.encode()


def test_curves_numbers_index_and_candidates_are_told(text: str) -> None:
    shown = Page(text).shown
    assert "Retrieval utility" in shown
    assert "95 % interval" not in shown  # nothing says of how many examples
    assert "4 snapshots came into use in 20 steps" in shown
    assert "at most 4 steps old. Mode sync, every 5 steps." in shown
    assert "step 5 680 128" in shown
    assert "The baker was born in Bado ." in shown  # the mark stands between
    assert "at step 0 1.0e-07" in shown
    assert "+12.50" in shown


def test_text_of_drawings_is_text_in_the_page_s_own_colours(text: str) -> None:
    assert re.search(r"<text[^>]*>\s*step\s*</text>", text)
    assert "var(--series-1)" in text
    assert not re.search(r"#0a00|Bitstream|<metadata", text)


def test_changed_settings_come_first_with_their_defaults(text: str) -> None:
    changed = re.findall(r'<div class="changed"><dt>([^<]*)</dt>', text)
    assert set(changed) == {"steps", "batch_size", "optimizer.old_setting", "refresh.mode"} | {
        "refresh.every_steps"
    }
    assert '99 <span class="was">default 8</span>' in text
    assert "no longer a setting" in text
    assert text.rindex('class="changed"') < text.index('class="default"')


def test_provenance_is_told(text: str) -> None:
    shown = Page(text).shown
    for told in ("5e" * 32, "ab" * 32, "torch 9.9", "2 GB", "../Z", "1.5 min"):
        assert told in shown


def test_an_evaluation_beside_the_run_is_found_by_its_fingerprint(
    make_run: MakeRun, evaluation: Make, tmp_path: Path
) -> None:
    made = make_run("qa", settings=STAGES["finetune"])
    (tmp_path / "own.json").write_text(json.dumps(evaluation(), indent=2))
    other = evaluation(model={"name": "other", "fingerprint": "cd" * 32})
    (tmp_path / "other.json").write_text(json.dumps(other, indent=2))
    (tmp_path / "damaged.json").write_text('{\n  "format_version": 1,\n  "kind": "report"')
    shown = Page(render_run_report(made)).shown
    assert "own.json: retriever realm, 1,234 passages" in shown
    assert "exact match 50.0 40.0 to 60.0" in shown
    assert "20 of 40 questions" in shown
    assert "other.json" not in shown
    assert "damaged" not in shown
    named = Page(render_run_report(made, evaluations=[tmp_path / "other.json"])).shown
    assert "Of another model: other (cdcdcdcdcdcd)" in named
    assert "own.json" not in named


def test_several_evaluations_stand_side_by_side_the_own_retriever_first(
    make_run: MakeRun, evaluation: Make, tmp_path: Path
) -> None:
    made = make_run("qa", settings=STAGES["finetune"])
    for name, retriever in (("a", "bm25"), ("b", "dense")):
        told = json.dumps(evaluation(retriever=retriever), indent=2)
        (tmp_path / f"{name}.json").write_text(told)
    shown = Page(render_run_report(made)).shown
    assert "Side by side" in shown
    assert "dense dev.jsonl, b.json 50.0 40.0 to 60.0 80.0" in shown
    assert shown.index("b.json: retriever dense") < shown.index("a.json: retriever bm25")


def test_an_older_checkpoint_is_another_model(
    make_run: MakeRun, evaluation: Make, tmp_path: Path
) -> None:
    made = make_run("qa", settings=STAGES["finetune"])
    for step, name in ((400, "cd" * 32), (900, "ef" * 32)):
        checkpoint = made / "checkpoints" / f"step-{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "manifest.json").write_text(json.dumps({"fingerprint": name}))
        told = evaluation(model={"name": "qa", "fingerprint": name})
        (tmp_path / f"qa-{step}.json").write_text(json.dumps(told, indent=2))
    shown = Page(render_run_report(made)).shown
    assert "qa-900.json: retriever realm" in shown
    assert "qa-400.json" not in shown
    named = Page(render_run_report(made, evaluations=[tmp_path / "qa-400.json"])).shown
    assert "Of another model: qa (cdcdcdcdcdcd)" in named


def test_the_number_at_the_top_is_of_the_retriever_that_the_run_was_trained_with(
    make_run: MakeRun, evaluation: Make, tmp_path: Path
) -> None:
    made = make_run("qa", settings={**STAGES["finetune"], "retriever": "hybrid"})
    files: list[Path] = []
    for retriever in ("bm25", "dense", "hybrid"):
        files.append(tmp_path / f"{retriever}.json")
        files[-1].write_text(json.dumps(evaluation(retriever=retriever), indent=2))
    tile = "exact match 50.0 % 40.0 to 60.0, 20 of dev.jsonl, retriever"
    assert f"{tile} hybrid" in Page(render_run_report(made, evaluations=files)).shown
    assert f"{tile} dense" in Page(render_run_report(made, evaluations=files[:2])).shown
    assert f"{tile} bm25" in Page(render_run_report(made, evaluations=files[:1])).shown


def test_examples_are_the_run_s_own_or_name_their_model(
    make_run: MakeRun, evaluation: Make, question: Make, tmp_path: Path
) -> None:
    made = make_run("qa", settings=STAGES["finetune"])
    own, other = tmp_path / "own.json", tmp_path / "other.json"
    own.write_text(json.dumps(evaluation(), indent=2))
    asked = [question(0, right=False, question="Who asked the other model?")]
    told = evaluation(model={"name": "other", "fingerprint": "cd" * 32}, questions=asked)
    other.write_text(json.dumps(told, indent=2))
    both = Page(render_run_report(made, evaluations=[other, own])).shown
    assert "Who was born in town 1?" in both
    assert "Who asked the other model?" not in both
    alone = Page(render_run_report(made, evaluations=[other])).shown
    assert "Who asked the other model?" in alone
    assert "Answered by another model: other (cdcdcdcdcdcd)." in alone


def test_examples_are_right_and_wrong_with_their_evidence(
    make_run: MakeRun, evaluation: Make, tmp_path: Path
) -> None:
    made = make_run("qa", settings=STAGES["finetune"])
    (tmp_path / "own.json").write_text(json.dumps(evaluation(), indent=2))
    text = render_run_report(made, num_examples=6)
    page = Page(text)
    assert text.count('<li class="right">') == 3
    assert text.count('<li class="wrong">') == 3
    assert "It was <mark>Ada</mark> who was born there." in text
    assert "an answer was read at rank 1, other words were chosen" in page.shown
    assert "Right 3 of 10" in page.shown
    assert "Examples" not in Page(render_run_report(made, num_examples=0)).shown


def test_an_evaluation_of_an_older_release_says_that_its_evidence_is_missing(
    make_run: MakeRun, evaluation: Make, question: Make, tmp_path: Path
) -> None:
    made = make_run("qa", settings=STAGES["finetune"])
    old = [question(number, right=True) for number in range(3)]
    for one in old:
        del one["evidence"]
    (tmp_path / "old.json").write_text(json.dumps(evaluation(questions=old), indent=2))
    shown = Page(render_run_report(made)).shown
    assert "Their evidence is not in this evaluation" in shown


def test_what_is_answered_from_memory_is_not_said_to_have_read_or_searched(
    make_run: MakeRun, evaluation: Make, question: Make, tmp_path: Path
) -> None:
    made = make_run(settings=STAGES["pretrain"])
    unread = {"evidence": None, "rank": None, "answer_was_read": False}
    told = evaluation(
        retriever="closed-book",
        settings={"num_passages": 5, "num_retrieved": 0},
        questions=[question(number, right=number > 0, **unread) for number in range(2)],
    )
    (tmp_path / "closed.json").write_text(json.dumps(told, indent=2))
    shown = Page(render_run_report(made)).shown
    assert "retriever closed-book, 1,234 passages, none read for each" in shown
    assert "Charles 90 % expected Ada" in shown
    assert "no retrieved passage holds an answer" not in shown
    assert "which an older release wrote" not in shown


def test_claims_have_a_page_with_who_was_taken_for_whom(
    make_run: MakeRun, claim_evaluation: dict[str, Any], tmp_path: Path
) -> None:
    made = make_run("claims", settings=STAGES["classify"])
    (tmp_path / "claims.json").write_text(json.dumps(claim_evaluation, indent=2))
    shown = Page(render_run_report(made)).shown
    assert "accuracy 50.0" in shown
    assert "What was said of which label" in shown
    assert "Bo is a town true 70 % expected false" in shown
    assert "Ada was born here." in shown


def test_everything_foreign_is_escaped(
    make_run: MakeRun, evaluation: Make, question: Make, tmp_path: Path
) -> None:
    bad = "<script>alert('&')</script><img src=x onerror=y>"
    evil = question(0, right=False, question=bad, prediction=bad, answers=[bad])
    evil["evidence"] |= {"title": bad, "excerpt": bad, "passage_id": bad}
    split = {"name": bad, "fingerprint": "0", "num_questions": 1, "num_asked": 1}
    made = make_run(
        "a <b>&", settings={**STAGES["finetune"], "<i>": bad}, lines=[{"step": 1, f"eval/{bad}": 1}]
    )
    told = evaluation(questions=[evil], split=split, retriever=bad)
    (tmp_path / "bad.json").write_text(json.dumps(told, indent=2))
    page = Page(render_run_report(made))
    assert not {"script", "img", "i"} & set(page.tags) - {"i"}
    assert bad in page.shown
    assert "a <b>&" in page.shown


def test_what_cannot_be_reported_on_is_told(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="found no run"):
        render_run_report(tmp_path)
    with pytest.raises(ArtifactError, match="only those can be reported on"):
        render_run_report(make_run("imported", settings={"stage": "import"}))
    made = make_run()
    with pytest.raises(ArtifactError, match="found no file"):
        render_run_report(made, evaluations=[tmp_path / "nowhere.json"])
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write"):
        write_run_report(made, tmp_path / "file" / "report.html")


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_extra_is_named(run: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"realm-lm\[plot\]"):
        render_run_report(run)

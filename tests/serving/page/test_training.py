"""The tab "Training": curves of a run, as it goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from realm.storage import REQUEST, write_json

Make = Callable[..., Any]


def test_curves_grow_while_a_run_trains(
    open_site: Make, visit: Make, run: Path, shows: Make, write_metrics: Make
) -> None:
    page = visit(open_site(runs=[run.parent]), "#training")
    shows(page, "#run-state", "step 8 of 20")
    charts = page.locator(".charts >> nth=0").inner_text()
    assert "Loss" in charts
    assert "Retrieval utility" in charts
    assert page.locator(".chart >> nth=0 >> .refresh").count() == 2
    plot = page.locator(".plot").first
    before = page.locator(".curve").first.get_attribute("d")
    plot.focus()
    page.keyboard.press("Home")
    assert plot.get_attribute("aria-valuetext").startswith("step 1: training 8")
    page.keyboard.press("ArrowRight")
    assert plot.get_attribute("aria-valuenow") == "2"
    plot.hover(position={"x": 60, "y": 60})
    shows(page, ".chart .key .quiet", "step")

    write_metrics(run, range(9, 12))
    shows(page, "#run-state", "step 11 of 20")
    assert page.locator(".curve").first.get_attribute("d") != before


def test_a_claim_classifiers_accuracy_is_not_called_recall(
    open_site: Make, visit: Make, shows: Make, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "claims"
    run.mkdir(parents=True)
    write_json(run / REQUEST, {"kind": "run", "settings": {"stage": "classify", "steps": 2}})
    lines = [{"step": step, "accuracy": 0.25, "eval/accuracy": 0.5} for step in (1, 2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = visit(open_site(runs=[run.parent]), "#training")
    shows(page, ".chart:has-text('Accuracy')", "held out")
    shows(page, "#panel-training", "This run measures no recall.")


def test_a_screen_reader_is_told_of_states_and_not_of_steps(
    open_site: Make, visit: Make, run: Path, shows: Make, write_metrics: Make
) -> None:
    page = visit(open_site(runs=[run.parent]), "#training")
    shows(page, "#training-said", "pretraining: pretrain, running")
    page.evaluate(
        """() => {
          window.told = 0;
          const regions = document.querySelectorAll("#panel-training [role=status]");
          const count = new MutationObserver((changes) => { window.told += changes.length; });
          for (const one of regions) count.observe(one, { childList: true, subtree: true });
        }"""
    )
    write_metrics(run, range(9, 12))
    shows(page, "#run-state", "step 11 of 20")
    assert page.evaluate("window.told") == 0


def test_without_runs_it_says_how_to_start(site: Any, visit: Make, shows: Make) -> None:
    shows(visit(site, "#training"), "#runs", "realm serve --runs FOLDER")

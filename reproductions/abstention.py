"""What a run's probabilities are worth, and what it says where its passages do not know.

    PYTHONPATH=src python reproductions/abstention.py QUESTIONS.jsonl.gz --model RUN --limit 1500

Every question is asked twice: as it is, and from passages without those that hold an answer (what
is left of the retriever's list). The run is calibrated before, with `realm calibrate` on other
questions. The last two lines are what the threshold is for: "no answer" to most of the second kind,
to few of the first that would have been answered right.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from realm.answering import Answerer
from realm.cli.display import progress
from realm.config import EvaluateConfig
from realm.errors import RealmError
from realm.evaluation.abstention import measure_abstention
from realm.evaluation.calibrating import Case, answer_cases, draw
from realm.evaluation.questions import read_questions
from realm.evaluation.retrievers import use_retriever
from realm.records import Question


def main(arguments: list[str] | None = None) -> int:
    """Print the table; with --out, write it and every case as JSON, too."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("questions", type=Path, help="JSONL with answers, fitted to by nothing")
    parser.add_argument("--model", type=Path, required=True, help="calibrated run")
    parser.add_argument("--passages", type=Path, help="instead of the run's own")
    parser.add_argument("--retriever", default="dense", help="as for realm evaluate")
    parser.add_argument("--limit", type=int, help="a random sample of so many questions")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="JSON file")
    told = parser.parse_args(arguments)
    try:
        asked = draw(read_questions(told.questions), told.limit, EvaluateConfig().seed)
        answerer = Answerer.load(told.model, passages=told.passages, device=told.device)
        use_retriever(answerer, told.retriever, run=told.model, device=told.device)
        found = measure(answerer, asked)
    except RealmError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write("\n".join(table(found)) + "\n")
    if told.out is not None:
        told.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(answerer: Answerer, asked: list[Question]) -> dict[str, Any]:
    """Return all numbers, and the cases themselves."""
    why = answerer.why_uncalibrated
    with progress("answering", "questions") as advance:
        cases = answer_cases(answerer, asked, progress=advance)
    with progress("answering without", "questions") as advance:
        without = answer_cases(answerer, asked, without_answers=True, progress=advance)
    threshold = answerer.calibration.min_probability if answerer.calibration and not why else 0.0
    right = [case.is_right for case in cases]
    raw = [case.evidence.probability if case.evidence else 0.0 for case in cases]
    said = [case.probability for case in cases]
    good = [case.is_refused for case in cases if case.is_right]
    return {
        "model": f"{answerer.model_name} ({answerer.model_fingerprint[:12]})",
        "retriever": answerer.retriever.name,
        "uncalibrated": why,
        "num_questions": len(cases),
        "accuracy": sum(right) / len(right),
        "raw": measure_abstention(raw, right).as_json(),
        "told": measure_abstention(
            said, right, min_probability=threshold, is_calibrated=why is None
        ).as_json(),
        "right_refused": sum(good) / max(1, len(good)),
        "without_refused": sum(case.is_refused for case in without) / len(without),
        "cases": [_case(*pair) for pair in zip(cases, without, strict=True)],
    }


def table(found: dict[str, Any]) -> list[str]:
    """Return the numbers as a Markdown table."""
    raw, told = found["raw"], found["told"]
    kind = "as it is" if found["uncalibrated"] else "calibrated"
    return [
        f"{found['model']}, {found['retriever']}, {found['num_questions']:,} questions",
        "",
        f"| | raw | {kind} |",
        "|---|---|---|",
        f"| calibration error (ECE, 15 equal-mass bins) | {raw['ece']:.3f} | {told['ece']:.3f} |",
        f"| the same by chance | {raw['ece_by_chance']:.3f} | {told['ece_by_chance']:.3f} |",
        f"| ECE, 15 bins of equal width | {raw['ece_equal_width']:.3f} "
        f"| {told['ece_equal_width']:.3f} |",
        f"| AURC | {raw['aurc']:.3f} | {told['aurc']:.3f} |",
        f"| right, % of all | {100 * raw['accuracy_of_answered']:.1f} | |",
        f"| right, % of those answered | | {100 * told['accuracy_of_answered']:.1f} |",
        f'| "no answer" below | | {told["min_probability"]:.4g} |',
        f'| "no answer", % of all | | {100 * told["share_refused"]:.1f} |',
        f"| ... of those that would have been right | | {100 * found['right_refused']:.1f} |",
        f"| ... of those without their passages | | {100 * found['without_refused']:.1f} |",
    ]


def _case(case: Case, without: Case) -> dict[str, Any]:
    return {
        "probability": case.probability,
        "is_right": case.is_right,
        "is_refused": case.is_refused,
        "evidence": asdict(case.evidence) if case.evidence else None,
        "probability_without": without.probability,
        "is_refused_without": without.is_refused,
        "evidence_without": asdict(without.evidence) if without.evidence else None,
    }


if __name__ == "__main__":
    sys.exit(main())

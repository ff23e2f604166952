"""Table 3 over a file of sentences: without retrieval, with the best passage, over all candidates.

The paper shows one sentence. Here are as many as a file holds, and how often retrieval helps.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

from realm.errors import ArtifactError, CorpusError
from realm.evaluation.json_lines import read_objects, whole
from realm.explaining import CandidateExplanation, Explanation
from realm.readable import as_cell, as_probability, counted
from realm.records import Progress
from realm.storage import write_text

_EXAMPLE = '{"sentence": "3 is a [MASK] prime.", "answers": ["Fermat"]}'


@runtime_checkable
class Explains(Protocol):
    """An `Explainer`."""

    def explain(
        self, text: str, *, answers: Sequence[str] = (), num_candidates: int = 8
    ) -> Explanation:
        """Return what each candidate does for the answers."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClozeSentence:
    """One line of the file."""

    text: str
    """With a [MASK] for each blank."""
    answers: tuple[str, ...]
    """What each blank stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table3:
    """What retrieval did for each sentence."""

    rows: tuple[Explanation, ...]
    num_candidates: int
    """Passages read for each, the null passage included."""

    columns: ClassVar[tuple[str, ...]] = (
        "sentence",
        "y",
        "without retrieval",
        "best passage z",
        "with z alone",
        "with retrieval",
    )
    """The numbers: p(y|null,x), p(y|z,x) and p(y|x)."""

    @property
    def num_helped(self) -> int:
        """Sentences whose answer is more probable with retrieval: p(y|x) > p(y|null,x)."""
        return sum(row.p_marginal > row.p_without for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """Return the table as plain JSON values."""
        return {
            "num_candidates": self.num_candidates,
            "num_sentences": len(self.rows),
            "num_helped": self.num_helped,
            "sentences": [asdict(row) for row in self.rows],
        }

    def summary(self) -> str:
        """Return in one sentence how often retrieval helped."""
        return (
            f"Retrieval makes the answer more probable in {self.num_helped} of "
            f"{counted(len(self.rows), 'sentence')} ({self.num_candidates} candidates, the null "
            "passage included)."
        )

    def cells(self) -> list[tuple[str, ...]]:
        """Return the table's texts, row by row; probabilities as the paper writes them."""
        return [
            (
                row.text,
                row.answer,
                as_probability(row.p_without),
                title_of(best := best_passage(row)),
                as_probability(best.p_answer),
                as_probability(row.p_marginal),
            )
            for row in self.rows
        ]

    def markdown(self, head: str = "") -> str:
        """Return the table as Markdown, and the summary.

        Args:
            head: lines to stand above it.
        """
        lines = [f"| {' | '.join(self.columns)} |", "|---" * len(self.columns) + "|"]
        lines += ["| " + " | ".join(map(as_cell, row)) + " |" for row in self.cells()]
        return "\n".join([*([head, ""] if head else []), *lines, "", self.summary(), ""])


def read_sentences(path: Path) -> list[ClozeSentence]:
    """Return the sentences of a JSON-lines file.

    Keys of a line: `sentence` with one or more [MASK], and `answers`, one for each blank, or
    `answer`. Other keys are ignored, blank lines too.

    Args:
        path: a file named *.jsonl, or *.jsonl.gz, .bz2 or .zst.

    Raises:
        CorpusError: the file cannot be read, is empty, or a line is no such sentence.
    """
    return [
        _parse(entry, f"{path}:{number}")
        for number, entry in read_objects(path, noun="sentence", example=_EXAMPLE)
    ]


def table3(
    explainer: Explains,
    sentences: Sequence[ClozeSentence],
    *,
    num_candidates: int = 8,
    progress: Progress | None = None,
) -> Table3:
    """Return what retrieval does for each sentence.

    Raises:
        MaskingError: a sentence without [MASK], or too long, or not one answer for each blank.
        ConfigError: more candidates than passages.
    """
    rows: list[Explanation] = []
    for sentence in sentences:
        rows.append(
            explainer.explain(
                sentence.text, answers=sentence.answers, num_candidates=num_candidates
            )
        )
        if progress is not None:
            progress(len(rows), len(sentences))
    return Table3(rows=tuple(rows), num_candidates=num_candidates)


def write_markdown(table: Table3, path: Path, *, head: str = "") -> None:
    """Write the table as Markdown, whole or not at all.

    Raises:
        ArtifactError: it cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, table.markdown(head))
    except OSError as error:
        raise ArtifactError(
            f"cannot write the table to {path}: {error.strerror or error}; "
            "free space, fix the permissions or choose another path"
        ) from error


def best_passage(explanation: Explanation) -> CandidateExplanation:
    """Return the passage with which the answer is most probable; the null passage aside."""
    return max(explanation.candidates[1:], key=lambda candidate: candidate.p_answer)


def title_of(candidate: CandidateExplanation) -> str:
    """Return what to call a passage."""
    passage = candidate.passage
    return (passage.title or passage.id) if passage else "(null)"


def _parse(entry: Mapping[str, Any], place: str) -> ClozeSentence:
    text = entry.get("sentence")
    if not isinstance(text, str) or not text.strip():
        raise CorpusError(
            f"{place}: found keys {sorted(entry)} and no sentence, expected {_EXAMPLE}"
        )
    told = entry.get("answers", entry.get("answer"))
    answers = tuple(_texts(cast("Iterable[object]", told) if isinstance(told, list) else [told]))
    if not answers:
        raise CorpusError(
            f"{place}: found {told!r} as answers, expected a text for each [MASK], e.g. {_EXAMPLE}"
        )
    return ClozeSentence(
        text=whole(text, place), answers=tuple(whole(answer, place) for answer in answers)
    )


def _texts(values: Iterable[object]) -> list[str]:
    """Return the values if all of them are texts, none otherwise."""
    found = list(values)
    texts = [value for value in found if isinstance(value, str) and value.strip()]
    return texts if len(texts) == len(found) else []

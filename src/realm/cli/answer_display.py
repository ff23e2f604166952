"""What was found, on the console: answers, labels and explanations, the words in their context."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.text import Text

from realm.cli import display
from realm.records import Answer, AnsweredQuestion, ClassifiedClaim, Passage

if TYPE_CHECKING:
    from realm.evaluation.table3 import Table3
    from realm.explaining import Explanation

CONTEXT_CHARACTERS = 160
"""Characters of a passage shown on each side of an answer."""


def show_answers(
    answered: AnsweredQuestion,
    places: Sequence[str] = (),
    same_text: Sequence[Sequence[str]] = (),
) -> None:
    """Print a question's answers with their evidence, the words highlighted in their context.

    Args:
        answered: the question with its answers.
        places: of each answer in files, `file:line`, where it was asked of files.
        same_text: of each answer the places of its `same_text` in files, likewise.
    """
    display.out.print(f"[bold]{escape(answered.question)}[/]")
    if not answered.answers:
        display.out.print("  No answer in these passages.")
    elif answered.is_refused:
        guess = answered.answers[0]
        display.out.print(
            f"  No answer in these passages. Best guess: [bold]{escape(guess.text)}[/] "
            f"(probability {guess.probability:.2f}, below {answered.min_probability:.2f}; "
            "--min-probability 0 shows its evidence)"
        )
        return
    for number, (first, *others) in enumerate(_by_words(answered.answers), 1):
        answer = answered.answers[first]
        title = escape(_title(answer.passage))
        place = (
            f"[bold]{escape(places[first])}[/] [dim]({title}, "
            if places
            else f"[dim]{title} ({escape(answer.passage.id)}, "
            f"characters {answer.start}-{answer.end}, "
        )
        display.out.print(
            f"  {number}. [bold green]{escape(answer.text)}[/]  p={answer.probability:.3f}   "
            f"{place}p(z|x)={answer.passage_probability:.2f})[/]"
        )
        if number <= 2:
            display.out.print(evidence(answer))
        if answer.same_text:
            names = same_text[first] if places else _names(answer)
            display.out.print(f"     [dim]also in: {escape(', '.join(names))}[/]")
        if others:
            also = (answered.answers[other] for other in others)
            told = ", ".join(f"{one.text} (p={one.probability:.3f})" for one in also)
            display.out.print(f"     [dim]in other words: {escape(told)}[/]")


def _names(answer: Answer) -> list[str]:
    """Return the other passages with an answer's text, where nobody knows their lines."""
    passages = (mention.passage for mention in answer.same_text)
    return [f"{_title(passage)} ({passage.id})" for passage in passages]


def _title(passage: Passage) -> str:
    return passage.title or passage.article_id


def _by_words(answers: Sequence[Answer]) -> list[list[int]]:
    """Return the answers' numbers: longer or shorter words of one place stand together.

    They are in the order of the best of each place, which stands first.
    """
    groups: list[list[int]] = []
    for number, answer in enumerate(answers):
        for group in groups:
            best = answers[group[0]]
            is_here = best.passage.article_id == answer.passage.article_id
            if is_here and answer.start < best.end and best.start < answer.end:
                group.append(number)
                break
        else:
            groups.append([number])
    return groups


def note_uncalibrated(why: str | None) -> None:
    """Say what a threshold is worth without a calibration; nothing where there is one.

    Args:
        why: `Answerer.why_uncalibrated`.
    """
    if why is not None:
        display.err.print(
            f"note: --min-probability looks at the reader's own probabilities, which do not say "
            f"how often the model is right: {why}. Calibrate it: realm calibrate QUESTIONS "
            "--model RUN",
            markup=False,
        )


def note_inexact(why: str | None) -> None:
    """Say that the probabilities shown are of another setting than was measured.

    Args:
        why: `AnsweredQuestion.why_inexact`.
    """
    if why is not None:
        display.err.print(f"note: its probabilities may be off: {why}", markup=False)


def show_labels(classified: ClassifiedClaim) -> None:
    """Print a claim's labels, each with the passage that speaks most for it."""
    display.out.print(f"[bold]{escape(classified.claim)}[/]")
    for number, one in enumerate(classified.labels, 1):
        passage = one.passage
        display.out.print(
            f"  {number}. [bold green]{escape(one.label)}[/]  p={one.probability:.3f}   "
            f"[dim]{escape(passage.title or passage.article_id)} ({escape(passage.id)}, "
            f"p(z|x)={one.passage_probability:.2f}, "
            f"p({escape(one.label)}|z,x)={one.label_probability:.2f})[/]"
        )
        if number <= 2:
            text = passage.text[: 2 * CONTEXT_CHARACTERS].replace("\n", " ")
            cut = "..." if len(passage.text) > 2 * CONTEXT_CHARACTERS else ""
            display.out.print(f"     [dim]{escape(text)}{cut}[/]")


def show_explanation(explanation: "Explanation") -> None:
    """Print one row of Table 3."""
    from realm.readable import as_probability

    display.out.print(
        f"[bold]{escape(explanation.text)}[/]  y = [bold green]{escape(explanation.answer)}[/]"
    )
    display.out.print(
        f"  without retrieval  p(y|x) = {as_probability(explanation.p_without)}"
        f"   predicted: {escape(explanation.predicted_without)}"
    )
    display.out.print(
        f"  with retrieval     p(y|x) = {as_probability(explanation.p_marginal)}"
        f"   predicted: {escape(explanation.predicted)}"
    )
    rows = [
        (
            candidate.passage.title or candidate.passage.id if candidate.passage else "(null)",
            as_probability(candidate.p_passage),
            as_probability(candidate.p_answer),
            f"{candidate.gradient:+.3f}",
            f"{candidate.utility:+.2f}",
        )
        for candidate in explanation.candidates
    ]
    display.out.print(
        display.table("  candidates", ("z", "p(z|x)", "p(y|z,x)", "r(z)", "RU(z|x)"), rows)
    )


def show_table3(found: "Table3") -> None:
    """Print Table 3 for many sentences, and how often retrieval helped."""
    display.out.print(display.table("", found.columns, found.cells()))
    display.out.print(found.summary(), markup=False)


def evidence(answer: Answer) -> Text:
    """Return the answer in its context, sliced from the source, highlighted."""
    text, start = answer.passage.text, answer.start - answer.passage.start
    end = answer.end - answer.passage.start
    left = max(0, start - CONTEXT_CHARACTERS)
    right = min(len(text), end + CONTEXT_CHARACTERS)
    shown = Text("     ")
    shown.append(("..." if left else "") + text[left:start].replace("\n", " "), style="dim")
    shown.append(text[start:end], style="bold black on green")
    shown.append(
        text[end:right].replace("\n", " ") + ("..." if right < len(text) else ""), style="dim"
    )
    return shown

"""Answers and passages as a terminal and a notebook show them; every text of theirs escaped."""

from collections.abc import Sequence
from html import escape
from typing import Protocol, runtime_checkable

from realm.readable import visible
from realm.records import Passage

CONTEXT_CHARACTERS = 160
"""Characters of a passage shown on each side of an answer."""
SHOWN_ANSWERS = 3
_MARK = "background:#ffd54a;color:#1a1a1a;border-radius:3px;padding:0 2px"
_DIM = "opacity:.65"


@runtime_checkable
class ShownPassage(Protocol):
    """A passage with its place."""

    @property
    def passage(self) -> Passage:
        """The passage."""
        ...

    @property
    def probability(self) -> float:
        """p(z|x)."""
        ...

    @property
    def place(self) -> object:
        """Written as `document:line`."""
        ...


@runtime_checkable
class ShownMention(Protocol):
    """Where an answer's words stand, too."""

    @property
    def place(self) -> object:
        """Written as `document:line`."""
        ...


@runtime_checkable
class ShownAnswer(Protocol):
    """An answer with its place."""

    @property
    def text(self) -> str:
        """The words."""
        ...

    @property
    def probability(self) -> float:
        """p(y|x)."""
        ...

    @property
    def start(self) -> int:
        """First character in the article's text."""
        ...

    @property
    def end(self) -> int:
        """One past the last."""
        ...

    @property
    def passage(self) -> Passage:
        """The passage that holds it."""
        ...

    @property
    def place(self) -> object:
        """Written as `document:line`."""
        ...

    @property
    def same_text(self) -> Sequence[ShownMention]:
        """Where the same text stands, too."""
        ...


def answered_as_text(
    question: str, said: str | None, answers: Sequence[ShownAnswer], min_probability: float
) -> str:
    """Return a question's answers, best first, each with its evidence."""
    lines = [question]
    if said is None:
        lines.append("  no answer" + _guess(answers, min_probability))
    else:
        for number, answer in enumerate(answers[:SHOWN_ANSWERS], 1):
            before, words, after = _context(answer)
            lines += [
                f"  {number}. {answer.text}  p={answer.probability:.3f}  {answer.place}",
                f"     {before}[{words}]{after}",
            ]
            if answer.same_text:
                lines.append(f"     {_also_in(answer)}")
    return visible("\n".join(lines))


def answered_as_html(
    question: str,
    said: str | None,
    answers: Sequence[ShownAnswer],
    passages: Sequence[ShownPassage],
    min_probability: float,
) -> str:
    """Return the same for a notebook, with the passages read as bars."""
    parts = [f"<div><b>{escape(question)}</b>"]
    if said is None:
        parts.append(f"<p>no answer{escape(_guess(answers, min_probability))}</p>")
    else:
        parts.append("<ol>")
        for answer in answers[:SHOWN_ANSWERS]:
            before, words, after = (escape(part) for part in _context(answer))
            also = (
                f'<br><span style="{_DIM}">{escape(_also_in(answer))}</span>'
                if answer.same_text
                else ""
            )
            parts.append(
                f"<li><b>{escape(answer.text)}</b> "
                f'<span style="{_DIM}">p={answer.probability:.3f} · {escape(str(answer.place))}'
                f'</span><br>{before}<mark style="{_MARK}">{words}</mark>{after}'
                f"{also}</li>"
            )
        parts.append("</ol>")
    if passages:
        rows = "".join(_bar(one) for one in passages)
        parts.append(
            f"<details><summary>passages read: {len(passages)}</summary>"
            f"<table>{rows}</table></details>"
        )
    return "".join([*parts, "</div>"])


def hits_as_text(query: str, hits: Sequence[ShownPassage]) -> str:
    """Return the passages that a query finds, best first."""
    lines = [query]
    for number, hit in enumerate(hits, 1):
        lines += [
            f"  {number}. {_title(hit)}  p={hit.probability:.3f}  {hit.place}",
            f"     {_short(hit.passage.text)}",
        ]
    return visible("\n".join(lines if hits else [query, "  no passage"]))


def hits_as_html(query: str, hits: Sequence[ShownPassage]) -> str:
    """Return the same for a notebook."""
    rows = "".join(_bar(hit) for hit in hits)
    return f"<div><b>{escape(query)}</b><table>{rows}</table></div>"


def _guess(answers: Sequence[ShownAnswer], min_probability: float) -> str:
    if not answers:
        return " in these passages"
    best = answers[0]
    return (
        f"; best guess: {best.text} (probability {best.probability:.2f}, "
        f"below {min_probability:.2f})"
    )


def _also_in(answer: ShownAnswer) -> str:
    """Return the other places of an answer's text."""
    return "also in: " + ", ".join(str(mention.place) for mention in answer.same_text)


def _context(answer: ShownAnswer) -> tuple[str, str, str]:
    """Return (text before, the words, text after) as they stand in the passage, on one line."""
    text = answer.passage.text
    start, end = answer.start - answer.passage.start, answer.end - answer.passage.start
    left, right = max(0, start - CONTEXT_CHARACTERS), min(len(text), end + CONTEXT_CHARACTERS)
    before = ("..." if left else "") + text[left:start]
    after = text[end:right] + ("..." if right < len(text) else "")
    before, words, after = (part.replace("\n", " ") for part in (before, text[start:end], after))
    return before, words, after


def _bar(one: ShownPassage) -> str:
    width = max(1, round(100 * one.probability))
    return (
        f'<tr><td style="width:110px"><div style="background:#5b8def;height:8px;width:{width}px">'
        f"</div></td><td>{one.probability:.2f}</td>"
        f"<td><b>{escape(_title(one))}</b> "
        f'<span style="{_DIM}">{escape(str(one.place))}</span><br>'
        f"{escape(_short(one.passage.text))}</td></tr>"
    )


def _title(one: ShownPassage) -> str:
    return one.passage.title or one.passage.article_id


def _short(text: str) -> str:
    shown = text[: 2 * CONTEXT_CHARACTERS].replace("\n", " ")
    return shown + ("..." if len(text) > 2 * CONTEXT_CHARACTERS else "")

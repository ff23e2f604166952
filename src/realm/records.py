"""The nouns of the pipeline, as plain frozen records. No tensors, no files."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Progress = Callable[[int, int], None]
"""Called with (done, total) as a stage advances; total is 0 while it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Article:
    """One source page of a corpus."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """One retrievable piece of the knowledge corpus: a `z` in the paper.

    The paper says "document" and ORQA says "block"; this codebase says passage.
    `text == article.text[start:end]`, always.
    """

    row: int
    """Position in the passage store and in every index built from it."""
    id: str
    """`<article id>#<number of the passage in its article>`."""
    article_id: str
    title: str
    text: str
    start: int
    """First character in the article's text."""
    end: int
    """One past the last character in the article's text."""
    sentences: tuple[tuple[int, int], ...]
    """Character offsets (start, end) of each sentence in `text`."""

    @property
    def sha256(self) -> str:
        """Hash of title and text: equal passages are recognised in any store."""
        return hashlib.sha256(f"{self.title}\n{self.text}".encode()).hexdigest()

    def as_json(self) -> dict[str, str | int]:
        """Return what is told of a passage that was found: its text, and where that stands."""
        return {
            "id": self.id,
            "article_id": self.article_id,
            "title": self.title,
            "text": self.text,
            "start": self.start,
            "end": self.end,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SalientSpan:
    """A stretch of a passage's text that needs world knowledge: an entity, a date, a quantity."""

    start: int
    """First character, in the text that was tagged."""
    end: int
    """One past the last character."""
    label: str
    """PER, LOC, ORG, MISC, TERM, NAME, DATE, QUANTITY, or what the tagger says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedExample:
    """One masked sentence: an `x` with its `y`. All wordpieces without [CLS] and [SEP]."""

    row: int
    """Position in the examples folder."""
    origin: int
    """Number of the passage of X it came from (row of that store)."""
    origin_sha256: str
    """Hash of that passage (title and text): how X = Z recognises an example's own passage."""
    article_id: str
    sentence: str
    """The sentence as written, nothing masked."""
    span_start: int
    """First character of the masked span in `sentence` (-1: no single span)."""
    span_end: int
    label: str
    """Kind of the span, or the masking scheme."""
    original_ids: tuple[int, ...]
    """Wordpieces of `sentence`."""
    query_ids: tuple[int, ...]
    """The same with [MASK] at every masked position."""
    positions: tuple[int, ...]
    """Masked positions in `query_ids` that count in the loss, at most `max_masks`."""
    target_ids: tuple[int, ...]
    """Gold wordpieces at `positions`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """An open-domain question with what counts as right."""

    id: str
    question: str
    answers: tuple[str, ...] = ()
    answer_patterns: tuple[str, ...] = ()
    """Regexes instead of strings (CuratedTREC)."""
    passage_id: str | None = None
    """Article id of the gold passage, where a set knows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A sentence with its label: true or false, yes or no, supported or refuted, ..."""

    id: str
    claim: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelEvidence:
    """One label of a claim, with the passage that speaks most for it."""

    label: str
    probability: float
    """p(label|x): over all passages that were read."""
    passage: Passage
    """The one with the largest p(z|x) p(label|z,x)."""
    passage_probability: float
    """p(z|x) over the passages that were read."""
    label_probability: float
    """p(label|z,x): what this passage alone says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifiedClaim:
    """What a classifier says to one claim."""

    claim: str
    labels: tuple[LabelEvidence, ...]
    """All of them, the most probable one first."""
    read_rows: tuple[int, ...] = ()
    """The rows that the classifier read, best first."""

    @property
    def label(self) -> str:
        """The most probable one."""
        return self.labels[0].label


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """Words of an answer where they stand in another passage.

    `passage.text[start - passage.start:end - passage.start] == answer.text`, always.
    """

    passage: Passage
    start: int
    """First character in the article's text."""
    end: int

    def as_json(self) -> dict[str, Any]:
        """Return what a citation takes; the passage's text is known from the answer."""
        passage = self.passage.as_json()
        del passage["text"]
        return {"start": self.start, "end": self.end, "passage": passage}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer with its evidence.

    `passage.text[start - passage.start:end - passage.start] == text`, always.
    """

    text: str
    probability: float
    """p(y|x): summed over all passages and spans with the same string. With a calibrated run the
    chance that the best answer is right, and for the others their p(y|x), scaled to fit."""
    start: int
    """First character in the article's text."""
    end: int
    passage: Passage
    """The passage that holds the most probable mention of this string; of several with the same
    text the one that was read."""
    passage_probability: float
    """p(z|x) over the passages that were read."""
    raw_probability: float | None = None
    """p(y|x) as the reader has it, calibrated run or not; None: not told."""
    same_text: tuple[Mention, ...] = ()
    """Where the same words stand in the other passages found that have the text of `passage`, best
    first: copies of a file, a text that documents repeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What speaks for the best answer to a question being right: the calibrator's input."""

    probability: float
    """p(y|x) of the best string, summed over all passages and spans read, not calibrated."""
    margin: float
    """How much more that is than the second string's, 0 to 1."""
    best_logit: float
    """The reader's largest logit of a span, without the retriever's score."""
    score: float
    """The retriever's score of the first passage, on the retriever's own scale."""
    score_gap: float
    """How much more that is than the mean score of passages 2 to 5; 0 where there are none."""
    agreement: float
    """Share of the passages read whose own best span is the best string."""
    overlap: float
    """Share of the question's wordpieces that stand in the first passage or its title."""
    p_null: float | None = None
    """The reader's probability that no passage read holds an answer; None: it has no such logit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredQuestion:
    """What an answerer says to one question."""

    question: str
    answers: tuple[Answer, ...]
    """Best first; empty when nothing was found."""
    passage_rows: tuple[int, ...] = ()
    """Every retrieved row, best first: as many as were asked for, read or not, and more where
    copies among them left too few to read."""
    read_rows: tuple[int, ...] = ()
    """The rows that the reader read, no two with the same text."""
    read_probabilities: tuple[float, ...] = ()
    """p(z|x) of each of them, over those read."""
    evidence: Evidence | None = None
    """For the best answer; None when nothing was found."""
    is_calibrated: bool = False
    """Whether `probability` of the answers is calibrated."""
    min_probability: float = 0.0
    """Below it the best answer is not said."""
    why_inexact: str | None = None
    """Why calibrated probabilities may be off: another number of passages was read than they were
    measured with; None: no reason, or not calibrated."""

    @property
    def best(self) -> Answer | None:
        """The answer to say; None: "no answer"."""
        return None if self.is_refused else self.answers[0]

    @property
    def is_refused(self) -> bool:
        """Whether "no answer" is said: nothing found, or nothing probable enough."""
        return not self.answers or self.answers[0].probability < self.min_probability


Split = Literal["train", "test"]


@dataclass(slots=True, kw_only=True)
class Skipped:
    """Counts of everything that was left out, by reason, with the first few places."""

    counts: dict[str, int] = field(default_factory=dict[str, int])
    examples: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    keep: int = 20
    """Places remembered for each reason."""

    def add(self, reason: str, place: str = "") -> None:
        """Count one more item left out for `reason`."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        places = self.examples.setdefault(reason, [])
        if place and len(places) < self.keep:
            places.append(place)

    def join(self, other: "Skipped") -> None:
        """Add what came after."""
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
        for reason, found in other.examples.items():
            places = self.examples.setdefault(reason, [])
            places += found[: self.keep - len(places)]

    @property
    def total(self) -> int:
        """How many items were left out in all."""
        return sum(self.counts.values())


DocumentFormat = Literal["text", "markdown", "jsonl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a user adds to a library, replaces or removes; passages are what it is cut into."""

    id: str
    """Unique in the library; of a file in a folder its path there, with slashes."""
    text: str
    title: str = ""
    """"": the heading of a Markdown text, or the id's last part without its ending, unless that
    is a hash or a UUID."""
    format: DocumentFormat = "text"
    """jsonl: each line is a record with id, title and text, an article of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentInfo:
    """What a listing tells of a document."""

    id: str
    title: str
    format: DocumentFormat
    num_characters: int
    num_passages: int
    sha256: str
    """Hash of its text."""
    added_at: str
    """ISO 8601, UTC: when this version of it was added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What adding or removing did to a library."""

    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    num_embedded: int = 0
    """Passages that had to be embedded: not those that the library already knew."""
    skipped: Skipped = field(default_factory=Skipped)
    """Records of JSON lines and texts that could not be used, by reason."""

    def __bool__(self) -> bool:
        """Return whether anything in the library is another than before."""
        return bool(self.added or self.replaced or self.removed)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON, what was left out by reason."""
        return {
            "added": list(self.added),
            "replaced": list(self.replaced),
            "unchanged": list(self.unchanged),
            "removed": list(self.removed),
            "num_embedded": self.num_embedded,
            "skipped": dict(self.skipped.counts),
        }

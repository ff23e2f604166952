"""What requests and responses look like, with their limits and examples, for OpenAPI."""

import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_CHARACTERS = 4_000
"""Of a question, a query or a sentence; what the model reads is shorter, in wordpieces."""
MAX_PASSAGES = 50
"""Read for one question, or found for one query."""
MAX_ANSWERS = 50
MAX_ID_CHARACTERS = 500
RESERVED_IDS = ("progress",)
"""Ids that would hide behind another address."""
_ALLOWED_CONTROLS = "\t\n\r"


def _check_text(text: str) -> str:
    """Return a text that is Unicode without control characters."""
    check_unicode(text)
    found = next((c for c in text if _is_control(c)), None)
    if found is not None:
        raise ValueError(f"found the control character U+{ord(found):04X}, expected none")
    return text


def check_unicode(text: str) -> str:
    """Return a text that can be written as UTF-8.

    Raises:
        ValueError: it holds half a surrogate pair, as JSON's escapes can.
    """
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("found half of a surrogate pair, expected Unicode text")
    return text


def check_id(text: str) -> str:
    """Return a document's id that can stand in an address.

    Raises:
        ValueError: it cannot.
    """
    check_unicode(text)
    if not 1 <= len(text) <= MAX_ID_CHARACTERS:
        raise ValueError(f"found {len(text):,} characters, expected 1 to {MAX_ID_CHARACTERS}")
    if any(unicodedata.category(c) == "Cc" for c in text) or "\\" in text:
        raise ValueError("found a control character or a backslash, expected a path like a/b.txt")
    if any(part in {"", ".", ".."} for part in text.split("/")):
        raise ValueError("found an empty part, . or .., expected a path like a/b.txt")
    if text in RESERVED_IDS:
        raise ValueError(
            "this id stands for something else in the server's addresses, take another"
        )
    return text


def _is_control(letter: str) -> bool:
    return unicodedata.category(letter) == "Cc" and letter not in _ALLOWED_CONTROLS


Text = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS), AfterValidator(_check_text)]
Title = Annotated[
    str, Field(min_length=1, max_length=MAX_CHARACTERS), AfterValidator(check_unicode)
]
"""Of a document, which may hold what its text may: a title comes from there, and may come back."""
DocumentId = Annotated[
    str, Field(min_length=1, max_length=MAX_ID_CHARACTERS), AfterValidator(check_id)
]
NumPassages = Annotated[int, Field(ge=1, le=MAX_PASSAGES)]


class _Asked(BaseModel):
    """A request: nothing is guessed, nothing unknown is passed over."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class AnswerRequest(_Asked):
    """A question."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"question": "When does the library close?", "num_answers": 3}]
        }
    )
    question: Annotated[Text, Field(description="In words; at most what the model reads.")]
    num_answers: Annotated[
        int, Field(ge=1, le=MAX_ANSWERS, description="Distinct strings to return.")
    ] = 3
    num_passages: Annotated[
        NumPassages | None, Field(description="Passages to read; null: the model's own number.")
    ] = None
    min_probability: Annotated[
        float | None,
        Field(
            ge=0.0,
            le=1.0,
            description="Less probable answers become null; null: the calibration's threshold.",
        ),
    ] = None


class SearchRequest(_Asked):
    """What to find passages for."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "opening hours", "num_passages": 5}]}
    )
    query: Text
    num_passages: NumPassages = 5


class ExplainRequest(_Asked):
    """A sentence with a blank."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"sentence": "The library closes at [MASK].", "answer": "eight"}]
        }
    )
    sentence: Annotated[Text, Field(description="With one or more literal [MASK].")]
    answer: Annotated[
        Text | None, Field(description="What stands in the blank; null: the model's prediction.")
    ] = None
    num_candidates: Annotated[
        int, Field(ge=2, le=MAX_PASSAGES, description="Passages read, the null passage included.")
    ] = 8


class DocumentRequest(_Asked):
    """A document to add, or to put in the place of the one with the same id."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "notes/library.md",
                    "text": "# The library\n\nIt closes at eight.",
                    "format": "markdown",
                }
            ]
        }
    )
    id: DocumentId
    text: Annotated[str, Field(min_length=1), AfterValidator(check_unicode)]
    title: Annotated[Title | None, Field(description="Null: from the text, or from the id.")] = None
    format: Literal["text", "markdown", "jsonl"] = "text"


class _Told(BaseModel):
    """A response; more may come with a later version."""

    model_config = ConfigDict(extra="allow")


class PassageModel(_Told):
    """A piece of a document: `text == article.text[start:end]`, in Unicode code points."""

    id: str
    article_id: str
    title: str
    text: str
    start: int
    end: int


class ReadPassageModel(PassageModel):
    """A passage that was read."""

    probability: float


class ReadPlacedModel(ReadPassageModel):
    """A passage that was read, and where it stands."""

    document: str | None
    line: int | None


class AnswerModel(_Told):
    """One answer with its evidence."""

    text: str
    probability: float
    raw_probability: float | None
    start: int
    end: int
    document: str | None
    line: int | None
    passage: ReadPassageModel


class AnsweredModel(_Told):
    """The answers to a question, best first; `answer` is what to say, null for "no answer"."""

    question: str
    answer: str | None
    probability: float | None
    min_probability: float
    calibrated: bool
    answers: list[AnswerModel]
    passages: list[ReadPlacedModel]


class HitModel(_Told):
    """A passage that was found."""

    score: float
    probability: float
    document: str | None
    line: int | None
    passage: PassageModel


class FoundModel(_Told):
    """The passages found for a query, best first."""

    query: str
    hits: list[HitModel]


class CandidateModel(_Told):
    """What one candidate does for the prediction; passage null: the null passage."""

    passage: PassageModel | None
    p_passage: float | None
    p_answer: float | None
    gradient: float | None
    utility: float | None


class ExplainedModel(_Told):
    """One row of Table 3."""

    sentence: str
    answer: str
    num_masks: int
    p_without: float | None
    p_marginal: float | None
    predicted_without: str
    predicted: str
    candidates: list[CandidateModel]


class ChangesModel(_Told):
    """What adding or removing did; it is on disk."""

    added: list[str]
    replaced: list[str]
    unchanged: list[str]
    removed: list[str]
    num_embedded: int
    skipped: dict[str, int]


class DocumentInfoModel(_Told):
    """One document of the listing."""

    id: str
    title: str
    format: str
    num_characters: int
    num_passages: int
    sha256: str
    added_at: str


class ListingModel(_Told):
    """All documents."""

    documents: list[DocumentInfoModel]
    num_passages: int


class DocumentModel(_Told):
    """One document, whole."""

    id: str
    text: str
    title: str
    format: str


class ProgressModel(_Told):
    """How far the documents being added are embedded; 0 of 0 when none is."""

    done: int
    total: int


class RunModel(_Told):
    """A run that was named to the server."""

    name: str
    stage: str
    state: str
    step: int
    num_steps: int


class TrainingModel(_Told):
    """All runs."""

    runs: list[RunModel]


class CurvesModel(RunModel):
    """A run's curves."""

    series: dict[str, list[tuple[int, float]]]
    refreshes: list[int]


class StatusModel(_Told):
    """What answers, and from how much."""

    model: str
    num_documents: int
    num_passages: int
    waiting: int
    watch: Annotated[
        Literal["off", "on", "failing"],
        Field(
            description="Whether a folder is followed (`--watch`); failing: what is answered from "
            "may be older than its files, the server's log says why, and it is tried again.",
            examples=["on"],
        ),
    ]
    index_age_seconds: float


class HealthModel(_Told):
    """The server can be asked."""

    status: str


class FailureModel(_Told):
    """What and why."""

    code: str
    message: str


class ErrorModel(_Told):
    """Every error looks so."""

    error: FailureModel


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the errors that a route answers with, for OpenAPI: those named, and those of all."""
    reasons = {
        400: "The request cannot be read.",
        401: "No token, or another one.",
        403: "From another web page.",
        404: "There is none with this id.",
        409: "The model or the library cannot do this, or not now.",
        413: "The body is too long.",
        415: "The body is neither JSON nor a form with files.",
        422: "The request is not as the schema says, or longer than the model reads.",
        429: "Too many requests, from you or in all; Retry-After says when.",
        503: "The server is stopping, or its files cannot be read.",
    }
    common = (400, 401, 403, 429, 503)
    return {
        status: {"model": ErrorModel, "description": reasons[status]}
        for status in sorted({*common, *statuses})
    }

"""What responses look like, errors too, for OpenAPI."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Told(BaseModel):
    """A response; more may come with a later version."""

    model_config = ConfigDict(extra="allow")


class PassagePlaceModel(_Told):
    """Where a piece of a document begins and ends, in Unicode code points."""

    id: str
    article_id: str
    title: str
    start: int
    end: int


class PassageModel(PassagePlaceModel):
    """A piece of a document: `text == article.text[start:end]`, in Unicode code points."""

    text: str


class ReadPassageModel(PassageModel):
    """A passage that was read."""

    probability: float


class ReadPlacedModel(ReadPassageModel):
    """A passage that was read, and where it stands."""

    document: str | None
    line: int | None


class MentionModel(_Told):
    """Where the words of an answer stand, too: in a passage with the same text."""

    start: int
    end: int
    document: str | None
    line: int | None
    passage: PassagePlaceModel


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
    same_text: Annotated[
        list[MentionModel],
        Field(
            description="Where the same words stand in the other passages found with the text of "
            "`passage`: copies of a document, a text that documents repeat; often none.",
            examples=[
                [
                    {
                        "start": 36,
                        "end": 41,
                        "document": "old/library.md",
                        "line": 3,
                        "passage": {
                            "id": "old/library.md#0",
                            "article_id": "old/library.md",
                            "title": "The library",
                            "start": 0,
                            "end": 42,
                        },
                    }
                ]
            ],
        ),
    ]


class AnsweredModel(_Told):
    """The answers to a question, best first; `answer` is what to say, null for "no answer"."""

    question: str
    answer: str | None
    probability: float | None
    min_probability: float
    calibrated: bool
    why_inexact: Annotated[
        str | None,
        Field(
            description="Why calibrated probabilities may be off: another number of passages was "
            "read than they were measured with; null: no reason, or not calibrated.",
            examples=["it was calibrated reading 5 passages, not 1"],
        ),
    ]
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

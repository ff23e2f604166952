"""What requests look like, with their limits and examples, for OpenAPI."""

import unicodedata
from typing import Annotated, Literal

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
    title: Annotated[
        Title | None,
        Field(description="Null: from the text, or from an id that is no hash and no UUID."),
    ] = None
    format: Literal["text", "markdown", "jsonl"] = "text"
